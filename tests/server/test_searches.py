"""Beam search and what comes with it, asked for over HTTP of the bundled model."""

import itertools
import warnings
from typing import Any
from urllib.parse import urlencode

import pytest
import torch
from transformers import MarianMTModel, MarianTokenizer

from model import BUNDLED, Model
from server.text.cutting import cut
from server.text.rules import PLAIN
from tests.model.conftest import HELDOUT
from tests.server.live import Live, gated, serve
from tests.server.test_stream import send_and_leave, stream
from tests.server.test_translate import error, translate

LONG = (
    "When the old man had finished his story, the children who had been listening to him since "
    "the morning asked him to tell them another one before the sun went down behind the hills"
)


def sentences(count: int) -> list[str]:
    """Held-out texts of one segment each."""
    lines = HELDOUT.read_text(encoding="utf-8").splitlines()
    texts = (line.split("\t")[0] for line in lines)
    single = (text for text in texts if len(cut(text, "en", PLAIN)) == 1 and len(text) > 30)
    return list(itertools.islice(single, count))


def test_beams_translate_as_the_beams_of_transformers(live: Live, bundled: Model) -> None:
    with warnings.catch_warnings():  # MarianTokenizer recommends sacremoses, unused here
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = MarianTokenizer.from_pretrained(BUNDLED)
    reference: Any = MarianMTModel.from_pretrained(BUNDLED, dtype=torch.float32)
    texts = sentences(5)
    expected = []
    for text in texts:
        source = tokenizer([f">>de<< {text}"], return_tensors="pt").input_ids
        assert bundled.tokenizer.prompt(text, "en", "de").source == tuple(source[0].tolist())
        limit = 2 * source.shape[1] + 32
        out = reference.generate(
            source, num_beams=4, num_return_sequences=3, do_sample=False, max_new_tokens=limit
        )
        expected.append(tokenizer.batch_decode(out, skip_special_tokens=True))

    answer = translate(live, texts, num_beams=4, num_return_sequences=3)

    assert answer["translatedText"] == [best for best, *_ in expected]
    found = [[each["text"] for each in hypotheses] for hypotheses in answer["hypotheses"]]
    assert found == expected
    assert translate(live, texts, num_beams=4)["translatedText"] == answer["translatedText"]


def test_hypotheses_come_best_first_with_scores_that_are_numbers(live: Live) -> None:
    body = translate(live, sentences(1)[0], num_beams=4, num_return_sequences=4)

    scores = [each["score"] for each in body["hypotheses"]]
    assert scores == sorted(scores, reverse=True)
    assert len({each["text"] for each in body["hypotheses"]}) == 4
    assert body["hypotheses"][0]["text"] == body["translatedText"]
    assert list(body) == ["translatedText", "hypotheses"]


def test_a_forced_first_token_and_a_limit_of_one_leave_one_hypothesis(live: Live) -> None:
    beams = {"num_beams": 4, "num_return_sequences": 4}
    forced = {"forced_bos_token": "▁Ich", "max_new_tokens": 1}
    body = translate(live, "I am tired.", **beams, **forced)

    assert [each["text"] for each in body["hypotheses"]] == ["Ich"]
    assert body["hypotheses"][0]["score"] == 0.0


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_alternatives_differ_from_the_translation_which_stays_as_it_is(
    live: Live, more: dict[str, Any]
) -> None:
    texts = sentences(3)
    plain = translate(live, texts, **more)["translatedText"]

    body = translate(live, texts, alternatives=3, **more)

    assert body["translatedText"] == plain
    for text, others in zip(plain, body["alternatives"], strict=True):
        assert 2 <= len(others) <= 3
        assert len({text, *others}) == 1 + len(others)
    single = translate(live, texts[0], alternatives=1, **more)
    assert single["alternatives"] == body["alternatives"][0][:1]


def test_alternatives_of_several_sentences_are_whole_texts(live: Live) -> None:
    text = "I am tired.  Where is the station?\n"
    body = translate(live, text, alternatives=2)

    assert body["translatedText"] == translate(live, text)["translatedText"]
    others = body["alternatives"]
    assert len({body["translatedText"], *others}) == 1 + len(others) > 1
    assert all(other.count("  ") == 1 and other.endswith("\n") for other in others)


def test_alternatives_branch_after_what_is_forced_to_come_first(live: Live) -> None:
    body = translate(live, "I am tired.", alternatives=3, forced_bos_token="▁Ich")

    assert len(body["alternatives"]) >= 2
    assert all(text.startswith("Ich") for text in [body["translatedText"], *body["alternatives"]])


@pytest.mark.parametrize("more", [{}, {"num_beams": 4}, {"alternatives": 2}])
def test_the_answer_begins_with_the_target_prefix(live: Live, more: dict[str, Any]) -> None:
    body = translate(live, "I am very tired.", target_prefix="Tom ist", **more)

    for text in [body["translatedText"], *body.get("alternatives", [])]:
        assert text.startswith("Tom ist ")
        assert text.count("Tom") == 1
        assert len(text) > len("Tom ist ")


def test_a_stop_string_ends_what_follows_the_prefix_not_the_prefix(live: Live) -> None:
    prefixed = {"q": "I am very tired.", "target_prefix": "Ich bin"}
    whole = translate(live, **prefixed)["translatedText"]

    body = translate(live, **prefixed, stop=["Ich", "bin", "."])

    assert body["translatedText"] == whole.rstrip(".")
    sent = prefixed | {"source": "en", "target": "de", "stop": ["Ich", "bin", "."]}
    received = stream(live, sent)
    assert "".join(d["text"] for n, d in received if n == "delta") == body["translatedText"]


@pytest.mark.parametrize("more", [{}, {"num_beams": 4}], ids=["greedy", "beams"])
def test_alignments_have_a_row_for_each_target_token(live: Live, more: dict[str, Any]) -> None:
    text = sentences(1)[0]
    plain = translate(live, text, **more)["translatedText"]

    seen = []
    for wanted in (True, "average", 0, 2):
        body = translate(live, text, alignments=wanted, **more)
        assert body["translatedText"] == plain
        (segment_,) = body["alignments"]
        assert segment_["source"][0] == ">>de<<"
        assert segment_["source"][-1] == "</s>"
        assert "".join(segment_["target"]).replace("▁", " ").strip() == plain
        assert len(segment_["weights"]) == len(segment_["target"])
        for row in segment_["weights"]:
            assert len(row) == len(segment_["source"])
            assert sum(row) == pytest.approx(1, abs=0.01)
        seen.append(segment_["weights"])
    assert seen[0] == seen[1] != seen[2] != seen[3] != seen[0]


def test_alignments_come_by_segment_and_survive_a_stop_string(live: Live) -> None:
    text = "I am tired.  Where is the station?"
    answer = translate(live, [text, "Hi."], alignments=True)
    assert [len(segments) for segments in answer["alignments"]] == [2, 1]

    stopped = translate(live, text, alignments=True, stop=["ist"])
    assert len(stopped["alignments"]) == 2


def test_tokens_that_are_suppressed_do_not_come(live: Live, bundled: Model) -> None:
    plain = translate(live, "I am tired.", num_beams=2)["translatedText"]
    token = bundled.tokenizer.encode_target(plain)[0]

    body = translate(live, "I am tired.", num_beams=2, suppress_tokens=[token], alignments=True)

    assert body["translatedText"] != plain
    assert bundled.tokenizer.target_token(token) not in body["alignments"][0]["target"]


@pytest.mark.parametrize("early", [True, False, "never"])
def test_early_stopping_takes_all_its_values(live: Live, early: bool | str) -> None:
    body = translate(live, "I am tired.", num_beams=4, early_stopping=early, length_penalty=0.5)
    assert "müde" in body["translatedText"]


@pytest.mark.parametrize(
    ("more", "status", "sentence"),
    [
        ({"num_beams": 4, "num_return_sequences": 2, "stop": "."}, 400, "leave out num_return"),
        ({"num_beams": 4, "num_return_sequences": 5}, 400, "between 1 and num_beams"),
        ({"num_beams": 4, "num_return_sequences": 0}, 400, "between 1 and num_beams"),
        ({"num_return_sequences": 2}, 400, "without beam search"),
        ({"num_beams": 4, "temperature": 0.7}, 400, "send only one of them"),
        ({"num_beams": 0}, 400, "between 1 and 64"),
        ({"alternatives": 2, "stop": "."}, 400, "leave out alternatives, or stop"),
        ({"alternatives": 33}, 400, "alternatives"),
        ({"alignments": 3}, 400, "true, average or a layer below 3"),
        ({"alignments": -1}, 400, "true, average or a layer below 3"),
        ({"alignments": "middle"}, 400, "alignments"),
        ({"early_stopping": "always", "num_beams": 2}, 400, "early_stopping"),
        ({"suppress_tokens": [8003]}, 400, "ids from 0 to 8002"),
        ({"target_prefix": "Ich", "q": "I am. You are."}, 400, "send sentences singly"),
        ({"target_prefix": "   "}, 400, "target_prefix cannot be written"),
        ({"num_beams": 17}, 400, "num_beams must be at most 16 on this server"),
        ({"alternatives": 16}, 400, "alternatives parameter must be <= 15"),
        ({"preview": True}, 400, "send it to /translate/stream"),
        ({"forced_bos_token": "nowhere"}, 400, "not in the model's vocabulary"),
        ({"num_beams": 2, "early_stopping": "Never"}, 400, "early_stopping: Input"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    live: Live, more: dict[str, Any], status: int, sentence: str
) -> None:
    body = {"q": "I am tired.", "source": "en", "target": "de"} | more
    assert sentence in error(live.post("/translate", body), status)


def test_more_hypotheses_than_slots_are_refused_at_the_door(bundled: Model) -> None:
    with serve(bundled, slots=3) as live:
        body = {"q": "I am tired.", "source": "en", "target": "de"}
        for more, rows in (({"num_beams": 4}, 4), ({"alternatives": 3}, 4)):
            sentence = f"{rows} hypotheses at once exceed this server's limit of 3"
            answer = live.post("/translate/stream", body | more)
            assert (answer.status_code, answer.json()["detail"]) == (413, sentence)
            # LibreTranslate knows only 400 for what is too large.
            assert error(live.post("/translate", body | more), 400) == sentence
        assert "müde" in translate(live, "I am tired.", num_beams=3)["translatedText"]


def test_more_attention_than_an_answer_may_hold_is_refused(live: Live) -> None:
    body = {"q": [LONG] * 300, "source": "en", "target": "de", "max_new_tokens": 500}
    answer = live.post("/translate", body | {"alignments": True})
    assert "exceed the limit of 4194304; send less text" in error(answer, 400)


@pytest.mark.parametrize("place", ["form", "query"])
def test_forms_and_queries_say_the_same_as_json(live: Live, place: str) -> None:
    text = {"q": "I am tired.", "source": "en", "target": "de"}
    more = {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2}
    for alignments in (True, 0, 1, "average"):
        wanted = more | {"alignments": alignments}
        sent = {name: str(value).lower() for name, value in wanted.items()}
        if place == "form":
            answer = live.client.post("/translate", data=text | sent)
        else:
            answer = live.post(f"/translate?{urlencode(sent)}", text)
        assert answer.status_code == 200, answer.text
        assert answer.json() == translate(live, **text, **wanted)


def test_a_beam_stream_is_certain_of_what_it_says_long_before_its_end(live: Live) -> None:
    body = {"q": LONG, "source": "en", "target": "de", "num_beams": 4}
    expected = translate(live, LONG, num_beams=4)["translatedText"]

    received = stream(live, body)

    names = [name for name, _ in received]
    assert names == ["delta"] * (len(names) - 1) + ["done"]
    assert len(names) > 4
    assert "".join(data["text"] for _, data in received[:-1]) == expected
    assert received[-1][1]["translatedText"] == expected


def test_a_beam_stream_ends_with_what_else_was_asked_for(live: Live) -> None:
    more = {"num_beams": 4, "num_return_sequences": 2, "alternatives": 1, "alignments": 1}
    plain = translate(live, "I am tired.", **more)

    *_, (_, done) = stream(live, {"q": "I am tired.", "source": "en", "target": "de"} | more)

    for name in ("translatedText", "hypotheses", "alternatives", "alignments"):
        assert done[name] == plain[name]


@pytest.mark.parametrize("stop", [[], ["Geschichte"]], ids=["", "stopped"])
def test_a_preview_completes_what_is_certain_until_the_next_one(
    live: Live, stop: list[str]
) -> None:
    text = f"{LONG}. {LONG}!"
    body = {"q": text, "source": "en", "target": "de", "num_beams": 4, "stop": stop}
    expected = translate(live, text, num_beams=4, stop=stop)["translatedText"]

    received = stream(live, body | {"preview": True})

    certain, previews = {0: ""}, {0: ""}
    shown = []
    for name, data in received[:-1]:
        if name == "delta":
            certain[data["segment"]] = certain.get(data["segment"], "") + data["text"]
        else:
            assert name == "preview"
            previews[data["segment"]] = data["text"]
            shown.append(certain.get(data["segment"], "") + data["text"])
    assert "".join(certain.values()) == expected
    assert not any(previews.values()), "the last one was taken back"
    assert len(shown) > 10
    assert all(word not in each for each in shown for word in stop)
    assert "preview" not in {name for name, _ in stream(live, body)}


def test_a_client_that_leaves_a_beam_stream_frees_all_its_rows(bundled: Model) -> None:
    model, gate = gated(bundled)
    body = {"q": LONG, "source": "en", "target": "de", "num_beams": 4, "min_new_tokens": 60}
    with serve(model, slots=8) as live:
        gate.close()
        leaving = send_and_leave(live, "/translate/stream", body | {"max_new_tokens": 90})
        gate.allow(20)
        live.wait_until(lambda: live.metric("slots_used", model="en-de") == 4)
        live.wait_until(lambda: gate.steps >= 20)
        leaving.close()
        route = "/translate/stream"
        live.wait_until(
            lambda: live.metric("requests_total", route=route, outcome="cancelled") == 1
        )
        gate.allow(1)
        live.wait_until(lambda: live.metric("slots_used", model="en-de") == 0)
        assert live.held == 0
        gate.open()
        assert "müde" in translate(live, "I am tired.", num_beams=8)["translatedText"]


def test_generate_searches_too(live: Live) -> None:
    parameters = {"num_beams": 4, "num_return_sequences": 3, "details": True, "alignments": True}
    body = {"inputs": ">>de<< I am tired.", "parameters": parameters}

    plain = live.post("/generate", body).json()

    assert plain["generated_text"] == translate(live, "I am tired.", num_beams=4)["translatedText"]
    assert plain["sequences"][0]["generated_text"] == plain["generated_text"]
    assert len({each["generated_text"] for each in plain["sequences"]}) == 3
    assert set(plain["sequences"][0]) == {"generated_text", "score", "finish_reason"}
    tokens = plain["details"]["tokens"]
    assert "".join(token["text"] for token in tokens) == plain["generated_text"]
    assert plain["details"]["generated_tokens"] == len(tokens)
    assert all(token["logprob"] < 0 for token in tokens)
    assert [token["alignment"] for token in tokens] == plain["alignments"]["weights"]

    received = [data for _, data in stream(live, body, "/generate_stream")]
    assert [each["token"] for each in received] == tokens
    assert received[-1]["generated_text"] == plain["generated_text"]
    assert received[-1]["sequences"] == plain["sequences"]


def test_hypotheses_of_several_sentences_are_whole_texts_rank_by_rank(live: Live) -> None:
    first, second = "I am tired.", "Where is the station?"
    asked: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3}
    singles = [translate(live, text, **asked)["hypotheses"] for text in (first, second)]

    found = translate(live, f"{first}  {second}\n", **asked)["hypotheses"]

    for whole, *parts in zip(found, *singles, strict=True):
        assert whole["text"] == f"{parts[0]['text']}  {parts[1]['text']}\n"
        assert whole["score"] == pytest.approx(parts[0]["score"] + parts[1]["score"], abs=2e-6)
    assert translate(live, "12:30 🙂", **asked)["hypotheses"] == []
