"""Which model a text goes to: by the pair of languages, by name, by what is detected."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry

from server.decoding_fields import DecodingFields
from server.errors import (
    Draining,
    GenerationFailed,
    NotReady,
    QueueFull,
    TooLarge,
    UnknownModel,
    UnsupportedLanguage,
)
from server.metrics import Metrics
from server.preparation import Wishes
from server.results import Result
from server.routing import prepare
from server.serving import Serving
from server.settings import Settings
from server.text.languages import LanguageDetector
from server.translator import Translator
from tests.server.fakes import EchoRunner
from tests.server.test_translator import build, card

_Result = TypeVar("_Result")

GERMAN, ENGLISH, FRENCH = "Wo ist der Bahnhof", "Where is the station", "Nous allons au restaurant"
EN_DE = {"en": ("de",), "de": ("en",)}
FR_EN = {"fr": ("en",), "es": ("en",)}


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector()


@pytest.fixture
def run(detector: LanguageDetector) -> Callable[..., Any]:
    """Run something with a Serving of echoing models, given by {name: targets}."""

    def run(
        models: dict[str, dict[str, tuple[str, ...]]],
        work: Callable[[Serving], Awaitable[_Result]],
        runners: dict[str, EchoRunner] | None = None,
    ) -> _Result:
        async def main() -> _Result:
            serving = Serving(Settings(), Metrics(CollectorRegistry(), "x"))
            serving.detector = detector
            for name, targets in models.items():
                runner = (runners or {}).get(name) or EchoRunner()
                translator = build(runner, card(name=name, targets=targets))
                translator.engine.start()
                serving.translators[name] = translator
            try:
                while not all(t.engine.is_healthy for t in serving.translators.values()):
                    await asyncio.sleep(0.001)
                return await work(serving)
            finally:
                for translator in serving.translators.values():
                    await asyncio.to_thread(translator.engine.stop)

        return asyncio.run(main())

    return run


async def translate(
    serving: Serving, texts: Sequence[str], source: str, target: str, model: str | None = None
) -> tuple[str, list[Result]]:
    translation = await prepare(
        serving, texts, source, target, DecodingFields(), Wishes(), model=model, timeout_s=30
    )
    async with translation:
        return translation.models, await translation.collect()


@pytest.mark.parametrize(
    ("source", "target", "model", "name"),
    [
        ("en", "de", None, "first"),
        ("EN", "De", None, "first"),
        ("fr", "en", None, "second"),
        ("de", "en", None, "first"),  # both know it: the order of --model decides
        ("de", "en", "third", "third"),
        ("fr", "fr", None, "second"),  # stays as it is
    ],
)
def test_the_first_model_that_covers_the_pair_is_chosen(
    run: Callable[..., Any], source: str, target: str, model: str | None, name: str
) -> None:
    async def work(serving: Serving) -> str:
        return serving.for_pair(source, target, model).card.name

    assert run({"first": EN_DE, "second": FR_EN, "third": EN_DE}, work) == name


@pytest.mark.parametrize(
    ("source", "target", "model", "sentence"),
    [
        ("en", "it", None, "it is not supported; the loaded languages are: de, en, es, fr"),
        ("xx", "en", None, "xx is not supported; the loaded languages are: de, en, es, fr"),
        (
            "fr",
            "de",
            None,
            "German (de) is not available as a target language from French (fr); "
            "fr can be translated to: en",
        ),
        ("en", "en", "raw", "raw declares no languages, so that it serves /generate only"),
        ("fr", "en", "first", "fr is not supported; the loaded languages are: de, en"),
    ],
)
def test_a_pair_that_nobody_covers_is_refused_with_what_there_is(
    run: Callable[..., Any], source: str, target: str, model: str | None, sentence: str
) -> None:
    async def work(serving: Serving) -> None:
        with pytest.raises(UnsupportedLanguage) as error:
            serving.for_pair(source, target, model)
        assert str(error.value) == sentence

    run({"first": EN_DE, "second": FR_EN, "raw": {}}, work)


def test_many_languages_are_listed_in_part(run: Callable[..., Any]) -> None:
    codes = [f"x{number:02d}" for number in range(60)]

    async def work(serving: Serving) -> None:
        with pytest.raises(UnsupportedLanguage, match=r"x39 and 20 more \(see /languages\)"):
            serving.for_pair("en", "x00")

    run({"many": dict.fromkeys(codes, (*codes,))}, work)


def test_texts_are_routed_one_by_one_and_come_back_in_order(run: Callable[..., Any]) -> None:
    texts = [FRENCH, GERMAN, ENGLISH, FRENCH + "!"]

    async def work(serving: Serving) -> tuple[str, list[Result]]:
        return await translate(serving, texts, "auto", "en")

    models, results = run({"first": EN_DE, "second": FR_EN}, work)
    assert models == "second,first"
    assert [result.text for result in results] == texts  # the fake repeats its source
    assert [r.detected.language for r in results if r.detected] == ["fr", "de", "en", "fr"]
    assert results[2].usage.target_tokens == 0  # is English already


def test_detection_considers_only_what_can_be_served(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> list[str]:
        found = [serving.detect(FRENCH, target, model) for target, model in asked]
        return [",".join(sorted(d.language for d in ranked)) for ranked in found]

    asked = [("de", None), ("en", None), ("en", "first"), (None, None), (None, "second")]
    assert run({"first": EN_DE, "second": FR_EN}, work) == [
        "de,en",
        "de,en,es,fr",
        "de,en",
        "de,en,es,fr",
        "en,es,fr",
    ]


def test_detection_towards_what_nobody_translates_to_is_refused(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> None:
        for target, sentence in (
            ("fr", "no loaded model translates to fr"),
            ("it", "it is not supported; the loaded languages are: en, es, fr"),
        ):
            with pytest.raises(UnsupportedLanguage, match=sentence):
                await translate(serving, [FRENCH], "auto", target)

    run({"second": FR_EN}, work)


def test_models_without_languages_detect_nothing(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> None:
        with pytest.raises(UnsupportedLanguage, match="raw declares no languages"):
            serving.detect(FRENCH)
        with pytest.raises(UnsupportedLanguage, match="raw declares no languages"):
            await translate(serving, [FRENCH], "auto", "en")

    run({"raw": {}}, work)


def test_size_is_verified_before_anything_is_detected(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> None:
        serving.detector = None  # would be asked
        with pytest.raises(TooLarge):
            await translate(serving, ["a" * 501], "auto", "en")

    run({"first": EN_DE}, work)


def test_a_refusal_of_one_model_withdraws_from_the_others(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Translator, *_: object) -> dict[int, Any]:
        if self.card.name == "first":
            raise QueueFull("full", 1.0)
        return submit(self, *_)  # type: ignore[arg-type]

    submit = Translator.submit
    monkeypatch.setattr(Translator, "submit", refuse)
    runners = {"second": EchoRunner()}

    async def work(serving: Serving) -> None:
        runners["second"].may_step.clear()
        with pytest.raises(QueueFull):
            await translate(serving, [FRENCH, GERMAN], "auto", "en")
        runners["second"].may_step.set()
        while serving.translators["second"].engine.held:
            await asyncio.sleep(0.001)

    run({"first": EN_DE, "second": FR_EN}, work, runners)


def test_a_failure_of_one_model_ends_the_request_and_leaves_nothing(
    run: Callable[..., Any],
) -> None:
    runners = {"first": EchoRunner(sick=frozenset(range(2, 60))), "second": EchoRunner()}

    async def work(serving: Serving) -> None:
        with pytest.raises(GenerationFailed):
            await translate(serving, [FRENCH * 2, GERMAN], "auto", "en")
        while any(t.engine.held for t in serving.translators.values()):
            await asyncio.sleep(0.001)
        assert len(asyncio.all_tasks()) == 1

    run({"first": EN_DE, "second": FR_EN}, work, runners)


def test_while_models_are_awaited_only_what_is_certain_is_answered(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> None:
        serving.awaited = ["later", "last"]
        assert serving.status == "loading"
        assert serving.states == {"first": "ready", "later": "loading", "last": "waiting"}
        assert serving.for_pair("en", "de").card.name == "first"
        assert serving.detect(GERMAN, "en", "first")[0].language == "de"
        for call in (
            lambda: serving.for_pair("fr", "en"),  # the next model may know it
            lambda: serving.for_pair("en", "de", "later"),
            lambda: serving.detect(GERMAN, "en"),
            serving.verify_complete,
        ):
            with pytest.raises(NotReady):
                call()
        with pytest.raises(UnsupportedLanguage):
            serving.for_pair("fr", "en", "first")
        with pytest.raises(UnknownModel, match="loaded: first"):
            serving.for_pair("en", "de", "never")
        serving.failure = ValueError("x")
        assert serving.states["later"] == "failed"
        serving.is_draining = True
        with pytest.raises(Draining):
            serving.for_pair("en", "de")

    run({"first": EN_DE}, work)


def test_a_translator_refuses_a_pair_that_is_not_its_own(run: Callable[..., Any]) -> None:
    async def work(serving: Serving) -> None:
        assert serving.translators["first"].covers("en", "DE")
        assert not serving.translators["first"].covers("en", "fr")
        with pytest.raises(UnsupportedLanguage, match="first does not translate fr to en"):
            await serving.translators["first"].translate(
                ["a"], "fr", "en", DecodingFields(), Wishes(), timeout_s=1
            )

    run({"first": EN_DE}, work)


def test_other_spellings_of_a_language_route_as_its_code_does(detector: LanguageDetector) -> None:
    async def main() -> None:
        serving = Serving(Settings(), Metrics(CollectorRegistry(), "x"))
        serving.detector = detector
        known = card(name="first", targets={"fr": ("en",)}, aliases={"eng": "en", "fra": "fr"})
        serving.translators["first"] = build(EchoRunner(), known)
        assert serving.translators["first"].covers("FRA", "eng")
        assert {d.language for d in serving.detect(FRENCH, "eng")} == {"en", "fr"}
        with pytest.raises(UnsupportedLanguage, match="no loaded model translates to fra"):
            serving.detect(FRENCH, "fra")
        with pytest.raises(UnsupportedLanguage, match="can be translated to: nothing"):
            serving.for_pair("eng", "fra")

    asyncio.run(main())
