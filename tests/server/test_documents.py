"""Documents: what is translated of them, and that everything else comes out as it was."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.documents import Document, Format, format_of, read
from server.text.html_pieces import pieces

BOUNDED = settings(max_examples=200, deadline=None, derandomize=True)
LINE = st.text("ab \t-–<>&;{}\\/i♪你。ü0.:", max_size=12)
END = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n \n"])
TIMING = st.sampled_from(["00:00:01,000 --> 00:00:02,500", "0:01.5 --> 0:02.0 line:0"])
SOURCE_LINE = st.one_of(LINE, TIMING, st.sampled_from(["7", "WEBVTT", "NOTE a", "<i>a</i>"]))
CONTENT = st.lists(st.tuples(SOURCE_LINE, END), max_size=12).map(
    lambda pairs: "".join(part for pair in pairs for part in pair)
)
TAGS = ("<p>", "</p>", "<div translate=no>", "</div>", "<b>", "</b>", "<br>", "<br/>", "<li>")
ODD = ("<script>", "</script>", "<!-- <p> -->", "<![if !a]>", "</ul>", "a b", "&amp;", "<", "\n")
BLOCKS = st.lists(st.sampled_from([*TAGS, *ODD]), max_size=30).map("".join)


def identical(document: Document) -> str:
    return document.written(document.texts)


SRT = """\ufeff1\r
00:00:01,000 --> 00:00:02,500 X1:40\r
<i>This is what was said\r
in the first cue.</i>\r
\r
2\r
00:00:03,000 --> 00:00:04,000\r
- Is it?\r
- It is.\r
\r
\r
3\r
00:00:05,000 --> 00:00:06,000\r
{\\an8}♪ Tom & Jerry <3 ♪\r
"""


@pytest.mark.parametrize("format", ["text", "srt", "vtt", "html"])
@pytest.mark.parametrize("by_line", [False, True])
@given(content=CONTENT, limit=st.integers(1, 40), bom=st.booleans())
@BOUNDED
def test_identical_texts_give_the_document_back(
    format: Format, by_line: bool, content: str, limit: int, bom: bool
) -> None:
    content = "\ufeff" * bom + content
    document = read(content, format, max_characters=limit, by_line=by_line)
    assert identical(document) == content
    assert all(any(map(str.isalpha, text)) for text in document.texts)


@given(content=BLOCKS, limit=st.integers(1, 60))
@BOUNDED
def test_html_comes_back_whole_and_is_cut_beside_tags(content: str, limit: int) -> None:
    assert identical(read(content, "html", max_characters=limit)) == content
    assert "".join(pieces(content, limit)) == content
    for piece, following in pairwise(pieces(content, limit)):
        assert piece.endswith(">") or following.startswith("<")


@given(content=CONTENT, limit=st.integers(1, 40))
@BOUNDED
def test_no_text_is_longer_than_it_may_be(content: str, limit: int) -> None:
    assert all(len(text) <= limit for text in read(content, "text", max_characters=limit).texts)


def test_a_text_is_cut_where_it_reads_best() -> None:
    content = "One two.\nThree.\n\nFour five six. Seven eight nine ten"
    cut = {limit: read(content, "text", max_characters=limit).texts for limit in (20, 12, 7, 100)}
    assert cut[100] == (content,)
    assert cut[20] == ("One two.\nThree.\n\n", "Four five six. ", "Seven eight nine ten")
    assert cut[12][0] == "One two.\n"
    assert cut[7][:2] == ("One ", "two.\n")
    assert all(len(text) <= limit for limit, texts in cut.items() for text in texts)


def test_lines_are_texts_with_their_numbers() -> None:
    document = read("\ufeffOne.\r\n\r\n  Two.\rThree.\n4\n", "text", by_line=True)
    assert document.texts == ("One.", "  Two.", "Three.")
    assert document.lines == (1, 3, 4)


def test_what_is_said_in_cues_is_translated_and_nothing_else() -> None:
    document = read(SRT, "srt")
    assert document.texts == (
        "<i>This is what was said in the first cue.</i>",
        "Is it?",
        "It is.",
        "Tom &amp; Jerry &lt;3",
    )
    assert document.lines == (3, 8, 9, 14)
    assert document.rules.markup == "html"
    assert document.rules.protected == ("{\\an8}",)
    written = document.written(
        ["<i>Das wurde im ersten Untertitel gesagt.</i>", "Ja?", "Ja.", "T &amp; J &lt;3 {x}"]
    )
    assert written == (
        SRT.replace(
            "This is what was said\r\nin the first cue.",
            "Das wurde im ersten\r\nUntertitel gesagt.",
        )
        .replace("Is it?", "Ja?")
        .replace("It is.", "Ja.")
        .replace("Tom & Jerry <3", "T & J <3 {x}")
    )


def test_subtitles_without_styles_hold_no_markup() -> None:
    document = read("1\n00:00:01,000 --> 00:00:02,000\nA <b c & d\n", "srt")
    assert document.rules.markup is None
    assert document.texts == ("A <b c & d",)


def cue(*lines: str) -> Document:
    return read("1\n00:00:01,000 --> 00:00:02,000\n" + "\n".join(lines) + "\n\n", "srt")


def said(document: Document, target: str) -> list[str]:
    return document.written([target]).split("\n")[2:-2]


def test_a_cue_is_broken_again_in_proportion_at_word_boundaries() -> None:
    assert said(cue("I do not know", "what you mean."), "Ich weiß nicht, was du meinst.") == [
        "Ich weiß nicht,",
        "was du meinst.",
    ]
    assert said(cue("Well,", "I do not think that I can."), "Nun, ich glaube nicht daran.") == [
        "Nun,",
        "ich glaube nicht daran.",
    ]
    assert said(cue("one two", "three four", "five six"), "a b c d e f") == ["a b", "c d", "e f"]
    assert said(cue("one two", "three"), "eins") == ["eins"]
    assert said(cue("one two three.", "four five six"), "eins, zwei. so drei vier fünf") == [
        "eins, zwei.",
        "so drei vier fünf",
    ]
    assert said(cue("one two three", "four five six"), "eins, zwei. so drei vier fünf") == [
        "eins, zwei. so",
        "drei vier fünf",
    ]
    assert said(cue("a", "b", "c d e f g"), "u v w") == ["u", "v", "w"]


def test_a_target_without_spaces_is_broken_between_characters() -> None:
    assert said(cue("I do not know", "what you mean."), "我不知道你是什么意思。") == [
        "我不知道你",
        "是什么意思。",
    ]
    assert cue("我不知道", "你是什么意思。").texts == ("我不知道你是什么意思。",)
    assert cue("저는", "몰라요.").texts == ("저는 몰라요.",)


def test_no_tag_is_broken() -> None:
    lines = said(
        cue("<i>a b", 'c</i> <font color="x y z">d</font>'), 'a <font color="x y z">b</font>'
    )
    assert lines == ["a", '<font color="x y z">b</font>']


def test_somebody_else_speaks_on_a_line_of_their_own() -> None:
    document = cue("- I think that", "it is.", "– No!")
    assert document.texts == ("I think that it is.", "No!")
    assert document.written(["A b.", "Nein!"]).endswith("\n- A\nb.\n– Nein!\n\n")
    assert cue("<i>- A", "- B</i>").texts == ("<i>- A", "B</i>")
    assert cue("- I think that", "it is.").texts == ("I think that it is.",)


def test_a_blank_line_within_a_cue_of_subrip_ends_nothing() -> None:
    content = "1\n00:00:01,000 --> 00:00:02,000\nA\n\nB\n2\n00:00:03,000 --> 00:00:04,000\n12\nC"
    assert read(content, "srt").texts == ("A", "B", "12 C")


def test_webvtt_keeps_its_header_notes_styles_and_voices() -> None:
    content = (
        "WEBVTT - Title\n\nNOTE not said\n\nSTYLE\n::cue { color: red }\n\nintro\n"
        "00:01.000 --> 00:02.000 line:0\n<v Ann>Fish &amp; <i>chips</i>\n\nNOTE nor this\n"
    )
    document = read(content, "vtt")
    assert document.texts == ("Fish &amp; <i>chips</i>",)
    assert document.rules.markup == "html"
    assert identical(document) == content


def test_times_within_a_cue_of_webvtt_are_refused_by_line() -> None:
    with pytest.raises(ValueError, match="line 4: times and classes within a cue"):
        read("WEBVTT\n\n00:01.000 --> 00:02.000\na <00:01.500>b\n", "vtt")


def test_html_is_cut_between_blocks_and_never_within_what_is_kept() -> None:
    kept = "<div translate=no><p>a</p><p>b</p></div>"
    content = f"<body><p>one</p><p>two</p>{kept}<ul><li>x<li>y</ul><b><p>i</p></b></body>"
    texts = read(content, "html", max_characters=20).texts
    assert "".join(texts) == content
    assert texts == (
        "<body><p>one</p>",
        "<p>two</p>",
        kept,
        "<ul><li>x<li>y</ul>",
        "<b><p>i</p></b></body>",
    )
    assert read(content, "html").texts == (content,)


def test_as_many_translations_as_texts_are_wanted() -> None:
    with pytest.raises(ValueError, match="2 translations for 1 texts"):
        read("a", "text").written(["a", "b"])


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.TXT", "text"), ("x/b.htm", "html"), ("c.de.srt", "srt"), ("d.vtt", "vtt")],
)
def test_a_format_is_told_by_the_extension(name: str, format: Format) -> None:
    assert format_of(name) == format


@pytest.mark.parametrize("name", ["a.docx", "README", ".txt"])
def test_other_formats_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a supported format; supported are \.txt .*\.srt"):
        format_of(name)
