import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.alignment import Attention, token_ranges, words
from server.text.masking import Masked, mask
from server.text.nesting import pairs
from server.text.projection import Restored, restore
from server.text.segments import Segment, Span, Tag

# -- helpers ---------------------------------------------------------------------------------


def marked(text: str, *, escapes: bool = False) -> Masked:
    """Read `<b>` and the like as tags and `{...}` as spans, and mask the segment."""
    plain, tags, spans = "", list[Tag](), list[Span]()
    for part in re.findall(r"<[^>]*>|\{[^}]*\}|[^<{]+", text):
        if part[0] == "<":
            kind = "close" if part[1] == "/" else "void" if part.endswith("/>") else "open"
            tags.append(Tag(len(plain), part, kind, part.strip("</>")))  # type: ignore[arg-type]
            continue
        if part[0] == "{":
            spans.append(Span(len(plain), len(plain) + len(part), part))
        plain += part
    return mask(Segment(plain, True, tuple(spans), tuple(tags), escapes), writes=lambda text: True)


def translated(
    masked: Masked, target: str, links: Sequence[tuple[int, int]] | None = None
) -> Restored:
    """Restore a target whose words attend to the source's words as `links` says, in order or not.

    Args:
        links: (word of the target, word of the source), both split at spaces.
    """
    tokens, source = re.findall(r"\s*\S+", target), masked.text.split()
    weights = [[0.0] * len(source) for _ in tokens]
    for to, origin in links if links is not None else [(i, i) for i in range(len(source))]:
        weights[to][origin] = 1.0
    return restore(masked, tokens, [f"\u2581{word}" for word in source], weights)


# -- stand-ins -------------------------------------------------------------------------------


def test_spans_come_out_where_their_stand_ins_are() -> None:
    masked = marked("{a} of {b} files")
    assert translated(masked, "CD Dateien, X7 fertig", []).text == "{b} Dateien, {a} fertig"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("Das ist X7s Buch.", "Das ist {a}s Buch."),
        ("Das X7-Buch.", "Das {a}-Buch."),
        ("Das ist x7.", "Das ist {a}."),
        ("(X7)", "({a})"),
    ],
)
def test_a_stand_in_is_found_within_a_word_and_in_other_case(target: str, text: str) -> None:
    assert translated(marked("This is {a}."), target, []) == Restored(text)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("Das ist X7-X7-X77-Buch.", "Das ist {a}-Buch."),  # stuttered behind it
        ("Das ist X777 Buch.", "Das ist {a} Buch."),
        ("Das ist X7 X77 Buch.", "Das ist {a} Buch."),  # a word of nothing else
        ("Das ist X7-USB Buch.", "Das ist {a}-USB Buch."),  # of other letters
        ("Das ist X7-Buch, X.", "Das ist {a}-Buch, X."),  # may be anything
    ],
)
def test_what_a_model_stutters_of_a_stand_in_goes_with_it(target: str, text: str) -> None:
    links = [(i, 2) for i in range(len(target.split()))]
    assert translated(marked("This is {a} book."), target, links).text == text


def test_what_the_source_says_itself_is_no_stutter() -> None:
    assert translated(marked("The {a}-USB X1"), "Das X7-USB X1", []).text == "Das {a}-USB X1"


def test_of_several_occurrences_the_best_attended_stays() -> None:
    result = translated(marked("See {a} now"), "X7 sieht X7 X7", [(2, 1), (0, 0)])
    assert result == Restored("sieht {a}")


def test_a_missing_span_goes_before_the_word_that_attends_to_it() -> None:
    result = translated(marked("See {a} now"), "Jetzt bitte ansehen.", [(0, 2), (2, 1)])
    assert result == Restored("Jetzt bitte {a} ansehen.", misplaced=("{a}",))
    assert translated(marked("See {a}"), "Siehe", []).text == "Siehe {a}"
    assert translated(marked("{a}"), "", []) == Restored("{a}", misplaced=("{a}",))


def test_a_misspelt_stand_in_is_replaced() -> None:
    result = translated(marked("See {a} now"), "Siehe X9 jetzt")
    assert result == Restored("Siehe {a} jetzt", misplaced=("{a}",))


def test_spaces_that_the_model_needed_are_taken_back() -> None:
    assert translated(marked("pre{a}post x"), "vor X7 nach x").text == "vor{a}nach x"


def test_the_targets_words_are_escaped_where_the_segment_says_so() -> None:
    masked = marked("a {x&y}", escapes=True)
    text = restore(masked, ["A&B <i> X7\u00a0c"], [], []).text
    assert text == "A&amp;B &lt;i&gt; {x&y}&#160;c"
    assert translated(marked("a"), "A&B", []).text == "A&B"


# -- tags ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "links", "text"),
    [
        ("I <b>see</b> it", "Ich sehe es", None, "Ich <b>sehe</b> es"),
        (
            "Today <b>I</b> <i>sleep</i>",
            "Heute schlafe ich",
            [(0, 0), (1, 2), (2, 1)],
            "Heute <i>schlafe</i> <b>ich</b>",
        ),
        (
            "the <i>very <b>red</b></i> car",
            "das Auto, rot, sehr",
            [(0, 0), (1, 3), (2, 2), (3, 1)],
            "das Auto, <i><b>rot</b>, sehr</i>",
        ),
        ("<b>Hello</b>, world!", "Hallo, Welt!", None, "<b>Hallo</b>, Welt!"),
        ("Say <b>hi!</b>", "Sag hallo!", None, "Sag <b>hallo!</b>"),
        ('the <i>"Star"</i>', "der „Stern“", None, "der <i>„Stern“</i>"),
        ("see <b>it </b>now", "seht es jetzt", None, "seht <b>es </b>jetzt"),
        ("see<b> it</b> now", "seht es jetzt", None, "seht<b> es</b> jetzt"),
        ("A <i></i>new B", "A neues B", None, "A <i></i>neues B"),
        ("A new<i></i> B", "A neues B", None, "A neues<i></i> B"),
        ("A <br/>new B", "A B neues", [(0, 0), (1, 2), (2, 1)], "A B <br/>neues"),
        ("see</b> it", "es sehen", [(0, 1), (1, 0)], "es sehen</b>"),
        ("we <b>see it", "wir sehen es", None, "wir <b>sehen es"),
        ("we</b> see <b>it", "wir sehen es", None, "wir</b> sehen <b>es"),
        ("<b>{a}</b> is new", "Neu ist X7", [(0, 2), (1, 1)], "Neu ist <b>{a}</b>"),
        ("is <b>{a}</b> new", "Ist neu", [(0, 0), (1, 2)], "Ist neu <b>{a}</b>"),
        ("<b>all</b>", "„alles“!", [(0, 0)], "<b>„alles“!</b>"),
        ("<i>a</b></i> <b>c", "C A", [(0, 1), (1, 0)], "C <i>A</b></i><b>"),
        ("a <b>c</b>", "", [], "<b></b>"),
        ("a <b>c</b> d", "A D", [(0, 0), (1, 2)], "A <b></b>D"),
    ],
)
def test_tags_go_where_their_words_went(
    source: str, target: str, links: list[tuple[int, int]] | None, text: str
) -> None:
    assert translated(marked(source), target, links).text == text


def test_a_word_that_attends_more_to_others_stays_outside() -> None:
    weights = [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.4, 0.6]]
    result = restore(marked("a <b>c</b> d"), ["A", " C", " D"], ["a", "c", "d"], weights)
    assert result.text == "A <b>C</b> D"


def test_a_tag_within_a_word_stays_there_if_the_word_stays() -> None:
    masked = marked("The <b>S</b>tele is here")
    assert translated(masked, "Die Stele ist hier").text == "Die <b>S</b>tele ist hier"
    assert translated(masked, "Der Stein ist hier").text == "Der <b>Stein</b> ist hier"


def test_tokens_without_weights_take_those_beside_them() -> None:
    masked = marked("I <b>sleep well</b>")
    source = ["\u2581I", "\u2581sleep", "\u2581well", "</s>"]
    weights: list[list[float]] = [[1, 0, 0, 0], [math.nan, 1, 0, 0], [], [math.inf, 0, 0, 1]]
    result = restore(masked, ["Ich", " schl", "afe", " gut", ""], source, weights)
    assert result.text == "Ich <b>schlafe gut</b>"


# -- tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "text", "parts"),
    [
        (["\u2581Hel", "lo", "\u2581world", "</s>"], "Hello  world", ["Hel", "lo", "world", ""]),
        (["eng_Latn", "\u2581Hi", "</s>"], "Hi", ["", "Hi", ""]),
        (["__de__", "\u2581de", "\u2581de"], "de de", ["", "de", "de"]),
        (["\u2581say", ":", "\u2581Hi", "\u2581say"], "Hi say", ["", "", "Hi", "say"]),
        (["\u2581a", "<0xE2>", "<0x82>", "<0xAC>", "b"], "a€b", ["a", "€", "€", "€", "b"]),
        (["\u2581...", "\u2581fi"], "… ﬁ", ["…", "ﬁ"]),
        (["\u2581a", "<unk>", "\u2581b"], "a 漢字 b", ["a", "漢字", "b"]),
        (["H", "\u0120ello"], "H ello", ["H", "ello"]),
        (["nothing", "fits"], "Hi", ["", ""]),
        ([], "Hi", []),
    ],
)
def test_tokens_stand_for_characters(tokens: list[str], text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in token_ranges(tokens, text)] == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It's 3.5 km, e.g.", ["It's", "3.5", "km", ",", "e.g", "."]),
        ("„Ja“ – so", ["„", "Ja", "“", "–", "so"]),
        ("漢字 カa漢b", ["漢", "字", "カ", "a", "漢", "b"]),
        ("e\u0301te\u0301 नमस्ते", ["e\u0301te\u0301", "नमस्ते"]),
        ("", []),
    ],
)
def test_words_and_signs_are_apart(text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in words(text)] == parts


# -- whatever the model does -----------------------------------------------------------------

LETTERS = st.text(alphabet="aB7X .,-'\"&<\u00a0é\u0301漢ß\u0130😀\n", max_size=10)
FLOATS = st.sampled_from([0.0, 0.1, 0.5, 1.0, -1.0, math.nan, math.inf])


@st.composite
def segments(draw: Callable[..., object]) -> Segment:
    text = draw(LETTERS)
    assert isinstance(text, str)
    places = st.lists(st.integers(0, len(text)), max_size=8).map(sorted)
    spans: list[Span] = []
    cuts = draw(places)
    assert isinstance(cuts, list)
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        if start < end:
            spans.append(Span(start, end, f"§{len(spans)}§", is_term=draw(st.booleans()) is True))
    tags = []
    at = draw(places)
    assert isinstance(at, list)
    for number, place in enumerate(at):
        kind = draw(st.sampled_from(["open", "close", "void"]))
        name = draw(st.sampled_from(["b", "i"]))
        tags.append(Tag(place, f"¶{number}¶", kind, name))  # type: ignore[arg-type]
    return Segment(text, True, tuple(spans), tuple(tags), escapes=draw(st.booleans()) is True)


TARGETS = st.lists(LETTERS | st.sampled_from(["X7", " X7", " CD", " Wort", "XBX "]), max_size=8)
WEIGHTS = st.lists(st.lists(FLOATS, max_size=8), max_size=9)


def elements(raws: Sequence[str], tags: Sequence[Tag]) -> set[tuple[str, str]]:
    """Return which tags belong together if they are in this order."""
    by_raw = {tag.raw: tag for tag in tags}
    found = pairs([(by_raw[raw].kind, by_raw[raw].name) for raw in raws])
    return {(raws[start], raws[end]) for start, end in found.items()}


@settings(derandomize=True, deadline=None, max_examples=400)
@given(segments(), TARGETS, st.lists(LETTERS, max_size=8), WEIGHTS)
def test_whatever_the_model_does_tags_and_spans_come_out_once_and_nested(
    segment: Segment, target: list[str], source: list[str], weights: list[list[float]]
) -> None:
    text = restore(mask(segment, writes=lambda text: True), target, source, weights).text

    found = re.findall(r"¶\d+¶", text)
    assert sorted(found) == sorted(tag.raw for tag in segment.tags)
    sent = [tag.raw for tag in segment.tags]
    assert elements(found, segment.tags) == elements(sent, segment.tags)
    assert sorted(re.findall(r"§\d+§", text)) == [span.text for span in segment.spans]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(segments(), st.lists(LETTERS.filter(lambda t: "X7" not in t), max_size=8), WEIGHTS)
def test_without_spans_the_words_are_the_targets(
    segment: Segment, target: list[str], weights: list[list[float]]
) -> None:
    bare = Segment(segment.text, True, (), segment.tags)
    result = restore(mask(bare, writes=lambda text: True), target, list(bare.text), weights)
    assert re.sub(r"¶\d+¶", "", result.text) == "".join(target)
    assert not result.misplaced


class Looked(list[tuple[int, int]]):
    """Words that count how often one is looked at."""

    times = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for word in super().__iter__():
            self.times += 1
            yield word

    def __getitem__(self, place: Any) -> Any:
        self.times += 1
        return super().__getitem__(place)


def test_a_long_source_is_not_searched_whole_for_each_of_its_tokens() -> None:
    found = Looked((2 * i, 2 * i + 1) for i in range(1000))
    Attention(["x"], list(found), found, [])
    assert found.times < 2 * 1000 * 20


def test_a_token_is_shared_by_all_the_words_that_it_stands_for() -> None:
    found = [(0, 2), (2, 3), (5, 9)]
    tokens = [(0, 1), (1, 6), (3, 5), (4, 8), (9, 9)]
    attention = Attention(["a", "b", "c", "d"], tokens, found, [[0, 1], [1], [0, 0, 0, 1], [1, 1]])
    rows = [attention.row(i, i + 1) for i in range(4)]
    assert rows == [
        pytest.approx([1 / 3, 1 / 3, 1 / 3]),
        [1, 0, 0],
        [0, 0, 1],
        pytest.approx([1.2 / 1.6, 0.2 / 1.6, 0.2 / 1.6]),
    ]
