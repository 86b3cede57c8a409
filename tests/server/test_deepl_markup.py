"""DeepL's tags and splitting, by its own client; how they are read is tested with the text core."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import deepl
import pytest

from tests.server.live import Live


@pytest.fixture
def client(live: Live) -> Iterator[deepl.DeepLClient]:
    with closing(deepl.DeepLClient("any", server_url=live.url)) as made:
        yield made


def translated(client: deepl.DeepLClient, text: str, **options: Any) -> str:
    result = client.translate_text(text, source_lang="EN", target_lang="DE", **options)
    assert isinstance(result, deepl.TextResult)
    return result.text


def tags_of(text: str) -> list[str]:
    return sorted(re.findall(r"<[^>]*>", text))


@pytest.mark.parametrize(
    "text",
    [
        "<p>I am <b>tired</b>.</p>",
        '<p class="I am tired">I am tired.</p><p>How do I get to the station?</p>',
        'I like <a href="/the/house" title="the house">the house</a> &amp; the car.',
        "<ul><li>I am tired.</li>\n<li>I like it.</li></ul>",
    ],
)
def test_html_comes_back_with_its_tags(client: deepl.DeepLClient, text: str) -> None:
    result = translated(client, text, tag_handling="html")
    assert tags_of(result) == tags_of(text)
    assert result != text
    assert ("müde" in result) == ("tired." in text or "<b>tired</b>" in text)


def test_weblates_placeholders_come_back_once_each(client: deepl.DeepLClient) -> None:
    text = 'I am <x id="1"></x>tired, <x id="2"></x>. How do I get to the <x id="3"></x> station?'
    result = translated(client, text, tag_handling="xml", ignore_tags=["x"])
    assert tags_of(result) == tags_of(text)
    for number in (1, 2, 3):
        assert result.count(f'<x id="{number}"></x>') == 1


def test_what_ignored_tags_hold_is_not_translated(client: deepl.DeepLClient) -> None:
    text = "I like <keep>the red house</keep>."
    result = translated(client, text, tag_handling="xml", ignore_tags="keep,x")
    assert result.count("<keep>the red house</keep>") == 1
    assert "the red house" not in translated(client, text, tag_handling="xml")


def test_without_tag_handling_tags_are_text(client: deepl.DeepLClient, live: Live) -> None:
    body = {"q": "I am <b>tired</b>.", "source": "en", "target": "de"}
    plain = live.post("/translate", body).json()["translatedText"]
    assert translated(client, "I am <b>tired</b>.") == plain


def segments(live: Live, text: str, **fields: Any) -> float:
    """Return how many segments a text has: each is a source that is looked for, or encoded."""

    def looked_for() -> float:
        names = ("latent_cache_hits_total", "latent_cache_misses_total")
        return sum(live.metric(name, model="en-de") for name in names)

    before = looked_for()
    body = {"text": [text], "source_lang": "EN", "target_lang": "DE", **fields}
    assert live.post("/v2/translate", body).status_code == 200
    live.wait_until(lambda: live.held == 0)
    return looked_for() - before


def test_sentences_are_split_as_asked(live: Live) -> None:
    text = "I am tired. How do I get\nto the station?"
    assert segments(live, text) == 3
    assert segments(live, text, split_sentences="1") == 3
    assert segments(live, text, split_sentences="nonewlines") == 2
    assert segments(live, text, split_sentences="0") == 1
    assert segments(live, text, split_sentences=0) == 1
    assert segments(live, text, tag_handling="html") == 2
    assert segments(live, text, tag_handling="html", split_sentences="1") == 2  # white space
    assert segments(live, text, tag_handling="xml") == 3


def test_tags_split_sentences_or_do_not_as_asked(live: Live) -> None:
    text = "<par>I am tired</par><par>I like it</par>"
    assert segments(live, text, tag_handling="xml", splitting_tags=["par"]) == 2
    mixed = "I am <par>tired</par> and lost"
    assert (
        segments(live, mixed, tag_handling="xml", non_splitting_tags="par", outline_detection=False)
        == 1
    )
