"""LibreTranslate's /translate_file and /download_file on a live server."""

import itertools
import re
from functools import partial
from typing import Any

import httpx
import pytest

from model import Model
from server.decoding_fields import DecodingFields
from server.errors import QueueFull
from server.routing import prepare
from tests.server.live import Live, serve

BODY = {"q": "I am tired.", "source": "en", "target": "de"}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def upload(live: Live, name: str, content: bytes, **fields: str) -> httpx.Response:
    form = {"source": "en", "target": "de", **fields}
    return live.client.post("/translate_file", data=form, files={"file": (name, content)})


def fetched(answer: httpx.Response, live: Live) -> httpx.Response:
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["translatedFileUrl"]
    link = answer.json()["translatedFileUrl"]
    assert link.startswith(f"{live.url}/download_file/")
    file = httpx.get(link)
    assert file.status_code == 200
    return file


def test_a_text_file_is_translated_and_fetched_under_a_safe_name(live: Live) -> None:
    file = fetched(upload(live, "notes.txt", b"I am tired.\r\n\r\n  12\n"), live)
    expected = live.post("/translate", BODY).json()["translatedText"]
    assert file.content == f"{expected}\r\n\r\n  12\n".encode()
    assert file.headers["content-type"] == "text/plain; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="notes_de.txt"'
    assert file.headers["x-content-type-options"] == "nosniff"
    assert file.headers["cache-control"] == "private, no-store"


def test_subtitles_keep_their_numbers_and_times(live: Live) -> None:
    subtitles = "1\r\n00:00:01,000 --> 00:00:02,500\r\nI am tired.\r\n\r\n2\r\n"
    subtitles += "00:00:03,000 --> 00:00:04,000\r\nWhere is Tom?\r\n"
    file = fetched(upload(live, "film.srt", subtitles.encode()), live)
    lines, before = file.text.split("\r\n"), subtitles.split("\r\n")
    assert [lines[i] for i in (0, 1, 3, 4, 5, 7)] == [before[i] for i in (0, 1, 3, 4, 5, 7)]
    one = live.post("/translate", BODY).json()["translatedText"]
    assert lines[2] == one
    assert file.headers["content-type"] == "application/x-subrip; charset=utf-8"


def test_a_page_is_translated_and_never_shown_as_one(live: Live) -> None:
    file = fetched(upload(live, "page.HTML", b"12\n"), live)
    assert file.text == "12\n"
    assert file.headers["content-type"] == "text/html; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="page_de.html"'


def test_a_files_language_is_told_once_for_all_of_it(live: Live) -> None:
    german = b"Guten Tag, wie geht es Ihnen heute?\nNein.\n"
    file = fetched(upload(live, "a.txt", german, source="auto", target="en"), live)
    lines = live.post("/translate", {"q": german.decode(), "source": "de", "target": "en"}).json()[
        "translatedText"
    ]
    assert file.text == lines


def test_a_pages_language_is_told_from_what_people_read(live: Live) -> None:
    page = b"<style>.where { is: the } .station { and: more }</style><p>Wo ist der Bahnhof?</p>"
    file = fetched(upload(live, "a.html", page, source="auto", target="en"), live)
    assert "station?</p>" in file.text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"12\n", "\ufeff".encode(), "🙂".encode()])
def test_a_file_without_words_comes_back_as_it_was(live: Live, content: bytes) -> None:
    assert fetched(upload(live, "a.txt", content), live).content == content


def test_a_byte_order_mark_stays(live: Live) -> None:
    file = fetched(upload(live, "a.txt", "\ufeffI am tired.".encode()), live)
    expected = live.post("/translate", BODY).json()["translatedText"]
    assert file.content == f"\ufeff{expected}".encode()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.txt", "passwd_de.txt"),
        ("C:\\Users\\me\\a.txt", "a_de.txt"),
        ('a"; filename="b.exe.txt', "a_22_filename_22b_exe_de.txt"),  # sent as %22
        ("Ü ber\r\nX: y.txt", "ber_0D_0AX_y_de.txt"),
        ("日本語.txt", "translated_de.txt"),
        ("x" * 300 + ".TXT", "x" * 80 + "_de.txt"),
    ],
)
def test_a_clients_name_for_a_file_is_not_trusted(live: Live, sent: str, kept: str) -> None:
    file = fetched(upload(live, sent, b"12"), live)
    assert file.headers["content-disposition"] == f'attachment; filename="{kept}"'
    assert str(file.url).endswith(f".{kept}")


def test_files_that_cannot_be_served_are_refused_in_libretranslates_words(live: Live) -> None:
    def refused(answer: httpx.Response) -> str:
        status, sentence = refusal(answer)
        assert status == 400
        return sentence

    missing = "Invalid request: missing file parameter"
    assert refused(live.client.post("/translate_file")) == missing
    assert refused(live.post("/translate_file", {"file": "a.txt"} | BODY)) == missing
    assert refused(live.client.post("/translate_file", data={"file": "a"})) == missing
    file = {"file": ("a.txt", b"12")}
    answer = live.client.post("/translate_file", files=file)
    assert refused(answer) == "Invalid request: missing source parameter"
    answer = live.client.post("/translate_file", files=file, data={"source": "en"})
    assert refused(answer) == "Invalid request: missing target parameter"
    for name in ("a.pdf", "a", ".txt", "a.txt.exe"):
        answer = upload(live, name, b"12")
        assert refused(answer) == "Invalid request: file format not supported"
        assert ".srt" in answer.json()["detail"]
    part = '--x\r\ncontent-disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--\r\n'
    nameless = live.client.post(
        "/translate_file",
        params={"source": "en", "target": "de"},
        content=part,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert refused(nameless) == "Invalid request: empty file"
    assert refused(upload(live, "a.txt", b"12", target="zz")) == "zz is not supported"
    assert refused(upload(live, "a.txt", b"", source="zz")) == "zz is not supported"
    latin = refused(upload(live, "a.txt", "12 ü".encode("latin-1")))
    assert latin == "Invalid request: the file is not UTF-8 (byte 3); save it as UTF-8"
    assert "not a field" in refused(upload(live, "a.txt", b"12", format="html"))
    timed = b"WEBVTT\n\n00:01.000 --> 00:02.000\n<c.red>I am</c> tired.\n"
    assert "4" in refused(upload(live, "a.vtt", timed))  # the line


def test_a_form_holds_one_file_and_only_where_files_are_read(live: Live) -> None:
    two = [("file", ("a.txt", b"12")), ("other", ("b.txt", b"12"))]
    answer = live.client.post("/translate_file", data=BODY, files=two)
    assert "Maximum number of files is 1" in answer.json()["error"]
    answer = live.client.post("/translate", data=BODY, files={"file": ("a.txt", b"12")})
    assert "Maximum number of files is 0" in answer.json()["error"]
    broken = live.client.post(
        "/translate_file", content=b"--", headers={"content-type": "multipart/form-data"}
    )
    assert refusal(broken) == (400, "Invalid request: Missing boundary in multipart.")


def test_a_large_file_stays_in_memory(bundled: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser would write what is above a megabyte to a disk that may be read-only."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refuse)
    content = b"12345678901234567890123456789012345678901234567890\n" * 40_000
    with serve(bundled, max_body_bytes=3 * 2**20) as live:
        assert fetched(upload(live, "a.txt", content), live).content == content
        too_large = upload(live, "a.txt", content * 2)
        assert refusal(too_large) == (400, "the body exceeds the limit of 3145728 bytes")


def test_a_file_of_more_texts_than_a_request_may_hold_is_translated_in_turns(
    bundled: Model,
) -> None:
    lines = [
        f"{number}\n00:00:0{number},000 --> 00:00:0{number},500\nYes.\n" for number in range(9)
    ]
    with serve(bundled, max_texts=2) as live:
        file = fetched(upload(live, "a.srt", "\n".join(lines).encode()), live)
    assert file.text.count("\n") == "\n".join(lines).count("\n")
    assert "Yes" not in file.text


@pytest.mark.parametrize(("refused", "status"), [(1, 429), (2, 200), (3, 200)])
def test_a_full_queue_refuses_a_file_at_its_beginning_and_delays_it_later(
    bundled: Model, monkeypatch: pytest.MonkeyPatch, refused: int, status: int
) -> None:
    calls = itertools.count(1)

    def some(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == refused:
            raise QueueFull("many segments wait already; retry in 0 s", 0.0)
        return prepare(*args, **kwargs)

    monkeypatch.setattr("server.routes.libretranslate.prepare", some)
    cues = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},500\n- Yes.\n- No.\n" for n in range(3)]
    with serve(bundled, max_texts=2) as live:
        answer = upload(live, "a.srt", "\n".join(cues).encode())
        assert answer.status_code == status
        if status == 200:
            assert fetched(answer, live).text.count("\n") == "\n".join(cues).count("\n")


def test_a_file_that_takes_too_long_is_given_up(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.chain([0.0, 1.0], itertools.repeat(31.0))
    monkeypatch.setattr("server.routes.libretranslate.monotonic", lambda: next(seconds))
    cues = "1\n00:00:01,000 --> 00:00:02,500\n- Yes.\n- No.\n"
    with serve(bundled, max_texts=1) as live:
        answer = upload(live, "a.srt", cues.encode())
    assert refusal(answer) == (
        504,
        "the file was not translated within its time; send it in parts",
    )


def test_a_file_is_gone_where_nobody_kept_it(live: Live, bundled: Model) -> None:
    for name in ("a.txt", "..%2f..%2fetc%2fpasswd", "%00"):
        answer = live.client.get(f"/download_file/{name}")
        assert answer.status_code == 404
        assert "error" in answer.json()
    with serve(bundled, max_file_store_bytes=1000) as small:
        first = upload(small, "a.txt", b"1").json()["translatedFileUrl"]
        assert httpx.get(first).status_code == 200
        second = upload(small, "a.txt", b"2").json()["translatedFileUrl"]
        assert (httpx.get(first).status_code, httpx.get(second).status_code) == (404, 200)
        assert "limit of 1000" in upload(small, "a.txt", b"1" * 600).json()["error"]


def test_files_are_refused_where_none_may_be_kept(bundled: Model) -> None:
    with serve(bundled, max_file_store_bytes=0) as live:
        answer = upload(live, "a.txt", b"12")
        assert refusal(answer) == (403, "Files translation are disabled on this server.")
        settings = live.client.get("/frontend/settings").json()
        assert (settings["filesTranslation"], settings["supportedFilesFormat"]) == (False, [])


def test_a_link_says_how_the_server_was_reached(live: Live) -> None:
    proxied = {"x-forwarded-proto": "https", "host": "translate.example"}
    answer = live.client.post(
        "/translate_file", data=BODY, files={"file": ("a.txt", b"12")}, headers=proxied
    )
    assert "not a field" in answer.json()["error"]  # q is none of a file's
    form = {"source": "en", "target": "de"}
    answer = live.client.post(
        "/translate_file", data=form, files={"file": ("a.txt", b"12")}, headers=proxied
    )
    assert answer.json()["translatedFileUrl"].startswith("https://translate.example/download_file/")


def test_a_file_is_private_to_whoever_has_its_link_where_keys_are_needed(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha") as live:
        missing = upload(live, "a.txt", b"12")
        assert missing.status_code == 400
        answer = upload(live, "a.txt", b"12", api_key="alpha")
        assert httpx.get(answer.json()["translatedFileUrl"]).content == b"12"


def test_warnings_of_a_file_name_its_lines(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(DecodingFields, max_new_tokens=2)
    monkeypatch.setattr("server.routes.libretranslate.DecodingFields", short)
    subtitles = "1\n00:00:01,000 --> 00:00:02,500\nI am very tired today.\n"
    answer = upload(live, "a.srt", subtitles.encode()).json()
    cut = "segment 0 was cut at 2 tokens; send a larger max_new_tokens"
    assert [each.partition(": ")[2] for each in answer["warnings"]] == [cut]
    assert re.match(r"line [13]: ", answer["warnings"][0])
