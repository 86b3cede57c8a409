"""What one generation reads as while its updates arrive."""

from typing import Any

import pytest

from model import DecodingOptions, Hypothesis
from server.generation import Finish
from server.messages import Request, Update
from server.reader import Reader
from server.text.masking import Masked, StandIn
from tests.server.test_translator import Letters

LETTERS = Letters()


def ids(text: str) -> tuple[int, ...]:
    return LETTERS.encode_target(text)


def reader(*, previews: bool = False, **options: Any) -> Reader:
    chosen = DecodingOptions(max_new_tokens=20, **options)
    return Reader(Request((3, 0), chosen, previews=previews))


def told(
    subject: Reader, text: str, preview: str = "", finish: Finish | None = None, **more: Any
) -> tuple[str, str | None]:
    """Let `text` become certain; returns what is to be shown."""
    tokens = ids(text)
    update = Update(
        1,
        tokens,
        (0.0,) * len(tokens),
        more.pop("alignments", ()),
        ids(preview),
        finish=finish,
        **more,
    )
    subject.receive(update, LETTERS)
    shown = subject.preview
    return subject.take()[0], shown


def test_a_preview_follows_what_was_shown_and_is_taken_back_at_the_end() -> None:
    subject = reader(previews=True, num_beams=2)

    assert told(subject, "", "Ha") == ("", "Ha")
    assert told(subject, "H", "ello") == ("H", "ello")
    assert told(subject, "ello") == ("ello", "")
    assert told(subject, " you", "!") == (" you", "!")
    assert told(subject, ".", "ignored", Finish.STOP) == (".", "")


def test_nothing_is_taken_back_that_was_not_shown() -> None:
    subject = reader(previews=True, num_beams=2)
    tokens = ids("Hi")
    subject.receive(Update(1, (), (), (), tokens), LETTERS)
    subject.receive(Update(1, tokens, (0.0, 0.0), finish=Finish.STOP), LETTERS)

    assert (subject.preview, subject.take()[0]) == (None, "Hi")


def test_a_preview_goes_as_far_as_a_stop_string_and_holds_what_is_held_back() -> None:
    subject = reader(previews=True, num_beams=2, stop=("ll", "x"))

    assert told(subject, "He", "llo") == ("He", None)
    assert told(subject, "l", "a, xyz") == ("", "la, ")
    assert told(subject, "a") == ("la", "")


def test_a_preview_is_read_only_where_it_was_asked_for() -> None:
    assert told(reader(num_beams=2), "H", "ello") == ("H", None)


def test_a_stop_string_is_not_looked_for_in_the_prefix() -> None:
    subject = reader(target_prefix=ids("one two"), stop=("one", "two", "o t"))

    assert told(subject, "") == ("one two", None)
    assert told(subject, " and two") == (" and ", None)
    assert (subject.text, subject.finish) == ("one two and ", "stop_string")


def test_alignments_are_read_also_where_a_stop_string_ended_the_text() -> None:
    subject = reader(stop=("b",), alignments="average")
    subject.reports_alignments = True
    subject.receive(Update(1, ids("ab"), (0.0, 0.0), ((1.0, 0.0), (0.5, 0.5))), LETTERS)

    assert subject.finish == "stop_string"
    assert subject.aligned is not None
    assert subject.aligned.target == ("a", "b")
    assert subject.aligned.weights == ((1.0, 0.0), (0.5, 0.5))


def test_what_was_forced_is_taken_only_where_it_is_better() -> None:
    first, forced = reader(), reader(num_beams=2)
    first.text, first.finish, first.misplaced = "one", "stop", ("x", "y")
    forced.text, forced.finish, forced.misplaced = "two", "stop", ("x", "y")
    first.adopt(forced)
    assert (first.text, first.misplaced) == ("one", ("x", "y"))

    better = reader(num_beams=2)
    better.text, better.finish, better.misplaced = "three", "stop", ("x",)
    first.adopt(better)
    assert first.text == "three"
    assert len(first.misplaced) == 1


def test_hypotheses_are_read_only_where_several_were_asked_for() -> None:
    found = (Hypothesis(ids("ab"), -1.0, "stop", (0.0, 0.0), ()),)
    single, several = reader(num_beams=2), reader(num_beams=2, num_hypotheses=2)
    for each in (single, several):
        told(each, "ab", finish=Finish.STOP, hypotheses=found)

    assert single.variants == ()
    assert [variant.text for variant in several.variants] == ["ab"]


@pytest.mark.parametrize("reports", [False, True])
def test_attention_that_only_placed_something_is_not_kept(reports: bool) -> None:
    """A text's sentences are held until the last one has ended."""
    subject = reader(alignments="average")
    subject.masked = Masked("CD", (StandIn(0, 2, "CD", "{x}"),), (), escapes=False)
    subject.reports_alignments = reports
    assert told(subject, "a CD", finish=Finish.STOP, alignments=((0.5, 0.5),) * 4)[0] == "a {x}"
    assert [bool(token.alignment) for token in subject.tokens] == [reports] * 4
