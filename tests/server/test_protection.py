from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidRequest, TooLarge
from server.text.cutting import cut
from server.text.protection import protect
from server.text.rules import PLAIN, TextRules
from server.text.segments import Segment, Span, Tag
from server.text.terms import MAX_CHARACTERS, MAX_TERMS, verify_terms

HARSH = settings(derandomize=True, deadline=None, max_examples=150)


def protected(text: str, rules: TextRules = PLAIN) -> list[str]:
    block = protect(Segment(text, is_translatable=True), rules)
    for span in block.spans:
        assert span.is_term or span.text == text[span.start : span.end]
    return [text[span.start : span.end] for span in block.spans]


PLACEHOLDERS = [
    "%s", "%d", "%1$s", "%-10.2f", "%05d", "%+.3e", "%lld", "%@", "%%", "%(name)s", "%(n)05.2f",
    "%{name}", "%<name>s", "%name%", "{}", "{0}", "{name}", "{user.name!r:>10}", "{ name }",
    "{{name}}", "{{ user.name | upper }}", "{{{raw}}}", "{% if x %}", "${x}", "${a b}", "$t(key)",
    "$HOME", "#{x}", "<%= x.y %>", "<b>", "</b>", "<br/>", '<x id="1"/>', "<a href='x y'>",
    "<!-- note -->", "&amp;", "&#39;", "&#x2F;", "https://a.de/b?c=d#e", "http://localhost:80/x",
    "www.a.de/b", "example.com", "ftp://a.b", "foo.bar+x@a-b.co.uk", "mailto:a@b.de", "@user",
    "@user@host.social", "#tag", "#Größe", ":smile:", ":+1_a:", "🙂", "👩🏽\u200d🚀", "🇩🇪",
    "1\ufe0f\u20e3",
   
    "`a b`", "``a`b``", "```python", "--no-flag=3", "/usr/lib/x.so", "~/x/y", "./x/y.py",
    "C:\\x\\y.txt", "\\\\host\\share", "\\n", "__X_1__",
    "{n, plural, one {# item} other {# items}}", "{g, select, male {He {x}} other {They}}",
]  # fmt: skip


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_one_span_wherever_it_stands(placeholder: str) -> None:
    if placeholder == "```python":  # which is one where it has its line
        assert protected(f"a\n{placeholder}\nb") == [placeholder]
        return
    for text in (
        placeholder,
        f"{placeholder} is it",
        f"It is {placeholder}",
        f"It is {placeholder}, yes",
    ):
        assert protected(text) == [placeholder]


@pytest.mark.parametrize(
    "text",
    [
        "50% of people, 5 % discount, 100%ige, 100 %ige",
        "a {set of words} in braces",
        "It costs $5 or US$7 at 10:30:45.",
        "a < b and c > d, x <y and z> w, I <3 you",
        "number #1, C# and F#",
        "either/or, 1/2/2024, km/h, and / or",
        "AT&T and R & D",
        "word -- word, word--word",
        "_emphasis_ and __bold text__",
        "e. g. this. And that: yes.",
        "me @ home, 5@ all",
        "it's `open",
    ],
)
def test_prose_has_no_placeholders(text: str) -> None:
    assert protected(text) == []


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("See https://a.de/b.", ["https://a.de/b"]),
        ("(https://a.de/b_(c))", ["https://a.de/b_(c)"]),
        ("Is it https://a.de/?!", ["https://a.de/"]),
        ("请看https://a.de/b。好", ["https://a.de/b"]),
        ("„https://a.de“ [www.b.de]", ["https://a.de", "www.b.de"]),
        ("https://a.de/%s/{x}, ok", ["https://a.de/%s/{x}"]),
        ("https://de.wikipedia.org/wiki/Köln", ["https://de.wikipedia.org/wiki/Köln"]),
    ],
)
def test_a_url_ends_before_the_sentences_punctuation(text: str, urls: list[str]) -> None:
    assert protected(text) == urls


def test_a_percentage_before_a_word_is_told_from_a_placeholder() -> None:
    assert protected("1 %s in 2 %d, 100 %ige") == ["%s", "%d"]


texts = st.lists(
    st.one_of(st.sampled_from(PLACEHOLDERS), st.text("ab. \n%{}<&@é", max_size=6)), max_size=12
).map(" ".join)


@HARSH
@given(texts, st.booleans())
def test_spans_are_valid_and_placeholders_are_never_cut(text: str, escapes: bool) -> None:
    block = protect(Segment(text, is_translatable=True, escapes=escapes), PLAIN)
    at = 0
    for span in block.spans:
        assert at <= span.start < span.end <= len(text)
        at = span.end
    pieces = cut(text, "en", PLAIN)
    kept = "".join(
        piece.text if not piece.is_translatable else " ".join(s.text for s in piece.spans)
        for piece in pieces
    )
    for placeholder in ("%1$s", "{name}", "https://a.de/b?c=d#e", "foo.bar+x@a-b.co.uk"):
        alone = [word for word in text.split() if word == placeholder]
        assert kept.count(placeholder) >= len(alone)


# -- terms ---------------------------------------------------------------------------------------

RULES = TextRules(
    glossary=(
        ("apple", "Apfel"),
        ("apple pie", "Apfelkuchen"),
        ("New York", "Neu-York"),
        ("C++", "Zeh"),
        ("東京", "Tokio"),
        ("हिन", "Hin"),
    ),
    protected=("Pie", "Acme & Co."),
)


def terms(text: str, rules: TextRules = RULES) -> list[tuple[str, str]]:
    block = protect(Segment(text, is_translatable=True), rules)
    return [(text[span.start : span.end], span.text) for span in block.spans]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("an apple a day", [("apple", "Apfel")]),
        ("an apple pie", [("apple pie", "Apfelkuchen")]),
        ("apple\npie", [("apple\npie", "Apfelkuchen")]),
        ("pineapple, apples, apple_x", []),
        ("apple-pie", [("apple", "Apfel")]),
        ("Apple is good. Apple. An Apple", [("Apple", "Apfel"), ("Apple", "Apfel")]),
        ("«Apple pie»", [("Apple pie", "Apfelkuchen")]),
        ("APPLE", []),
        ("apple\u0301", []),
        ("हिन्दी और हिन", [("हिन", "Hin")]),
        ("new york, New York", [("New York", "Neu-York")]),
        ("C++ and C", [("C++", "Zeh")]),
        ("我在東京住", [("東京", "Tokio")]),
        ("Pie by Acme & Co. now", [("Pie", "Pie"), ("Acme & Co.", "Acme & Co.")]),
        ("https://apple.de/apple apple", [("https://apple.de/apple",) * 2, ("apple", "Apfel")]),
        ("", []),
    ],
)
def test_terms_are_whole_words_and_the_longest_wins(
    text: str, found: list[tuple[str, str]]
) -> None:
    assert terms(text) == found


def test_a_terms_target_is_escaped_within_markup() -> None:
    rules = TextRules(glossary=(("a&b", "x<y"),), protected=("c&d",))
    block = protect(Segment("see a&b, c&d", is_translatable=True, escapes=True), rules)
    assert block.spans == (
        Span(4, 7, "x&lt;y", is_term=True),
        Span(9, 12, "c&amp;d"),
    )


def test_spans_of_the_markup_win() -> None:
    given_span = Span(6, 11, "<i>apple</i>")
    block = Segment("an ap apple pie {x}", is_translatable=True, spans=(given_span,))
    assert protect(block, RULES).spans == (given_span, Span(16, 19, "{x}"))


OPEN, CLOSE, VOID = (
    Tag(0, "<b>", "open", "b"),
    Tag(0, "</b>", "close", "b"),
    Tag(0, "<i/>", "void", "i"),
)


def with_tags(text: str, *tags: Tag) -> Segment:
    return protect(Segment(text, is_translatable=True, tags=tags, escapes=True), RULES)


def at(place: int, tag: Tag) -> Tag:
    return Tag(place, tag.raw, tag.kind, tag.name)


@pytest.mark.parametrize(
    ("tags", "shown", "left"),
    [
        ([at(6, OPEN), at(8, CLOSE)], "{n<b>am</b>e}", []),
        ([at(6, VOID)], "{n<i/>ame}", []),
        ([at(4, OPEN), at(10, CLOSE)], "{name}", [at(4, OPEN), at(10, CLOSE)]),
        ([at(6, OPEN), at(12, CLOSE)], "{name}", [at(4, OPEN), at(12, CLOSE)]),
        ([at(2, OPEN), at(6, CLOSE)], "{name}", [at(2, OPEN), at(10, CLOSE)]),
    ],
)
def test_a_tag_within_a_placeholder_comes_out_within_it_or_at_its_edge(
    tags: Sequence[Tag], shown: str, left: Sequence[Tag]
) -> None:
    block = with_tags("see {name} now", *tags)
    assert (block.spans, block.tags) == ((Span(4, 10, shown),), tuple(left))


@pytest.mark.parametrize(
    "html",
    [  # as Mastodon writes what it shows of a link, mentions and hashtags
        '<span class="invisible">https://www.</span><span class="ellipsis">a.de/b</span>'
        '<span class="invisible">/c</span>',
        "@<span>tom</span>",
        "#<span>film</span>",
        "<b>{na</b>me}",
    ],
)
def test_a_placeholder_holds_the_tags_at_its_edge_whose_others_are_within(html: str) -> None:
    found = cut(f"<p>See <a>{html}</a> now</p>", "en", TextRules(markup="html"))
    (piece,) = [segment for segment in found if segment.is_translatable]
    assert [span.text for span in piece.spans] == [html]
    assert [tag.raw for tag in piece.tags] == ["<a>", "</a>"]


def test_a_term_with_a_tag_within_has_it_at_its_edge_or_is_none() -> None:
    text = "in New York now"
    assert with_tags(text, at(7, OPEN), at(11, CLOSE)).tags == (at(3, OPEN), at(11, CLOSE))
    assert with_tags(text, at(3, OPEN), at(6, CLOSE)).tags == (at(3, OPEN), at(11, CLOSE))
    assert with_tags(text, at(7, VOID)).tags == (at(11, VOID),)
    crossed = with_tags(text, at(3, OPEN), at(6, CLOSE), at(7, OPEN), at(11, CLOSE))
    assert (crossed.spans, len(crossed.tags)) == ((), 4)


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (TextRules(glossary=(("", "x"),)), "a glossary entry or protected term is empty"),
        (TextRules(glossary=(("x", " "),)), "a glossary entry or protected term is empty"),
        (TextRules(protected=(" ",)), "a glossary entry or protected term is empty"),
        (TextRules(protected=("a\nb",)), "the term 'a\\nb' has a line end in it"),
        (TextRules(glossary=(("a", "b"),), protected=("a",)), "the term 'a' is there twice"),
        (TextRules(glossary=(("a", "b"), ("a", "c"))), "the term 'a' is there twice"),
    ],
)
def test_terms_that_mean_nothing_are_refused(rules: TextRules, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        verify_terms(rules)
    assert str(refusal.value).startswith(sentence)


def test_terms_too_many_or_too_long_are_refused() -> None:
    terms = tuple(f"t{number}" for number in range(MAX_TERMS))
    verify_terms(TextRules(protected=terms))
    verify_terms(TextRules(protected=("x" * MAX_CHARACTERS,)))
    with pytest.raises(TooLarge, match=f"^{MAX_TERMS + 1} glossary entries and protected terms"):
        verify_terms(TextRules(protected=terms, glossary=(("a", "b"),)))
    with pytest.raises(TooLarge, match=f"has {MAX_CHARACTERS + 1} characters"):
        verify_terms(TextRules(protected=("x" * (MAX_CHARACTERS + 1),)))


# -- hostile text --------------------------------------------------------------------------------

UNITS = [
    *("%", "%(", "%-", "%a", "%1$", "{", "{{", "{%", "{a,plural", "$", "${", "$a", "#", "#1", "#{"),
    *("<", "<a ", "<a b=", "<a b='", "<!--", "<%", "@", "a@", "a@a.", "@a.", "www.", "://", "a."),
    *(
        "http://(",
        "`",
        "``a",
        ":",
        ":a",
        "&",
        "&#1",
        "--a",
        "/a",
        "~/",
        "a:\\",
        "\\\\a",
        "__A",
        "A",
    ),
    *("🙂", "🇩", "\u200d", "1\u20e3", "a-.com", " "),
]


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """Twenty times the length that a text may have: squared, that would take minutes."""
    for before in ("", "http://", "{", "<a "):
        protect(Segment(before + unit * (100_000 // len(unit)), is_translatable=True), PLAIN)


def test_hostile_terms_take_linear_time() -> None:
    rules = TextRules(protected=tuple("a " * 99 + str(number) for number in range(MAX_TERMS)))
    assert protected("a " * 20_000, rules) == []
