"""`format=html` in LibreTranslate's dialect: markup stays, words are translated."""

import re
from typing import Any

import pytest

from tests.server.live import Live


def translated(live: Live, q: str | list[str], **more: Any) -> Any:
    body = {"q": q, "source": "en", "target": "de", "format": "html", **more}
    answer = live.post("/translate", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["translatedText"]


def words(live: Live, q: str) -> str:
    text: str = live.post("/translate", {"q": q, "source": "en", "target": "de"}).json()[
        "translatedText"
    ]
    return text


def tags(text: str) -> list[str]:
    return re.findall(r"<[^>]*>", text)


def test_blocks_stay_and_their_words_are_translated_as_in_text(live: Live) -> None:
    page = "<p>I am tired.</p>\n<ul>\n <li>Where is Tom?</li>\n</ul>"
    tired, tom = words(live, "I am tired."), words(live, "Where is Tom?")
    assert translated(live, page) == f"<p>{tired}</p>\n<ul>\n <li>{tom}</li>\n</ul>"


def test_inline_tags_come_out_once_each(live: Live) -> None:
    """As Mastodon sends toots: links with attributes, mentions, line breaks."""
    toot = (
        '<p>I saw <a href="https://a.example/?a=1&amp;b=2" rel="nofollow">the station</a> '
        "with <strong>Tom</strong>.<br>I am tired.</p>"
    )
    found = translated(live, toot)
    assert sorted(tags(found)) == sorted(tags(toot))
    assert found.startswith("<p>")
    assert found.endswith("</p>")


def test_nothing_is_added_to_a_fragment(live: Live) -> None:
    assert translated(live, "I am tired.") == words(live, "I am tired.")
    assert translated(live, ["12 <b>13</b>", "", "<br>", "<!-- I am tired. -->"]) == [
        "12 <b>13</b>",
        "",
        "<br>",
        "<!-- I am tired. -->",
    ]


def test_what_is_not_to_be_translated_stays(live: Live) -> None:
    for kept in (
        '<span translate="no">I am tired.</span>',
        "<code>I am tired.</code>",
        "<script>I am tired.</script>",
        "<style>p { color: red }</style>",
    ):
        assert kept in translated(live, f"<div>Where is Tom?</div>{kept}")


def test_attributes_are_not_translated(live: Live) -> None:
    page = '<p title="I am tired." lang="en" data-x="Where is Tom?">I am tired.</p>'
    assert tags(translated(live, page)) == tags(page)


def test_references_are_read_and_written_again_and_no_markup_appears(live: Live) -> None:
    """The original un-escapes them: `&lt;script&gt;` in a text becomes a script."""
    found = translated(live, "<p>I am tired. &lt;script&gt;alert(1)&lt;/script&gt;</p>")
    assert tags(found) == ["<p>", "</p>"]
    assert "&lt;" in found


def test_a_language_is_detected_from_words_and_not_from_markup(live: Live) -> None:
    page = '<div class="where is the station and the time"><p>Wo ist der Bahnhof?</p></div>'
    body = {"q": page, "source": "auto", "target": "en", "format": "html"}
    found = live.post("/translate", body).json()
    assert found["detectedLanguage"]["language"] == "de"
    assert "station?</p></div>" in found["translatedText"]


def test_line_ends_of_html_part_no_sentences(live: Live) -> None:
    assert translated(live, "<p>I am\ntired.</p>") == f"<p>{words(live, 'I am tired.')}</p>"


@pytest.mark.parametrize("page", ["<p>I am tired.", "</p>", "<b><i>12</b></i>", "a < b", "<"])
def test_broken_markup_is_not_repaired(live: Live, page: str) -> None:
    assert tags(translated(live, page)) == tags(page)


def test_a_page_as_a_file_is_translated_as_the_same_html_is(live: Live) -> None:
    page = "<!doctype html>\n<html><body>\n<p title='Tom'>I am tired.</p>\n</body></html>\n"
    form = {"source": "en", "target": "de"}
    file = {"file": ("page.html", page.encode())}
    answer = live.client.post("/translate_file", data=form, files=file)
    assert answer.status_code == 200, answer.text
    assert live.client.get(answer.json()["translatedFileUrl"]).text == translated(live, page)
    assert tags(translated(live, page)) == tags(page)
