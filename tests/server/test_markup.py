import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.markup import blocks
from server.text.markup_tokens import tokens
from server.text.masking import mask
from server.text.projection import restore
from server.text.rules import TextRules
from server.text.segments import Segment, Span, Tag

HTML, XML = TextRules(markup="html"), TextRules(markup="xml")
FLOWING = TextRules(markup="xml", sentences="flow")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Tea &amp; coffee</title>
<style>p > b { color: red }</style></head>
<body onload="f(1 > 0)">
  <h1>  Good   morning </h1>
  <!-- a > comment <b> -->
  <p class="x">See <a href="?a=1&b=2" title="Not <b> this">the <i>new</i> page</a>, please.<br>
  Thanks!</p>
  <ul><li>One<li><b>Two</b></ul>
  <table><tr><td>Left<td>12<tr><td>Right</table>
  <script>if (a < b) document.write("<p>Hello</p>")</script>
</body></html>
"""

# -- helpers ---------------------------------------------------------------------------------


def translatable(text: str, rules: TextRules) -> list[str]:
    return [block.text for block in blocks(text, rules) if block.is_translatable]


def only(text: str, rules: TextRules) -> Segment:
    (block,) = [block for block in blocks(text, rules) if block.is_translatable]
    return block


def echoed(text: str, rules: TextRules) -> str:
    """Return the document after a model that repeats its source, letter by letter."""
    return "".join(
        _echo(block) if block.is_translatable else block.text for block in blocks(text, rules)
    )


def _echo(block: Segment) -> str:
    masked = mask(block, writes=lambda text: True)
    letters = list(masked.text)
    source = [letter.strip() or "\u2581" for letter in letters]
    weights = [[float(i == j) for j in range(len(letters))] for i in range(len(letters))]
    restored = restore(masked, letters, source, weights)
    assert not restored.misplaced
    return restored.text


def seen(text: str) -> str:
    """Return the document with references read and without white space."""
    return re.sub(r"\s+", "", html.unescape(text))


# -- blocks ----------------------------------------------------------------------------------


def test_a_page_is_cut_where_its_elements_part_text() -> None:
    assert translatable(PAGE, HTML) == [
        "Tea & coffee",
        "Good morning",
        "See the new page, please.",
        "Thanks!",
        "One",
        "Two",
        "Left",
        "Right",
    ]


def test_what_is_not_translated_comes_out_as_it_was_sent() -> None:
    pieces = [block.text for block in blocks(PAGE, HTML) if not block.is_translatable]
    assert pieces[0] == '<!DOCTYPE html>\n<html lang="en"><head><title>'
    assert ' </h1>\n  <!-- a > comment <b> -->\n  <p class="x">' in pieces
    assert "<td>12<tr><td>" in pieces[-2]
    assert pieces[-1].endswith('document.write("<p>Hello</p>")</script>\n</body></html>\n')


def test_a_page_that_is_not_changed_is_the_page() -> None:
    assert echoed(PAGE, HTML) == PAGE.replace("Good   morning", "Good morning")


def test_inline_tags_stand_where_they_stood() -> None:
    assert only("<p>I <b>am <i>here</i></b><img src=x> now.</p>", HTML) == Segment(
        "I am here now.",
        is_translatable=True,
        tags=(
            Tag(2, "<b>", "open", "b"),
            Tag(5, "<i>", "open", "i"),
            Tag(9, "</i>", "close", "i"),
            Tag(9, "</b>", "close", "b"),
            Tag(9, "<img src=x>", "void", "img"),
        ),
        escapes=True,
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<p> <a href=x><b>Hello</b></a> </p>", ["<p> <a href=x><b>", "</b></a> </p>"]),
        ("<p><img>Hello<!-- c --></p>", ["<p><img>", "<!-- c --></p>"]),
        ('<p><i class="icon"></i>Hello</p>', ['<p><i class="icon"></i>', "</p>"]),
        ("<b>\n Hello</b>", ["<b>\n ", "</b>"]),
        ("<p>&nbsp;Hello&#160;</p>", ["<p>&nbsp;", "&#160;</p>"]),
        ("</i>Hello<b>", ["</i>", "<b>"]),
    ],
)
def test_what_is_around_all_words_stays_outside(text: str, parts: list[str]) -> None:
    before, block, after = blocks(text, HTML)
    assert (block.text, block.tags, [before.text, after.text]) == ("Hello", (), parts)


def test_an_element_around_a_part_of_the_words_stays_inside() -> None:
    assert [tag.raw for tag in only("<p><b>Hello</b> world</p>", HTML).tags] == ["<b>", "</b>"]


def test_references_are_read_and_white_space_is_one_space() -> None:
    block = only("<p>Fish\n  &amp; <b> &lt;chips&gt;</b>&eacute;</p>", HTML)
    assert block.text == "Fish & <chips>é"


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<code>a &lt; b</code>", "a < b"),
        ('<span translate="no">Foo <b>Bar</b></span>', "Foo Bar"),
        ('<em class="x notranslate">Foo</em>', "Foo"),
        ("<KBD>Ctrl</KBD>", "Ctrl"),
        ("<svg><path d='M0'/><text>Foo</text></svg>", "\ufffc"),
        ("<script>a</script>", "\ufffc"),
    ],
)
def test_an_untouched_element_in_a_sentence_is_a_span_of_it(inner: str, words: str) -> None:
    inline = TextRules(markup="html", non_splitting_tags=frozenset({"script"}))
    block = only(f"<p>Press {inner} now.</p>", inline)
    assert block.text == f"Press {words} now."
    assert block.spans == (Span(6, 6 + len(words), inner),)


def test_what_is_to_be_translated_within_what_is_not_parts_blocks() -> None:
    text = '<div translate="no">No <p translate="yes">But <b>this</b></p> no</div> Yes'
    assert translatable(text, HTML) == ["But this", "Yes"]
    assert translatable("<pre>if a:\n  b</pre>", HTML) == []
    assert translatable('<pre translate="yes">One\n  two</pre>', HTML) == ["One", "two"]


def test_an_element_without_its_end_tag_ends_where_html_says() -> None:
    assert translatable('<p translate="no">No<p>Yes', HTML) == ["Yes"]
    assert translatable('<ul><li translate="no">No<li>Yes</ul>', HTML) == ["Yes"]
    assert translatable('<div><span translate="no">No</div>Yes', HTML) == ["Yes"]


def test_names_of_html_are_the_same_in_either_case() -> None:
    assert translatable("<P>One</P><DIV>Two <B>three</b></DIV>", HTML) == ["One", "Two three"]


def test_elements_of_unknown_name_are_inline_unless_they_hold_blocks() -> None:
    text = "<my-card>Two <my-name>words</my-name><p>Next</p></my-card>"
    assert translatable(text, HTML) == ["Two words", "Next"]


def test_rules_say_which_tags_part_and_which_are_untouched() -> None:
    rules = TextRules(
        markup="html",
        splitting_tags=frozenset({"B"}),
        non_splitting_tags=frozenset({"p"}),
        ignored_tags=frozenset({"I"}),
    )
    assert translatable("One <p>two</p> <b>three</b> <i>four</i>", rules) == ["One two", "three"]


def test_an_image_between_words_keeps_the_space_on_both_sides() -> None:
    smile = '<img class="emoji" src="a.png">'
    block = only(f"<p>Good {smile} <b>day</b></p>", HTML)
    assert block.text == "Good day"
    assert [tag.raw for tag in block.tags] == [f"{smile} ", "<b>", "</b>"]
    for text in (f"Good {smile}day", f"Good{smile} day"):
        assert only(f"<p>{text}</p>", HTML).tags[0].raw == smile


# -- xml -------------------------------------------------------------------------------------


def test_a_placeholder_of_xml_is_a_span_that_reads_as_a_word() -> None:
    block = only('Hello <x id="1"></x>, <b>see</b> <y/>.', XML)
    assert block.text == "Hello \ufffc, see \ufffc."
    assert [span.text for span in block.spans] == ['<x id="1"></x>', "<y/>"]
    assert [tag.raw for tag in block.tags] == ["<b>", "</b>"]


def test_an_ignored_element_is_a_span() -> None:
    rules = TextRules(markup="xml", ignored_tags=frozenset({"x"}))
    block = only("Hello <x>Mr <b>Smith</b></x>!", rules)
    assert block.spans == (Span(6, 14, "<x>Mr <b>Smith</b></x>"),)


def test_elements_without_text_of_their_own_part_blocks_where_the_outline_is_found() -> None:
    text = "<doc><title>A title</title> <par>Some <b>text</b></par><par>More</par></doc>"
    assert translatable(text, XML) == ["A title", "Some text", "More"]
    without = TextRules(markup="xml", finds_outline=False)
    assert translatable(text, without) == ["A title Some textMore"]
    splitting = TextRules(markup="xml", finds_outline=False, splitting_tags=frozenset({"par"}))
    assert translatable(text, splitting) == ["A title", "Some text", "More"]
    joined = TextRules(markup="xml", non_splitting_tags=frozenset({"par"}))
    assert translatable(text, joined) == ["A title", "Some textMore"]


def test_names_of_xml_differ_by_case_and_no_element_is_special() -> None:
    rules = TextRules(markup="xml", ignored_tags=frozenset({"X"}))
    assert translatable("<x>One</x> <X>Two</X> <script>a <b>c</b></script>", rules) == [
        "One",
        "a c",
    ]


def test_line_ends_part_xml_only_where_sentences_are_split_at_them() -> None:
    assert translatable("One\n  two", XML) == ["One", "two"]
    assert translatable("One\n  two", FLOWING) == ["One two"]


# -- clients' documents ----------------------------------------------------------------------


def test_a_post_of_mastodon_keeps_its_links_and_mentions() -> None:
    text = (
        '<p><span class="h-card"><a href="https://e.org/@a" class="u-url mention">@<span>a</span>'
        '</a></span> I like it<br />Look: <a href="https://e.org/x" rel="nofollow noopener">'
        '<span class="invisible">https://</span><span class="">e.org/x</span>'
        '<span class="invisible"></span></a> :blobcat:</p>'
    )
    assert echoed(text, HTML) == text
    assert translatable(text, HTML) == ["@a I like it", "Look: https://e.org/x :blobcat:"]


def test_a_post_of_discourse_keeps_quotes_code_and_emoji() -> None:
    text = (
        '<aside class="quote no-group" data-username="a"><blockquote>\n<p>Does it work?</p>\n'
        '</blockquote></aside>\n<p>Yes <img src="/e.png" title=":+1:" class="emoji" alt=":+1:">'
        ", with <code>stele serve</code>:</p>\n"
        '<pre><code class="lang-sh">stele &lt;x&gt;</code></pre>\n<hr>'
    )
    assert echoed(text, HTML) == text
    assert translatable(text, HTML) == ["Does it work?", "Yes , with stele serve:"]


def test_placeholders_of_weblate_are_kept() -> None:
    text = '<x id="7"></x> of <x id="9"></x> strings &amp; more<x id="20"></x>'
    rules = TextRules(markup="xml", ignored_tags=frozenset({"x"}))
    assert echoed(text, rules) == text


# -- whatever is sent ------------------------------------------------------------------------

PARTS = """
<p> </p> <b> </b> <i> </i> <br> <br/> <li> <ul> </ul> <td> <tr> <pre> </pre> <code> </code> <script>
</script> <x/> <x> </x> <!-- --> < > & &amp; &nbsp; &# </> <![ ]]> <![CDATA[ <!doctype <? <a b='>
Wort é. 12 \ufffc ' " text
"""
FRAGMENTS = st.lists(
    st.sampled_from(PARTS.split())
    | st.sampled_from([" ", "\n", '<x id="1"></x>', '<i translate="no">', '<b translate="yes">'])
    | st.text(max_size=3),
    max_size=12,
).map("".join)
RULES = st.sampled_from(
    [
        HTML,
        XML,
        TextRules(markup="xml", finds_outline=False, sentences="flow"),
        TextRules(
            markup="xml", splitting_tags=frozenset({"p"}), ignored_tags=frozenset({"code", "x"})
        ),
        TextRules(
            markup="html", non_splitting_tags=frozenset({"p"}), ignored_tags=frozenset({"i"})
        ),
    ]
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(FRAGMENTS, st.sampled_from(["html", "xml"]))
def test_tokens_together_are_the_source(text: str, markup: str) -> None:
    assert "".join(t.raw for t in tokens(text, "html" if markup == "html" else "xml")) == text


@settings(derandomize=True, deadline=None, max_examples=300)
@given(FRAGMENTS, RULES)
def test_whatever_is_sent_comes_back_if_words_are_not_changed(text: str, rules: TextRules) -> None:
    assert seen(echoed(text, rules)) == seen(text)


@pytest.mark.parametrize("rules", [HTML, XML])
@pytest.mark.parametrize("unit", ["<!--", "<a ", "<a/", "<b x='<", "<?", "<![CDATA[", "<!doctype "])
def test_what_never_ends_is_one_piece(unit: str, rules: TextRules) -> None:
    text = unit * 20_001  # looking for the end of each would take from seconds to an hour
    assert [token.raw for token in tokens(text, rules.markup or "html")] == [text]
    assert blocks(text, rules) == [Segment(text, is_translatable=False)]


@pytest.mark.parametrize("unit", ["<", "</", "<![x>", "<![", "&", "&#;", "</>"])
def test_a_long_text_of_beginnings_is_read_whole(unit: str) -> None:
    text = unit * 20_000
    assert "".join(block.text for block in blocks(text, HTML)) == text


def test_what_nothing_can_be_made_of_is_no_text() -> None:
    found = tokens("One</> <![ two> three <4 <b", "html")
    assert [(token.kind, token.raw) for token in found] == [
        ("text", "One"),
        ("other", "</>"),
        ("text", " "),
        ("other", "<![ two>"),
        ("text", " three "),
        ("text", "<"),
        ("text", "4 "),
        ("other", "<b"),
    ]


def test_text_that_is_no_markup_is_refused() -> None:
    with pytest.raises(ValueError, match="html or xml"):
        blocks("Hello", TextRules())
