from collections.abc import Callable

import pytest

from server.text.masking import Masked, StandIn, mask
from server.text.segments import Segment, Span, Tag


def any_text(text: str) -> bool:
    return True


def masked(text: str, *spans: Span, tags: tuple[Tag, ...] = ()) -> Masked:
    return mask(Segment(text, is_translatable=True, spans=spans, tags=tags), any_text)


def surrogates(result: Masked) -> tuple[str, ...]:
    return tuple(each.surrogate for each in result.stand_ins)


def test_each_span_has_its_own_stand_in() -> None:
    result = masked("Send %s to {name}.", Span(5, 7, "%s"), Span(11, 17, "{name}"))

    assert result.text == "Send X7 to CD."
    assert result.stand_ins == (StandIn(5, 7, "X7", "%s"), StandIn(11, 13, "CD", "{name}"))
    assert surrogates(result) == ("X7", "CD")


def test_a_glossarys_term_has_a_stand_in_too() -> None:
    result = masked("The house.", Span(4, 9, "Gebäude", is_term=True))
    assert (result.text, result.stand_ins[0].text) == ("The X7.", "Gebäude")


def test_a_segment_without_spans_is_its_text() -> None:
    tag = Tag(3, "<br>", "void", "br")
    assert masked("One two", tags=(tag,)) == Masked("One two", (), (tag,), escapes=False)


@pytest.mark.parametrize(
    ("writes", "surrogate"),
    [
        (any_text, "CD"),  # X7 is in the text
        (lambda text: "X" in text, "XBX"),
        (lambda text: text == "X12", "X12"),
        (lambda text: False, "CD"),  # it will be put in afterwards
    ],
)
def test_a_stand_in_can_be_written_and_is_not_in_the_text(
    writes: Callable[[str], bool], surrogate: str
) -> None:
    segment = Segment("Put %s in x7.", is_translatable=True, spans=(Span(4, 6, "%s"),))
    assert surrogates(mask(segment, writes)) == (surrogate,)


def test_a_start_tag_alone_within_a_span_stands_behind_it() -> None:
    result = masked("a.org x", Span(0, 5, "a.org"), tags=(Tag(2, "<i>", "open", "i"),))
    assert (result.stand_ins[0].text, result.tags[0].at) == ("a.org", 2)


def test_any_number_of_spans_have_different_stand_ins() -> None:
    text = "%s " * 300
    spans = [Span(at, at + 2, "%s") for at in range(0, len(text), 3)]
    assert len(set(surrogates(masked(text, *spans)))) == 300


def test_spans_that_touch_share_a_stand_in() -> None:
    result = masked("See %s%d.", Span(4, 6, "%s"), Span(6, 8, "%d"))
    assert (result.text, [each.text for each in result.stand_ins]) == ("See X7.", ["%s%d"])


def test_letters_beside_a_span_are_parted_from_its_stand_in() -> None:
    result = masked("a%sb %d!", Span(1, 3, "%s"), Span(5, 7, "%d"))
    assert result.text == "a X7 b CD!"
    assert result.stand_ins[0] == StandIn(2, 4, "X7", "%s", True, True)
    assert not result.stand_ins[1].is_joined_after


def test_tags_move_with_the_text() -> None:
    tags = (
        Tag(0, "<i>", "open", "i"),
        Tag(1, "</i>", "close", "i"),
        Tag(1, "<b>", "open", "b"),
        Tag(6, "</b>", "close", "b"),
        Tag(8, "<br>", "void", "br"),
    )
    result = masked("a{foo}b c", Span(1, 6, "{foo}"), tags=tags)
    assert result.text == "a X7 b c"
    assert [(tag.raw, result.text[tag.at :]) for tag in result.tags] == [
        ("<i>", "a X7 b c"),
        ("</i>", " X7 b c"),
        ("<b>", "X7 b c"),
        ("</b>", " b c"),
        ("<br>", "c"),
    ]


@pytest.mark.parametrize(
    ("text", "close_at"), [("a.org", 7), ("term", 3)], ids=["half an element", "another text"]
)
def test_tags_that_a_span_cannot_hold_stand_behind_it(text: str, close_at: int) -> None:
    tags = (Tag(2, "<i>", "open", "i"), Tag(close_at, "</i>", "close", "i"))
    result = masked("a.org x", Span(0, 5, text), tags=tags)
    assert result.stand_ins[0].text == text
    assert [tag.at for tag in result.tags] == [2, max(2, close_at - 3)]
