"""The translation routes on a live server with the bundled model."""

import concurrent.futures
import json
import threading
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from model import Model
from tests.server.live import Live, serve


def translate(live: Live, q: Any, **more: Any) -> dict[str, Any]:
    answer = live.post("/translate", {"q": q, "source": "en", "target": "de", **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def error(answer: httpx.Response, status: int) -> str:
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert body["detail"] == body["message"]
    assert body["detail"].startswith(body["error"])  # LibreTranslate's sentence, without the help
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["status"] == status
    text: str = body["detail"]
    return text


def test_a_sentence_is_translated_both_ways(live: Live) -> None:
    assert "Bahnhof" in translate(live, "How do I get to the station?")["translatedText"]
    english = translate(live, "Wo ist der Bahnhof?", source="de", target="en")["translatedText"]
    assert "station" in english.lower()


def test_plain_json_carries_the_fields_of_libretranslate_and_no_others(live: Live) -> None:
    assert list(translate(live, "I am tired.")) == ["translatedText"]


def test_a_list_comes_back_as_a_list_in_order(live: Live) -> None:
    texts = ["I am tired.", "Where is Tom?", "Thank you."]
    together = translate(live, texts)["translatedText"]
    assert together == [translate(live, text)["translatedText"] for text in texts]


def test_white_space_and_blank_lines_survive(live: Live) -> None:
    shape = "  {}\n\n\t{} \r\n{}  {}\n"
    texts = ["I am tired.", "Where is Tom?", "Thank you.", "I know."]
    whole = translate(live, shape.format(*texts))["translatedText"]
    assert whole == shape.format(*translate(live, texts)["translatedText"])


@pytest.mark.parametrize("text", ["", " ", "\n\n", "🙂", "🙂 👍🏽!", "12:30", "... ?", "\u200b"])
def test_an_item_without_a_letter_comes_back_unchanged(live: Live, text: str) -> None:
    assert translate(live, [text, "Hi."])["translatedText"][0] == text


@pytest.mark.parametrize(("source", "text"), [("de", "Hallo, Tom!"), ("auto", "Ich bin müde.")])
def test_text_in_the_target_language_comes_back_unchanged(
    live: Live, source: str, text: str
) -> None:
    assert translate(live, text, source=source)["translatedText"] == text


def test_auto_detects_each_text_and_says_so(live: Live) -> None:
    one = translate(live, "Where is the station?", source="auto")
    assert one["detectedLanguage"]["language"] == "en"
    assert 50 < one["detectedLanguage"]["confidence"] <= 100
    two = translate(live, ["Where is the station?", "Das ist gut."], source="auto")
    assert [each["language"] for each in two["detectedLanguage"]] == ["en", "de"]
    assert two["translatedText"][1] == "Das ist gut."


@pytest.mark.parametrize("q", ["q=I+am+tired.&source=en&target=de", ""])
def test_forms_and_query_parameters_are_read_too(live: Live, q: str) -> None:
    expected = translate(live, "I am tired.")
    form = {"q": "I am tired.", "source": "en", "target": "de", "alternatives": "0"}
    assert live.client.post("/translate", data=form).json() == expected
    assert live.client.post("/translate", params=form).json() == expected
    multipart = {name: (None, value) for name, value in form.items()}
    assert live.client.post("/translate", files=multipart).json() == expected


def test_json_is_read_whatever_content_type_curl_says(live: Live) -> None:
    body = json.dumps({"q": "I am tired.", "source": "en", "target": "de"})
    for media in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=x"):
        answer = live.client.post("/translate", content=body, headers={"content-type": media})
        assert answer.status_code == 200, answer.text


def test_details_are_added_when_asked_for(live: Live) -> None:
    details = translate(live, "I am tired.", details=True)["details"]
    assert details["finishReason"] == "stop"
    assert details["usage"]["targetTokens"] == len(details["scores"]) > 0
    assert all(score <= 0 for score in details["scores"])
    assert details["timings"]["totalSeconds"] > 0
    both = translate(live, ["I am tired.", "1"], details=True)["details"]
    assert [each["usage"]["sourceTokens"] > 0 for each in both] == [True, False]


def test_an_answer_cut_at_its_limit_says_so(live: Live) -> None:
    answer = translate(live, "I am very tired today.", max_new_tokens=2, details=True)
    assert answer["details"]["finishReason"] == "length"
    assert answer["warnings"] == ["segment 0 was cut at 2 tokens; send a larger max_new_tokens"]


def test_the_same_seed_gives_the_same_text_and_others_differ(live: Live) -> None:
    def sampled(seed: int) -> str:
        fields = {"temperature": 2, "seed": seed, "max_new_tokens": 20}
        text: str = translate(live, "I like it.", **fields)["translatedText"]
        return text

    assert len({sampled(7) for _ in range(3)}) == 1
    assert len({sampled(seed) for seed in range(5)}) > 1
    greedy = translate(live, "I like it.")
    assert translate(live, "I like it.", temperature=2, do_sample=False) == greedy
    assert translate(live, "I like it.", temperature=1.5, top_k=1) == greedy


def test_a_stop_string_ends_the_text_where_it_would_appear(live: Live) -> None:
    full = translate(live, "I am very tired today.")["translatedText"]
    stop = full[4:7]
    answer = translate(live, "I am very tired today.", stop=stop, details=True)
    assert answer["translatedText"] == full[: full.index(stop)]
    assert answer["details"]["finishReason"] == "stop"


def test_a_sentence_that_met_its_stop_string_is_not_decoded_further(bundled: Model) -> None:
    with serve(bundled) as live:
        text = "I am tired. " * 8
        answer = translate(live, text, stop="müde", min_new_tokens=150, max_new_tokens=150)
        assert "müde" not in answer["translatedText"]
        live.wait_until(lambda: live.held == 0)
        assert live.metric("target_tokens_total", model="en-de") < 8 * 75


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"source": "en", "target": "de"}, "missing q parameter"),
        ({"q": "", "source": "en", "target": "de"}, "missing q parameter"),
        ({"q": [], "source": "en", "target": "de"}, "missing q parameter"),
        ({"q": "a", "target": "de"}, "missing source parameter"),
        ({"q": "a", "source": "en"}, "missing target parameter"),
        ({"q": 5, "source": "en", "target": "de"}, "q: Input should be a valid string"),
        ({"q": ["a", None], "source": "en", "target": "de"}, "q"),
        ({"q": {"a": 1}, "source": "en", "target": "de"}, "q"),
        ({"q": "a", "source": "xx", "target": "de"}, "xx is not supported"),
        ({"q": "a", "source": "en", "target": "auto"}, "auto is not supported"),
        ({"q": "a", "source": "auto", "target": "fr"}, "loaded languages are: de, en"),
        (
            {"q": "a", "source": "en", "target": "de", "glossary": {"a": ""}},
            "protected term is empty",
        ),
        (
            {"q": "a", "source": "en", "target": "de", "glossary": {" ": "a"}},
            "protected term is empty",
        ),
        (
            {"q": "a", "source": "en", "target": "de", "glossary": {"a": 5}},
            "glossary.a: Input should",
        ),
        ({"q": "a", "source": "en", "target": "de", "glossary": ["a"]}, "glossary: Input should"),
        (
            {"q": "a", "source": "en", "target": "de", "protected": ["x" * 201]},
            "201 characters; at most 200",
        ),
        ({"q": "a", "source": "en", "target": "de", "protected": [5]}, "protected.0: Input should"),
        ({"q": "a", "source": "en", "target": "de", "protected": "a"}, "protected: Input should"),
        ({"q": "a", "source": "en", "target": "de", "protected": ["x"] * 1001}, "at most 1000"),
        (
            {
                "q": "a",
                "source": "en",
                "target": "de",
                "glossary": {str(i): "x" for i in range(1001)},
            },
            "1001 glossary entries",
        ),
        ({"q": "a", "source": "en", "target": "de", "num_beams": 65}, "num_beams must be"),
        ({"q": "a", "source": "en", "target": "de", "max_new_token": 4}, "'max_new_token' is not"),
        ({"q": "a", "source": "en", "target": "de", "max_new_tokens": 0}, "max_new_tokens"),
        ({"q": "a", "source": "en", "target": "de", "max_new_tokens": 9999}, "at most 511"),
        ({"q": "a", "source": "en", "target": "de", "min_new_tokens": -1}, "min_new_tokens"),
        ({"q": "a", "source": "en", "target": "de", "temperature": -1}, "temperature"),
        ({"q": "a", "source": "en", "target": "de", "temperature": "hot"}, "temperature"),
        ({"q": "a", "source": "en", "target": "de", "top_k": 5}, "top_k has no effect without"),
        ({"q": "a", "source": "en", "target": "de", "top_p": 0.5}, "top_p has no effect without"),
        ({"q": "a", "source": "en", "target": "de", "seed": 5}, "seed has no effect without"),
        ({"q": "a", "source": "en", "target": "de", "temperature": 1, "top_p": 0}, "top_p"),
        ({"q": "a", "source": "en", "target": "de", "repetition_penalty": 0}, "repetition_penalty"),
        ({"q": "a", "source": "en", "target": "de", "stop": ["x"] * 17}, "at most 16 stop"),
        ({"q": "a", "source": "en", "target": "de", "stop": [""]}, "must not be empty"),
        ({"q": "a", "source": "en", "target": "de", "stop": "x" * 257}, "longer than 256"),
        ({"q": "a", "source": "en", "target": "de", "stop": ["x"] * 101}, "more than 100 items"),
        ({"q": "a", "source": "en", "target": "de", "temperature": 1, "top_k": 2**63}, "top_k"),
        ({"q": "a", "source": "en", "target": "de", "no_repeat_ngram_size": 2**63}, "no_repeat"),
        ({"q": "a", "source": "en", "target": "de", "repetition_penalty": 1e-45}, "repetition"),
        ({"q": "a", "source": "en", "target": "de", "min_new_tokens": 10**4000}, "min_new_tokens"),
        ({"q": "a", "source": "en" * 5000, "target": "de"}, "is not supported"),
        ({"q": [1] * 5000, "source": "en", "target": "de"}, "exceeds text limit (1000)"),
        ({str(i): i for i in range(5000)}, "missing q parameter"),
        ({"q": "a", "source": "en", "target": "de"} | {str(i): i for i in range(99)}, "100 items"),
        (["a"], "send an object"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_that_helps(
    live: Live, body: Any, sentence: str
) -> None:
    answer = live.post("/translate", body)
    assert sentence in error(answer, 400)
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    "body",
    [
        rb'{"q":"\ud800","source":"en","target":"de"}',
        rb'{"\ud800":1}',
        b'{"q":"a","source":"en","target":"de","temperature":NaN}',
        b'{"q":"a","source":"en","target":"de","temperature":1e400}',
        b'{"q":"a","source":"en","target":"de","max_new_tokens":' + b"9" * 50_000 + b"}",
        b"[" * 50_000,
        b'{"q":"\xff\xfe"}',
        b'{"q":"a"',
        "{}".encode("utf-16"),
        b"\x1f\x8b\x08\x00",
        b"nonsense",
        b"",
    ],
)
def test_what_is_not_json_is_a_client_error_without_an_echo(live: Live, body: bytes) -> None:
    answer = live.client.post(
        "/translate", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 1500
    assert error(answer, 400)


def test_forms_that_cannot_be_read_whole_are_refused(live: Live) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    many = live.client.post("/translate", content="a&" * 5000, headers=form)
    assert "more than 100 form fields" in error(many, 400)
    broken = live.client.post("/translate", content="q=%ED%A0%80", headers=form)
    assert "not UTF-8" in error(broken, 400)
    twice = live.client.post("/translate", content="q=a&q=b", headers=form)
    assert "sent twice" in error(twice, 400)
    part = '--x\r\ncontent-disposition: form-data; name="q"\r\n\r\n\\ud800\r\n--x--\r\n'
    odd = {"content-type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    assert "not UTF-8" in error(live.client.post("/translate", content=part, headers=odd), 400)
    none = {"content-type": "multipart/form-data; boundary=x; charset=nonsense"}
    assert error(live.client.post("/translate", content=part, headers=none), 400)


def test_language_codes_are_read_in_any_case(live: Live) -> None:
    answer = live.post("/translate", {"q": "I am tired.", "source": "EN", "target": "De"})
    assert "müde" in answer.json()["translatedText"]


def test_a_document_of_thousands_of_lines_is_translated_whole(live: Live) -> None:
    document = "I am tired.\n" * 1500
    translated = translate(live, document)["translatedText"]
    assert translated.count("\n") == 1500
    assert len(set(translated.split("\n"))) == 2


def test_a_byte_order_mark_and_a_nul_are_not_in_the_way(live: Live) -> None:
    body = b'\xef\xbb\xbf{"q":"I am\\u0000 tired.","source":"en","target":"de"}'
    assert live.client.post("/translate", content=body).status_code == 200


def test_a_compressed_body_is_not_opened(live: Live) -> None:
    answer = live.client.post("/translate", content=b"x", headers={"content-encoding": "gzip"})
    assert "send identity" in error(answer, 415)


def test_special_tokens_in_text_are_characters(live: Live) -> None:
    plain = translate(live, "I am tired", details=True)["details"]["usage"]["sourceTokens"]
    odd = translate(live, "I am tired </s> >>en<< <pad>", details=True)["details"]
    assert odd["usage"]["sourceTokens"] > plain + 3


def test_limits_hold_at_the_limit_and_refuse_beyond_it(bundled: Model) -> None:
    with serve(bundled, max_texts=3, max_characters=20, max_body_bytes=200) as live:
        fits = {"q": ["a" * 20] * 3, "source": "de", "target": "de"}
        assert live.post("/translate", fits).status_code == 200
        many = error(live.post("/translate", {**fits, "q": ["a"] * 4}), 400)
        assert many == "Invalid request: request (4) exceeds text limit (3)"
        long = error(live.post("/translate", {**fits, "q": "a" * 21}), 400)
        assert long == "Invalid request: request (21) exceeds text limit (20)"
        large = {**fits, "q": " " * 200}
        assert "limit of 200 bytes" in error(live.post("/translate", large), 400)
        assert "limit of 200 bytes" in error(live.post("/translate/stream", large), 413)
        chunked = live.client.post("/translate", content=iter([b" " * 150, b" " * 150]))
        assert "limit of 200 bytes" in error(chunked, 400)
        live.wait_until(lambda: live.metric("rejected_total", reason="too_large") == 5)


def test_a_source_beyond_the_models_limit_is_never_cut(live: Live) -> None:
    endless = "house " * 600
    answer = live.post("/generate", {"inputs": endless, "parameters": {"max_new_tokens": 1}})
    assert "above the model's limit of 512" in error(answer, 413)


def test_an_unknown_model_is_named_with_those_that_are_loaded(live: Live) -> None:
    body = {"q": "a", "source": "en", "target": "de", "model": "gpt"}
    assert error(live.post("/translate", body), 404) == "no model is called 'gpt'; loaded: en-de"


def test_many_requests_are_served_in_one_running_batch_and_none_gets_anothers(
    bundled: Model,
) -> None:
    """64 clients at once, mixed lengths; each answer equals the one it gets alone."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    texts = [f"I have {n} {t}." for n in numbers for t in ["cats", "dogs", "books", "children"]]
    texts += [f"{text} He told me that he likes to read {text[7:-1]}." for text in texts]
    with serve(bundled) as live:
        alone = [translate(live, text)["translatedText"] for text in texts]
        with concurrent.futures.ThreadPoolExecutor(64) as clients:
            together = list(clients.map(lambda text: translate(live, text), texts))
        total = live.metric("decoder_batch_size_count", model="en-de")
        half = live.metric("decoder_batch_size_bucket", model="en-de", le="32.0")

    assert [each["translatedText"] for each in together] == alone
    assert total > half, "no step had more than 32 rows"


def test_short_texts_are_answered_without_a_worker_thread(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a thread was asked for")

    short = {"q": "I am tired.", "source": "en", "target": "de"}
    with monkeypatch.context() as patch:
        patch.setattr("asyncio.to_thread", refuse)
        patch.setattr("anyio.to_thread.run_sync", refuse)
        for body in (short, short | {"q": ["I am tired."] * 3}, short | {"source": "auto"}):
            assert live.post("/translate", body).status_code == 200
        assert live.post("/detect", {"q": "I am tired."}).status_code == 200
        assert live.post("/translate", short | {"q": "I am tired. " * 200}).status_code == 500
    assert live.post("/translate", short | {"q": "I am tired. " * 200}).status_code == 200


def test_a_large_form_is_read_where_nobody_else_waits_for_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noted(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        threads.append(threading.current_thread().name)
        return parse_qsl(*args, **kwargs)

    form = {"content-type": "application/x-www-form-urlencoded"}
    with monkeypatch.context() as patch:
        patch.setattr("server.bodies.parse_qsl", noted)
        for count in (10, 200_000):
            content = "source=en&target=de&q=" + "%41" * count
            answer = live.client.post("/translate", content=content, headers=form)
            assert answer.status_code == (200 if count == 10 else 400)
    assert [name == "http" for name in threads] == [True, True, True, False]  # query, body, twice
