"""What a model leaves out is decoded once more, forced; whatever happens, it is in the answer."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from model import Arrival
from server import reader
from server.decoding_fields import DecodingFields
from server.errors import GenerationFailed
from server.preparation import Wishes
from server.reading import Delta
from server.results import Result
from server.text.masking import Masked
from server.text.projection import restore
from server.text.rules import PLAIN, TextRules
from tests.server.fakes import EchoRunner
from tests.server.test_translator import LETTERS, build

HTML = TextRules(markup="html")


class Forgetful(EchoRunner):
    """Repeats all but capital letters, which are in the target only where they are forced."""

    forgets = frozenset(map(LETTERS.index, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    searches = 0

    def admit(self, arrivals: Sequence[Arrival]) -> None:
        self.searches += sum(bool(arrival.options.phrases) for arrival in arrivals)
        super().admit([self._forgotten(arrival) for arrival in arrivals])

    def _forgotten(self, arrival: Arrival) -> Arrival:
        if arrival.options.phrases:
            return arrival
        left = tuple(token for token in arrival.source if token not in self.forgets)
        return replace(arrival, source=left)


def translated(
    text: str,
    runner: EchoRunner,
    *,
    rules: TextRules = PLAIN,
    max_beams: int = 8,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> tuple[list[Delta], Result]:
    async def run() -> tuple[list[Delta], Result]:
        translator = build(runner, max_beams=max_beams)
        translator.engine.start()
        try:
            reading = await translator.translate(
                [text],
                "en",
                "de",
                DecodingFields.model_validate(fields),
                Wishes(streams=True),
                rules=rules,
                timeout_s=30,
            )
            async with reading:
                deltas = [delta async for delta in reading.deltas()]
                return deltas, reading.results()[0]
        finally:
            await asyncio.to_thread(translator.engine.stop)

    return asyncio.run(run())


LEFT_OUT = (
    "segment 0: the model left out '{name}'; it was put where attention points, so check its place"
)


def test_what_is_left_out_is_forced_and_streams_with_its_segment() -> None:
    runner = Forgetful()
    deltas, result = translated("so {name} is here. and you?", runner)

    assert (result.text, result.warnings, runner.searches) == ("so {name} is here. and you?", (), 1)
    assert [delta.text for delta in deltas][:2] == ["so {name} is here.", " "]
    assert "".join(delta.text for delta in deltas) == result.text


def test_what_the_model_copies_is_not_forced() -> None:
    runner = Forgetful()
    runner.forgets = frozenset()
    _, result = translated("so {name} is here.", runner)
    assert (result.text, result.warnings, runner.searches) == ("so {name} is here.", (), 0)


@pytest.mark.parametrize(
    ("max_beams", "fields"), [(1, {}), (8, {"temperature": 1.0}), (8, {"max_new_tokens": 2})]
)
def test_where_nothing_can_be_forced_it_is_in_the_text_and_a_warning_says_so(
    max_beams: int, fields: dict[str, object]
) -> None:
    _, result = translated("is {name} here?", Forgetful(), max_beams=max_beams, fields=fields)
    assert result.text.count("{name}") == 1
    assert LEFT_OUT in result.warnings


def test_a_search_that_fails_costs_a_warning_and_not_the_text() -> None:
    capitals = Forgetful.forgets
    runner = Forgetful(lambda call, number, tokens: call == "launch" and bool(capitals & {*tokens}))
    _, result = translated("is {name} here?", runner)
    assert result.text.count("{name}") == 1
    assert LEFT_OUT in result.warnings


def test_what_the_prefix_says_already_is_not_said_again() -> None:
    runner = Forgetful()
    fields = {"target_prefix": "so CD"}  # as the fake's vocabulary can write it
    rules = TextRules(protected=("CD",))
    _, result = translated("so CD is here.", runner, rules=rules, fields=fields)
    assert (result.text.count("CD"), result.text.count("X"), result.warnings) == (1, 0, ())


def test_what_only_another_text_leaves_out_is_named_too() -> None:
    """The fake's second hypothesis reads backwards, and so does the stand-in in it."""
    fields = {"num_beams": 2, "num_return_sequences": 2}
    _, result = translated("so {name} is here.", EchoRunner(), fields=fields)
    first, second = result.hypotheses
    assert (first.text, first.misplaced) == ("so {name} is here.", ())
    assert (second.text.count("{name}"), second.misplaced) == (1, ("{name}",))
    (warning,) = result.warnings
    assert warning.startswith("segment 0: the model left out '{name}' in another text for it;")


def test_tags_and_references_are_put_into_what_comes_out() -> None:
    text = "<p>so <b>are</b> you.</p>\n<p>me, t&#111;o?</p>"
    deltas, result = translated(text, EchoRunner(), rules=HTML)
    assert result.text.count("<b>") == result.text.count("</b>") == 1
    assert result.text.startswith("<p>")
    assert result.text.endswith("</p>\n<p>me, too?</p>")
    assert "".join(delta.text for delta in deltas) == result.text


def test_the_usage_and_finish_are_those_of_the_text_that_was_taken() -> None:
    _, result = translated("so {name} is here.", Forgetful())
    assert result.finish == "stop"
    assert result.usage.target_tokens == len("so CD is here.")


@pytest.mark.parametrize("limit", [0, 10**9])
@pytest.mark.parametrize("fields", [{}, {"stop": ["her"]}, {"num_beams": 2}])
def test_what_is_long_is_put_together_on_a_thread_and_is_the_same(
    limit: int, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[bool]()

    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        return restore(*given)

    expected = translated("so {name} is here. and you?", Forgetful(), fields=fields)[1]
    monkeypatch.setattr(reader, "_LONG", limit)
    monkeypatch.setattr(reader, "restore", noted)
    deltas, result = translated("so {name} is here. and you?", Forgetful(), fields=fields)
    assert (result.text, result.warnings) == (expected.text, expected.warnings)
    assert "".join(delta.text for delta in deltas) == result.text
    assert threads == {limit > 0}


@pytest.mark.parametrize("limit", [0, 10**9])
def test_what_cannot_be_put_together_fails_rather_than_show_what_stands_in(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(reader, "_LONG", limit)
    monkeypatch.setattr(reader, "restore", broken)
    with pytest.raises(GenerationFailed):
        translated("so {name} is here.", EchoRunner())


def test_a_search_that_cannot_be_put_together_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def broken(masked: Masked, target: Sequence[str], *more: Any) -> Any:
        if "CD" in "".join(target):
            raise RuntimeError("a fault")
        return restore(masked, target, *more)

    monkeypatch.setattr(reader, "restore", broken)
    _, result = translated("is {name} here?", Forgetful())
    assert result.text.count("{name}") == 1
    assert result.warnings == (LEFT_OUT,)
