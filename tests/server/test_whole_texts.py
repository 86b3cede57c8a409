"""What comes in comes out: markup, placeholders, terms and layout of translated texts."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import Live

HELDOUT = Path(__file__).parent.parent / "data/heldout.en-de.tsv"


def translated(live: Live, q: str, **more: Any) -> dict[str, Any]:
    body = {"q": q, "source": "en", "target": "de"} | more
    answer = live.post("/translate", body)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()
    return data


PLACEHOLDERS = [
    ("Hello %s, you have %d new messages.", ["%s", "%d"]),
    ("Hello {name}, welcome to {place}!", ["{name}", "{place}"]),
    ("%1$s gave the book to %2$s.", ["%1$s", "%2$s"]),
    ("Visit https://example.com/a?b=c&d=1 tomorrow.", ["https://example.com/a?b=c&d=1"]),
    ("Write to anna@example.org, please.", ["anna@example.org"]),
    ("Press `Ctrl+C` to stop.", ["`Ctrl+C`"]),
    ("I like it 😀 very much 🎉!", ["😀", "🎉"]),
]


@pytest.mark.parametrize(("text", "kept"), PLACEHOLDERS)
def test_placeholders_come_out_as_they_went_in_once_each(
    live: Live, text: str, kept: list[str]
) -> None:
    answer = translated(live, text)["translatedText"]
    assert [answer.count(each) for each in kept] == [1] * len(kept), answer
    assert answer != text


LAYOUTS = [
    "\n\n  - How are you?\n  - I am tired.\n\n\tWhere is the station?  \n",
    "1. Open the door.\r\n2. Close the window.\r\n\r\n",
    "> I am tired.\n>\n> Where is the hotel?",
]


@pytest.mark.parametrize("text", LAYOUTS)
def test_layout_survives(live: Live, text: str) -> None:
    answer = translated(live, text)["translatedText"]
    layout = re.compile(r"[^\r\n]+")

    def frame(whole: str) -> str:
        return layout.sub(lambda line: _margins(line[0]), whole)

    assert frame(answer) == frame(text)
    assert answer != text


def _margins(line: str) -> str:
    found = re.fullmatch(r"(\s*(?:[->*]|\d+\.)?\s*).*?(\s*)", line)
    assert found is not None
    return f"{found[1]}|{found[2]}"


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", "😀 🎉", "12:30", "https://example.com", "{name}"]
)
def test_what_has_no_words_stays(live: Live, text: str) -> None:
    answer = live.post("/translate", {"q": ["I am tired.", text], "source": "en", "target": "de"})
    assert answer.json()["translatedText"][1] == text


HTML = (
    "<!DOCTYPE html><!-- a comment -->\n<html><head><title>The hotel</title>"
    '<style>p > a { color: "red" }</style><script>if (a < b) { alert("Hello you"); }</script>'
    "</head>\n"
    '<body class="The house"><h1 id=top>How are you?</h1>\n'
    '<p>I am <b>very</b> tired. <a href="/the/hotel?a=1&amp;b=2" title="The hotel">'
    "Where is the hotel?</a></p>\n"
    "<ul>\n  <li>A red house</li>\n  <li>Two &amp; three</li>\n</ul>\n"
    '<p translate="no">Do not touch this.</p><p>Tom said <code>print(1)</code> to us.'
    "<br>Good night!</p>\n"
    '<img src="a.png" alt="The cat"></body></html>\n'
)


def test_html_keeps_every_tag_and_its_order_of_blocks(live: Live) -> None:
    answer = translated(live, HTML, format="html")["translatedText"]
    tag = re.compile(r"<[^>]*>", re.DOTALL)

    assert sorted(tag.findall(answer)) == sorted(tag.findall(HTML))
    for kept in (
        '<script>if (a < b) { alert("Hello you"); }</script>',
        '<p translate="no">Do not touch this.</p>',
        "<code>print(1)</code>",
        "&amp;",
    ):
        assert kept in answer
    for gone in ("How are you?", "red house", "Good night"):
        assert gone not in answer
    assert "<b>sehr</b>" in answer


def test_text_is_not_unescaped(live: Live) -> None:
    answer = translated(live, "I am &lt;b&gt; tired &amp; sad.")["translatedText"]
    assert [answer.count(each) for each in ("&lt;", "&gt;", "&amp;", "<", ">")] == [1, 1, 1, 0, 0]


def test_a_glossary_decides_words_and_protected_terms_stay(live: Live) -> None:
    answer = translated(live, "Where is the hotel?", glossary={"hotel": "Herberge"})
    assert answer["translatedText"].count("Herberge") == 1
    assert "Hotel" not in answer["translatedText"]

    answer = translated(live, "The house is called Blue Garden.", protected=["Blue Garden"])
    assert answer["translatedText"].count("Blue Garden") == 1


def test_a_glossary_may_be_large_and_not_endless(live: Live) -> None:
    terms = {f"word{number}": "Wort" for number in range(999)}
    answer = translated(live, "Where is the hotel?", glossary=terms | {"hotel": "Herberge"})
    assert answer["translatedText"].count("Herberge") == 1

    body = {"q": "a", "source": "en", "target": "de", "glossary": terms, "protected": ["b", "c"]}
    refused = live.post("/translate", body)
    assert refused.status_code == 400  # as LibreTranslate's clients know what is too large
    assert refused.json()["error"] == "1001 glossary entries and protected terms; at most 1000"


def test_a_sentence_too_long_for_the_model_is_split_and_says_so(live: Live) -> None:
    long = "I went to the old house, " * 110 + "and I was tired."
    answer = translated(live, long)
    assert answer["translatedText"].count(",") > 60
    assert any("parts were translated one by one" in each for each in answer["warnings"])


def test_a_stream_of_html_concatenates_to_its_answer(live: Live) -> None:
    q = "<p>I am <b>very</b> tired.</p><p>Where is the <i>hotel</i>?</p>"
    body = {"q": q, "source": "en", "target": "de", "format": "html"}
    events = live.post("/translate/stream", body).text.split("\n\n")
    data = [json.loads(each.partition("data: ")[2]) for each in events if "data: " in each]
    whole = "".join(each["text"] for each in data[:-1])
    assert (
        whole == data[-1]["translatedText"] == translated(live, q, format="html")["translatedText"]
    )


def sentences(count: int) -> list[str]:
    lines = HELDOUT.read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines[:count]]


KEPT = [
    "%s",
    "%1$s",
    "{name}",
    "{{ user }}",
    "${x}",
    "https://a.example/b?c=1",
    "i@b.example",
    "🎉",
]


def with_placeholders(sentence: str, rng: random.Random) -> tuple[str, list[str]]:
    words, chosen = sentence.split(" "), rng.sample(KEPT, rng.randint(1, 3))
    for each in chosen:
        words.insert(rng.randint(0, len(words) - 1), each)
    return " ".join(words), chosen


def test_placeholders_anywhere_in_real_sentences_come_out_once(live: Live) -> None:
    rng = random.Random(3)
    made = [with_placeholders(sentence, rng) for sentence in sentences(80)]
    body = {"q": [text for text, _ in made], "source": "en", "target": "de"}
    answers = live.post("/translate", body).json()["translatedText"]
    for (text, kept), answer in zip(made, answers, strict=True):
        assert [answer.count(each) for each in kept] == [1] * len(kept), (text, answer)
        assert not re.search("X7|CD|BX", answer), (text, answer)  # of what stood in for them


TAGS = ["b", "i", "a href='/x?y=1&amp;z=2'", "span class=w"]


def with_tags(sentence: str, rng: random.Random) -> str:
    """Put words between tags, each pair within the one before."""
    words = sentence.split(" ")
    begins, ends = ["" for _ in words], ["" for _ in words]
    first, last = 0, len(words) - 1
    for name in rng.sample(TAGS, rng.randint(1, 3)):
        first = rng.randint(first, last)
        last = rng.randint(first, last)
        begins[first] += f"<{name}>"
        ends[last] = f"</{name.split()[0]}>{ends[last]}"
    return f"<p>{' '.join(map(''.join, zip(begins, words, ends, strict=True)))}</p>"


def test_tags_around_anything_in_real_sentences_come_out_once(live: Live) -> None:
    rng = random.Random(4)
    made = [with_tags(sentence, rng) for sentence in sentences(80)]
    body = {"q": made, "source": "en", "target": "de", "format": "html"}
    answers = live.post("/translate", body).json()["translatedText"]
    tag = re.compile(r"<[^>]*>")
    for text, answer in zip(made, answers, strict=True):
        assert Counter(tag.findall(answer)) == Counter(tag.findall(text)), (text, answer)
        for name in "b", "i", "a", "span":
            assert not re.search(f"</{name}>.*<{name}[ >]", answer), (text, answer)
