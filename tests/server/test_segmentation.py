from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text import references
from server.text.cutting import cut
from server.text.protection import protect
from server.text.rules import PLAIN, TextRules
from server.text.segmentation import clauses, lines, sentences
from server.text.segments import Segment, Span, Tag

FLOW, WHOLE = TextRules(sentences="flow"), TextRules(sentences="whole")
HOSTILE = (
    *"aÄ.!? \n\r\t\u2028\u00a0\x0b\x0c\x1c\x85\u200b\ufeff\0„“\"'()1,;:-🙂漢。、\u0301\u200d👍🏽🇩🇪",
    *"%s{}<>&/@#`_",
    *("\r\n", "\n\n", "1. ", "- ", "Word ", "word", "%1$s", "{name}", "http://a.b/c", "a@b.de"),
)
HARSH = settings(derandomize=True, deadline=None, max_examples=150)
texts = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from(HOSTILE), max_size=40).map("".join)
)


def shown(piece: Segment) -> str:
    """Return a piece as it was sent: its spans' texts and its tags in their places."""
    if not piece.is_translatable:
        return piece.text
    parts, at, tags = list[str](), 0, list(piece.tags)
    for stop in sorted({len(piece.text), *(s.start for s in piece.spans), *(t.at for t in tags)}):
        if stop < at:
            continue
        parts.append(
            references.written(piece.text[at:stop]) if piece.escapes else piece.text[at:stop]
        )
        at = stop
        parts += [tag.raw for tag in tags if tag.at == stop]
        for span in piece.spans:
            if span.start == stop:
                parts.append(span.text)
                at = span.end

    return "".join(parts)


def translatable(pieces: list[Segment]) -> list[str]:
    return [piece.text for piece in pieces if piece.is_translatable]


def verify(piece: Segment) -> None:
    """Assert what every translatable piece promises."""
    assert piece.text == piece.text.strip()
    at = 0
    for span in piece.spans:
        assert at <= span.start < span.end <= len(piece.text)
        at = span.end
    ats = [tag.at for tag in piece.tags]
    assert ats == sorted(ats)
    assert all(0 <= at <= len(piece.text) for at in ats)


@HARSH
@given(texts, st.sampled_from(["en", "de", "zh-Hant", "xx"]))
def test_pieces_put_together_are_the_text(text: str, language: str) -> None:
    pieces = cut(text, language, PLAIN)
    assert "".join(map(shown, pieces)) == text
    for piece in pieces:
        if piece.is_translatable:
            verify(piece)
            assert any(map(str.isalpha, piece.text))


@HARSH
@given(texts, st.sampled_from([FLOW, WHOLE]))
def test_text_that_flows_keeps_every_line_end_and_gains_only_spaces_before_them(
    text: str, rules: TextRules
) -> None:
    pieces = cut(text, "en", rules)
    assert without_spaces("".join(map(shown, pieces))) == without_spaces(text)
    for piece in pieces:
        if piece.is_translatable:
            verify(piece)
            assert piece.text.splitlines() == [piece.text]


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("- [ ] Do it", "Do it"),
        ("\t * Do it", "Do it"),
        ("• Do it", "Do it"),
        ("## Heading", "Heading"),
        ("> > Quote", "Quote"),
        ("— Bonjour !", "Bonjour !"),
        ("—Hola", "Hola"),
        ("1) One", "One"),
        ("(a) One", "One"),
        ("iv) Four", "Four"),
        ("1.2.3 Part", "Part"),
        ("1.2. Part", "Part"),
        ("1. Open the door", "Open the door"),
        ("1. 打开门", "打开门"),
        ("- 1. Open the door", "Open the door"),
        ("I. e. this one", "I. e. this one"),
        ("A. Smith came", "A. Smith came"),
        ("1. FC Köln", "1. FC Köln"),
        ("3. Oktober ist ein Feiertag", "3. Oktober ist ein Feiertag"),
        ("3. kapitola je dlouhá", "3. kapitola je dlouhá"),
        ("1.2.3 is out", "1.2.3 is out"),
        ("3.5 Million people", "3.5 Million people"),
        ("-x is a flag", "-x is a flag"),
        ("#tag it", "#tag it"),
        (">50 people", ">50 people"),
        ("*stars* here", "*stars* here"),
    ],
)
def test_a_lines_marker_is_not_translated(line: str, words: str) -> None:
    assert translatable(lines(line, PLAIN)) == [words]
    assert "".join(piece.text for piece in lines(line, PLAIN)) == line


def test_a_short_line_with_a_number_is_an_item_where_its_neighbour_is_in_the_text() -> None:
    assert translatable(lines("1. Milk\n2. Eggs", PLAIN)) == ["Milk", "Eggs"]
    assert translatable(lines("1. Milk\n3. Eggs", PLAIN)) == ["1. Milk", "3. Eggs"]


def test_lines_end_wherever_unicode_ends_them() -> None:
    text = "a\r\nb\rc\u2028d\x0be\x0cf\x85g\u2029h"
    assert translatable(lines(text, PLAIN)) == list("abcdefgh")


def test_a_paragraph_ends_at_a_blank_line_and_at_a_list() -> None:
    text = "One\ntwo.\n \nThree\r\nfour\r\n\r\n- Five\n  six\n- Seven\n2. Eight nine ten"
    assert translatable(cut(text, "en", FLOW)) == [
        "One two.",
        "Three four",
        "Five six",
        "Seven",
        "Eight nine ten",
    ]
    assert translatable(cut("One\n\ntwo\r\nthree", "en", FLOW)) == ["One", "two three"]
    assert translatable(cut("Er war\n– so hieß es\n– da.", "de", FLOW)) == [
        "Er war – so hieß es – da."
    ]
    assert translatable(cut("– Ja?\n– Nein.", "de", FLOW)) == ["Ja?", "Nein."]
    assert translatable(cut("Es war am\n3. Oktober 1990 so.", "de", FLOW)) == [
        "Es war am 3. Oktober 1990 so."
    ]


def test_a_line_end_within_a_sentence_becomes_a_tag() -> None:
    assert cut("One two\n three. Four", "en", FLOW)[0] == Segment(
        "One two three.", is_translatable=True, tags=(Tag(8, "\n ", "void", "line end"),)
    )
    assert cut("你好\n世界", "zh", FLOW)[0] == Segment(
        "你好世界", is_translatable=True, tags=(Tag(2, "\n", "void", "line end"),)
    )


def test_a_line_end_within_html_is_white_space() -> None:
    block = Segment("One two\nthree.", is_translatable=True, escapes=True)
    for rules in (TextRules(markup="html"), TextRules(markup="html", sentences="flow")):
        assert sentences(block, "en", rules) == [replace(block, text="One two three.")]


def test_a_whole_text_is_one_segment() -> None:
    assert translatable(cut("  One. Two.\n\nThree. ", "en", WHOLE)) == ["One. Two. Three."]


def test_a_number_with_a_full_stop_ends_no_sentence_where_it_is_an_ordinal() -> None:
    text = "Der 2. Weltkrieg endete 1945. Das war am 8. Mai."
    assert translatable(cut(text, "de", PLAIN)) == [
        "Der 2. Weltkrieg endete 1945.",
        "Das war am 8. Mai.",
    ]
    assert translatable(cut("It was 3. Open it.", "en", PLAIN)) == ["It was 3.", "Open it."]
    assert translatable(cut("3. Oktober. Heute.", "de", PLAIN)) == ["3. Oktober.", "Heute."]


def test_the_dots_of_a_span_end_no_sentence() -> None:
    text = "See a. B. C! Now."
    span = Span(4, 12, "a. B. C!")
    assert sentences(Segment(text, is_translatable=True, spans=(span,)), "en", PLAIN) == [
        Segment(text, is_translatable=True, spans=(span,))
    ]


def test_spans_and_tags_follow_their_sentences() -> None:
    block = Segment(
        "One X two. Three Y four.",
        is_translatable=True,
        spans=(Span(4, 5, "x"), Span(17, 18, "y")),
        tags=(Tag(4, "<b>", "open", "b"), Tag(18, "</b>", "close", "b")),
        escapes=True,
    )
    first, between, second = sentences(block, "en", PLAIN)
    assert (first.text, first.spans, first.tags) == (
        "One X two.",
        (Span(4, 5, "x"),),
        (Tag(4, "<b>", "open", "b"),),
    )
    assert between == Segment(" ", is_translatable=False)
    assert (second.spans, second.tags) == (
        (Span(6, 7, "y"),),
        (Tag(7, "</b>", "close", "b"),),
    )


def test_tags_at_a_sentences_edges_leave_it_unless_their_other_half_is_within() -> None:
    block = Segment(
        "One two. Three four.",
        is_translatable=True,
        tags=(
            Tag(0, "<i>", "open", "i"),
            Tag(0, "<b>", "open", "b"),
            Tag(3, "</b>", "close", "b"),
            Tag(8, "</i>", "close", "i"),
            Tag(8, "<br>", "void", "br"),
            Tag(9, "<u>", "open", "u"),
            Tag(20, "</u>", "close", "u"),
        ),
    )
    assert sentences(block, "en", PLAIN) == [
        Segment("<i>", is_translatable=False),
        Segment(
            "One two.",
            is_translatable=True,
            tags=(Tag(0, "<b>", "open", "b"), Tag(3, "</b>", "close", "b")),
        ),
        Segment("</i><br> <u>", is_translatable=False),
        Segment("Three four.", is_translatable=True),
        Segment("</u>", is_translatable=False),
    ]


def test_what_stays_as_it_is_is_escaped_within_markup() -> None:
    block = Segment("1 < 2 & %s", is_translatable=True, spans=(Span(8, 10, "%s"),), escapes=True)
    assert sentences(block, "en", PLAIN) == [Segment("1 &lt; 2 &amp; %s", is_translatable=False)]


@pytest.mark.parametrize(
    "text", ["", "🙂 👍🏽", "12:30 €5", "https://a.de/b", "%s: {0}", " \t", "a@b.de"]
)
def test_text_without_words_passes_unchanged(text: str) -> None:
    assert [piece.text for piece in cut(text, "en", PLAIN)] == ([text] if text else [])
    assert translatable(cut(text, "en", PLAIN)) == []


# -- clauses -------------------------------------------------------------------------------------


def shorter_than(limit: int) -> Callable[[Segment], bool]:
    return lambda segment: len(segment.text) <= limit


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("short", 10, ["short"]),
        ("one two, three; four, five", 20, ["one two, three;", "four, five"]),
        ("one two three, four five", 20, ["one two three,", "four five"]),
        ("one two three four", 10, ["one two", "three four"]),
        ("a, very long phrase without a comma", 20, ["a, very long phrase", "without a comma"]),
        ("今天天气很好，我们去公园吧", 8, ["今天天气很好，", "我们去公园吧"]),
        ("e\u0301" * 4, 5, ["e\u0301" * 2, "e\u0301" * 2]),
    ],
)
def test_a_long_sentence_is_cut_where_it_reads_best(
    text: str, limit: int, expected: list[str]
) -> None:
    pieces = clauses(Segment(text, is_translatable=True), shorter_than(limit))
    assert translatable(pieces) == expected
    assert "".join(piece.text for piece in pieces) == text


@pytest.mark.parametrize("seen", ["e\u0301\u0323", "👩\u200d🚀", "👍🏽", "🇩🇪", "각", "क\u094d"])
def test_what_is_seen_as_one_character_is_not_cut(seen: str) -> None:
    text = f"abc{seen * 6}"
    pieces = clauses(Segment(text, is_translatable=True), shorter_than(len(seen) + 3))
    assert "".join(piece.text for piece in pieces) == text
    assert all(
        piece.text.removeprefix("abc").replace(seen, "") in ("", "ab", "c", "a", "bc")
        for piece in pieces
    )


@HARSH
@given(texts, st.integers(6, 20))
def test_clauses_put_together_are_the_sentence_and_each_fits(text: str, limit: int) -> None:
    calls = 0

    def fits(segment: Segment) -> bool:
        nonlocal calls
        calls += 1
        return len(segment.text) - sum(span.end - span.start - 1 for span in segment.spans) <= limit

    for piece in cut(text, "en", PLAIN):
        calls = 0
        found = clauses(piece, fits)
        assert "".join(map(shown, found)) == shown(piece)
        assert calls <= 2 * max(1, len(found))
        for each in found:
            if each.is_translatable:
                verify(each)
                assert fits(each)


def test_a_span_is_never_cut_and_needs_no_room_alone() -> None:
    long = Segment(f"see {'x' * 50}!", is_translatable=True, spans=(Span(4, 54, "<x>"),))
    assert clauses(long, shorter_than(10)) == [
        Segment("see", is_translatable=True),
        Segment(" <x>!", is_translatable=False),
    ]


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"^'a' is longer than the model takes, and cannot be cut$"
    ):
        clauses(Segment("a b", is_translatable=True), lambda segment: False)


def test_hostile_text_is_cut_in_few_steps() -> None:
    for text in (
        "🇩🇪" * 5000,
        "\u0301a" * 10_000,
        "a " * 10_000,
        "1. a\n" * 4000,
        "a\n" * 10_000,
        f"a{' ' * 20_000}b\nc",
    ):
        for rules in (PLAIN, FLOW, WHOLE):
            for piece in cut(text, "en", rules):
                clauses(piece, shorter_than(500))


# -- blocks that carry something -----------------------------------------------------------------


@st.composite
def blocks(draw: st.DrawFn) -> Segment:
    """Blocks with any spans and tags; each tag has another name in `raw`."""
    text = draw(st.lists(st.sampled_from([*HOSTILE, "One. ", "two, "]), max_size=15).map("".join))
    places = st.integers(0, len(text))
    bounds = sorted(draw(st.sets(places, max_size=6)))
    spans = tuple(
        Span(start, end, f"[{number}]")
        for number, (start, end) in enumerate(zip(bounds[::2], bounds[1::2], strict=False))
        if text[start:end] == text[start:end].strip()
    )
    ats = sorted(draw(st.lists(places, max_size=6)))
    kinds: st.SearchStrategy[Literal["open", "close", "void"]] = st.sampled_from(
        ["open", "close", "void"]
    )
    tags = tuple(
        Tag(at, f"<{number}>", draw(kinds), draw(st.sampled_from("ab")))
        for number, at in enumerate(ats)
        if not any(span.start < at < span.end for span in spans)
    )
    return Segment(text, True, spans, tags, draw(st.booleans()))


@HARSH
@given(blocks())
def test_a_blocks_pieces_put_together_are_the_block(block: Segment) -> None:
    rules = TextRules(markup="html")
    pieces = sentences(block, "en", rules)
    both = ("".join(map(shown, pieces)), shown(block))
    assert both[0].translate(LINE_ENDS) == both[1].translate(LINE_ENDS)
    for piece in pieces:
        if piece.is_translatable:
            verify(piece)
            for clause in clauses(piece, shorter_than(12)):
                if clause.is_translatable:
                    verify(clause)
        assert not piece.is_translatable or piece.escapes == block.escapes


LINE_ENDS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x1c\x85\u2028", " "))


@HARSH
@given(
    blocks(),
    st.sampled_from(
        [FLOW, WHOLE, TextRules(markup="xml"), TextRules(markup="xml", sentences="flow")]
    ),
)
def test_every_tag_and_span_comes_out_once(block: Segment, rules: TextRules) -> None:
    given = protect(block, rules)
    pieces = [
        clause
        for sentence in sentences(given, "en", rules)
        for clause in clauses(sentence, shorter_than(15))
    ]
    text = "".join(map(shown, pieces))
    for raw in (*(tag.raw for tag in block.tags), *(span.text for span in block.spans)):
        assert text.count(raw) == 1
    assert without_spaces("".join(map(shown, sentences(given, "en", rules)))) == without_spaces(
        shown(given)
    )
