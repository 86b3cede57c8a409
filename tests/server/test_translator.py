"""The Translator's own decisions, with a model that repeats its source."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model import Card, DecodingOptions, Detokenizer, Prompt
from model.detokenizer import MetaspaceJoiner
from model.tokenizers.contract import joined
from server.decoding_fields import DecodingFields
from server.engine import Engine
from server.errors import GenerationFailed, InvalidRequest, TooLarge, UnsupportedLanguage
from server.messages import Request, Update
from server.metrics import Metrics
from server.preparation import Preparation, Wishes
from server.reading import WINDOW, Delta
from server.results import Result
from server.scheduler import Scheduler
from server.translator import Translator
from tests.server.fakes import EOS, EchoRunner

LETTERS = ["", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,!?äöü字。"]


class Letters:
    """One token a character: what is generated reads as what was sent."""

    targets: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    aliases: Mapping[str, str] = MappingProxyType({})

    def prompt(self, text: str, source: str, target: str) -> Prompt:
        return Prompt(self.encode_raw(text))

    def encode_raw(self, text: str) -> tuple[int, ...]:
        return (*[LETTERS.index(letter) for letter in text], EOS)

    def encode_inside(self, text: str, *, is_spaced: bool = True) -> tuple[int, ...] | None:
        if not set(text) <= set(LETTERS):
            return None
        return self.encode_target(" " * is_spaced + text) or None

    def encode_target(self, text: str) -> tuple[int, ...]:
        return self.encode_raw(text)[:-1]

    def token_id(self, token: str) -> int | None:
        return LETTERS.index(token)

    def decode(self, ids: Iterable[int]) -> str:
        return joined(self.detokenizer(), ids)

    def detokenizer(self) -> Detokenizer:
        joiner = MetaspaceJoiner(LETTERS.__getitem__, frozenset({EOS}), trims=False)
        return Detokenizer(joiner, strips=True)

    def source_token(self, token: int) -> str:
        return f"{LETTERS[token]}"

    def target_token(self, token: int) -> str:
        return f"{LETTERS[token]}"

    def is_special(self, token: int) -> bool:
        return token == EOS


class Lossy(Letters):
    """Drops what is not in its vocabulary."""

    def encode_target(self, text: str) -> tuple[int, ...]:
        return super().encode_target("".join(letter for letter in text if letter in LETTERS))


def card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "echo",
        "architecture": "echo",
        "precision": "float32",
        "parameters": 0,
        "vocabulary": len(LETTERS),
        "decoder_layers": 2,
        "max_source": 60,
        "max_target": 60,
        "defaults": {},
        "targets": {"en": ("de",), "de": ("en",)},
        "aliases": {"eng": "en"},
        "source": "nowhere",
    }
    return Card(**values | changes)


def translated(
    texts: list[str],
    runner: EchoRunner | None = None,
    *,
    source: str = "en",
    **fields: Any,
) -> tuple[list[Delta], list[Result]]:
    """Translate with a fresh engine; returns all deltas and the results."""

    async def run() -> tuple[list[Delta], list[Result]]:
        translator = build(runner or EchoRunner())
        translator.engine.start()
        try:
            reading = await translator.translate(
                texts, source, "de", DecodingFields(**fields), Wishes(streams=True), timeout_s=30
            )
            async with reading:
                deltas = [delta async for delta in reading.deltas()]
                return deltas, reading.results()
        finally:
            await asyncio.to_thread(translator.engine.stop)

    return asyncio.run(run())


def build(runner: EchoRunner, model: Card | None = None, max_beams: int = 8) -> Translator:
    def engine(publish: Callable[[Sequence[Update]], None]) -> Engine:
        return Engine(
            runner,
            Scheduler(4, EOS, source_tokens_per_tick=1000),
            publish,
            Metrics(CollectorRegistry(), "x").for_model("echo"),
            probe=Request((EOS,), DecodingOptions(max_new_tokens=1)),
            max_waiting=100,
        )

    model = model or card()
    return Translator(
        model, Letters(), engine, max_texts=9, max_characters=500, max_beams=max_beams
    )


def test_deltas_come_in_reading_order_and_concatenate_to_the_results() -> None:
    texts = ["One. Two three. ", "  ", "Four!\n\nFive?"]
    deltas, results = translated(texts)

    assert [result.text for result in results] == texts
    order = [(delta.text_index, delta.segment) for delta in deltas]
    assert order == sorted(order)
    for index, text in enumerate(texts):
        assert "".join(delta.text for delta in deltas if delta.text_index == index) == text


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["lo"], "Hel"),
        (["Hello"], ""),
        (["zz"], "Hello world"),
        (["world", "o w"], "Hell"),
        (["d"], "Hello worl"),
        (["l", "e"], "H"),
        (["dZ", "lo wX", "Hello worlX"], "Hello world"),
        (["d", "lo worlX"], "Hello worl"),
        (["world!"], "Hello world"),  # held back as its beginning, released at the end
    ],
)
def test_a_stop_string_is_never_shown_not_even_in_part(stop: list[str], text: str) -> None:
    deltas, results = translated(["Hello world"], stop=stop)

    assert results[0].text == text
    assert "".join(delta.text for delta in deltas) == text
    assert results[0].finish == ("stop" if text == "Hello world" else "stop_string")


def test_a_cut_sentence_is_named_in_the_warnings() -> None:
    _, (result,) = translated(["Hello there. Bye."], max_new_tokens=5)

    assert result.text == "Hello Bye."[:5] + " " + "Bye."
    assert result.finish == "length"
    assert result.warnings == ("segment 0 was cut at 5 tokens; send a larger max_new_tokens",)


def test_a_failure_of_one_sentence_fails_its_request() -> None:
    sick = EchoRunner(sick=frozenset({LETTERS.index("x")}))
    with pytest.raises(GenerationFailed):
        translated(["Fine.", "exit"], sick)


def test_usage_counts_what_was_read_and_generated() -> None:
    _, (result,) = translated(["abc. de."])

    assert (result.usage.source_tokens, result.usage.target_tokens) == (9, 7)
    assert len(result.scores) == 7
    assert result.timings.queue_s is not None


@pytest.mark.parametrize(
    ("texts", "source", "target", "error"),
    [
        (["a"] * 10, "en", "de", TooLarge),
        (["a" * 501], "en", "de", TooLarge),
        (["a"], "fr", "de", UnsupportedLanguage),
        (["a"], "en", "fr", UnsupportedLanguage),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_submitted(
    texts: list[str], source: str, target: str, error: type[Exception]
) -> None:
    async def run() -> None:
        translator = build(EchoRunner())
        with pytest.raises(error):
            await translator.translate(
                texts, source, target, DecodingFields(), Wishes(), timeout_s=30
            )
        assert translator.engine.held == 0

    asyncio.run(run())


def test_a_sentence_too_long_for_the_model_is_split_where_it_reads_best_and_says_so() -> None:
    text = "I am here, " * 12 + "and so are you. Good!"
    deltas, (result,) = translated([text])

    assert result.text == text
    assert result.warnings == (
        "segment 0 is longer than the model's 60 tokens: its 4 parts were translated one by one",
    )
    assert "".join(delta.text for delta in deltas) == text


@pytest.mark.parametrize("text", ["字字。字。", "字" * 100])
def test_sentences_and_clauses_of_a_script_without_spaces_are_apart_in_one_with_them(
    text: str,
) -> None:
    async def run() -> str:
        translator = build(EchoRunner(), card(targets={"zh": ("de",)}))
        translator.engine.start()
        try:
            fields, wishes = DecodingFields(), Wishes()
            reading = await translator.translate([text], "zh", "de", fields, wishes, timeout_s=30)
            async with reading:
                return (await reading.collect())[0].text
        finally:
            await asyncio.to_thread(translator.engine.stop)

    found = asyncio.run(run())
    assert (found.replace(" ", ""), found.count(" ")) == (text, 1)


def test_a_consumer_that_is_behind_gets_its_tokens_in_one_delta() -> None:
    async def run() -> list[Delta]:
        translator = build(EchoRunner())
        translator.engine.start()
        try:
            reading = await translator.translate(
                ["Hello world"], "en", "de", DecodingFields(), Wishes(streams=True), timeout_s=30
            )
            async with reading:
                while translator.engine.held:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                return [delta async for delta in reading.deltas()]
        finally:
            await asyncio.to_thread(translator.engine.stop)

    (delta,) = asyncio.run(run())
    assert (delta.text, len(delta.tokens)) == ("Hello world", 11)


def test_a_document_enters_the_engine_in_windows() -> None:
    runner = EchoRunner()
    most = 0

    async def run() -> str:
        nonlocal most
        translator = build(runner)
        translator.engine.start()
        submit = translator.engine.submit

        def counted(requests: Sequence[Request], *more: Any) -> list[int]:
            nonlocal most
            most = max(most, translator.engine.held + len(requests))
            return submit(requests, *more)

        translator.engine.submit = counted  # type: ignore[method-assign, assignment]
        try:
            translator._max_characters = 10_000
            reading = await translator.translate(
                ["ab\n" * 2000], "en", "de", DecodingFields(), Wishes(), timeout_s=60
            )
            async with reading:
                return (await reading.collect())[0].text
        finally:
            await asyncio.to_thread(translator.engine.stop)

    assert asyncio.run(run()) == "ab\n" * 2000
    assert most <= WINDOW


def test_leaving_early_cancels_what_is_unfinished() -> None:
    runner = EchoRunner()

    async def run() -> None:
        translator = build(runner)
        translator.engine.start()
        try:
            runner.may_step.clear()
            reading = await translator.translate(
                ["Hello world"], "en", "de", DecodingFields(), Wishes(), timeout_s=30
            )
            async with reading:
                assert translator.engine.held == 1
            runner.may_step.set()
        finally:
            await asyncio.to_thread(translator.engine.stop)
        assert repr(translator).startswith("<Translator echo, 0 read, <Engine closed, 0 held")

    asyncio.run(run())
    assert not runner.rows


def test_an_update_that_cannot_be_read_fails_its_own_request_and_no_other() -> None:
    class Broken(Letters):
        def is_special(self, token: int) -> bool:
            if LETTERS[token] == "x":
                raise RuntimeError("detokenizing failed")
            return super().is_special(token)

    runner = EchoRunner()

    async def run() -> list[str]:
        translator = build(runner)
        translator.tokenizer = Broken()
        translator.engine.start()

        async def one(text: str) -> str:
            reading = await translator.translate(
                [text], "en", "de", DecodingFields(), Wishes(streams=True), timeout_s=30
            )
            async with reading:
                return (await reading.collect())[0].text

        try:
            runner.may_step.clear()
            tasks = [asyncio.ensure_future(one(text)) for text in ("ab", "axb", "abc")]
            while translator.engine.held < 3:
                await asyncio.sleep(0)
            runner.may_step.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            runner.may_step.set()
            await asyncio.to_thread(translator.engine.stop)
        return [
            f"{type(each).__name__}" if isinstance(each, Exception) else f"{each}" for each in found
        ]

    assert asyncio.run(run()) == ["ab", "GenerationFailed", "abc"]
    assert not runner.rows


@pytest.mark.parametrize("defaults", [{}, {"forced_bos_token_id": 5}])
@pytest.mark.parametrize("forced", [None, "b"])
def test_alternatives_branch_after_what_is_forced_and_compute_no_more_than_texts(
    defaults: dict[str, int], forced: str | None
) -> None:
    async def requests() -> list[Request]:
        translator = build(EchoRunner(), card(defaults=defaults))
        submitted: list[Request] = []
        translator.engine.submit = (  # type: ignore[method-assign]
            lambda asked, *_: submitted.extend(asked) or [*range(len(asked))]  # type: ignore[func-returns-value]
        )
        fields = DecodingFields(forced_bos_token=forced, alignments=True)
        reading = await translator.translate(
            ["abc"], "en", "de", fields, Wishes(scores=True, alternatives=2), timeout_s=30
        )
        async with reading:
            return submitted

    plain, branching = asyncio.run(requests())
    first = LETTERS.index("b") if forced else defaults.get("forced_bos_token_id")

    assert (plain.options.forced_bos, plain.options.target_prefix) == (first, ())
    assert branching.options.target_prefix == (() if first is None else (first,))
    assert (plain.options.rows, branching.options.rows) == (1, 3)
    assert (plain.options.alignments, plain.options.wants_scores) == ("average", True)
    assert (branching.options.alignments, branching.options.wants_scores) == (None, False)


def test_a_forced_token_without_an_embedding_is_refused() -> None:
    async def run() -> None:
        translator = build(EchoRunner(), card(vocabulary=LETTERS.index("z")))
        fields = DecodingFields(forced_bos_token="z")
        with pytest.raises(InvalidRequest, match="'z' is not in the model's vocabulary"):
            await translator.generate(["a"], fields, Wishes(), timeout_s=30)

    asyncio.run(run())


def test_a_target_prefix_that_would_read_otherwise_is_refused_with_how_it_would_read() -> None:
    fields = DecodingFields(target_prefix="a {b}")

    with pytest.raises(InvalidRequest, match="it would read 'a b'; send what it can write"):
        Preparation(card(), Lossy(), fields, Wishes(), max_beams=4)
