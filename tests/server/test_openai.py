"""OpenAI's dialect, by its own client and by what its wire format says."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from model import Model
from server.routes.openai_fields import CompletionRequest
from tests.server.live import Live, crowded, serve

SOURCE = ">>de<< I am tired."
TRANSLATION = "Ich bin müde."
PAIR = {"source": "en", "target": "de"}
TEXTS = "I am tired. How do I get to the station?"


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url + "/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(live: Live, **fields: Any) -> httpx.Response:
    return live.post("/v1/completions", {"model": "en-de", "prompt": SOURCE, **fields})


def chunks(live: Live, **fields: Any) -> list[dict[str, Any]]:
    lines = ask(live, stream=True, **fields).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


# -- its own client ------------------------------------------------------------------------------


def test_its_client_completes_a_prompt(client: openai.OpenAI, live: Live) -> None:
    done = client.completions.create(model="en-de", prompt=SOURCE)
    (choice,) = done.choices
    assert (choice.text, choice.finish_reason, choice.index) == (TRANSLATION, "stop", 0)
    assert (done.object, done.model) == ("text_completion", "en-de")
    assert done.id.startswith("cmpl-")
    assert done.usage is not None
    raw = live.post("/generate", {"inputs": SOURCE, "parameters": {"details": True}}).json()
    assert done.usage.prompt_tokens == raw["details"]["input_length"]
    assert done.usage.completion_tokens == raw["details"]["generated_tokens"]
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_its_client_completes_several_prompts_in_order(client: openai.OpenAI) -> None:
    prompts = [SOURCE, ">>en<< Ich bin müde.", SOURCE]
    done = client.completions.create(model="en-de", prompt=prompts, max_tokens=30, temperature=0)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert [choice.text for choice in done.choices] == [TRANSLATION, "I'm tired.", TRANSLATION]


def test_its_client_streams(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = client.completions.create(
        model="en-de", prompt=SOURCE, stream=True, stream_options=options
    )
    received = list(stream)
    assert "".join(c.text for chunk in received for c in chunk.choices) == TRANSLATION
    finishes = [c.finish_reason for chunk in received for c in chunk.choices]
    assert finishes[-1] == "stop"
    assert set(finishes[:-1]) == {None}
    assert len({chunk.id for chunk in received}) == 1
    usage = received[-1].usage
    assert received[-1].choices == []
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_its_client_translates_where_a_pair_is_named(client: openai.OpenAI) -> None:
    done = client.completions.create(model="en-de", prompt=TEXTS, extra_body=PAIR)
    assert done.choices[0].text.startswith(TRANSLATION + " ")
    assert "Bahnhof" in done.choices[0].text
    detected = client.completions.create(model="en-de", prompt=TEXTS, extra_body={"target": "de"})
    assert detected.choices[0].text == done.choices[0].text
    streamed = client.completions.create(model="en-de", prompt=TEXTS, stream=True, extra_body=PAIR)
    text = "".join(choice.text for chunk in streamed for choice in chunk.choices)
    assert text == done.choices[0].text


def test_its_client_gets_the_hypotheses_of_a_beam_search(client: openai.OpenAI, live: Live) -> None:
    beams = {"use_beam_search": True}
    done = client.completions.create(
        model="en-de", prompt=[SOURCE, SOURCE], n=2, best_of=4, extra_body=beams
    )
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    parameters = {"num_beams": 4, "num_return_sequences": 2}
    raw = live.post("/generate", {"inputs": SOURCE, "parameters": parameters}).json()
    expected = [sequence["generated_text"] for sequence in raw["sequences"]]
    assert [choice.text for choice in done.choices] == expected * 2
    one = client.completions.create(
        model="en-de", prompt=SOURCE, extra_body={"num_beams": 4, "length_penalty": 2.0}
    )
    assert one.choices[0].text == TRANSLATION


def test_its_clients_usual_values_are_accepted(client: openai.OpenAI) -> None:
    done = client.completions.create(
        model="en-de",
        prompt=SOURCE,
        temperature=0,
        top_p=1,
        n=1,
        best_of=1,
        seed=1234,
        echo=False,
        suffix="",
        logit_bias={},
        presence_penalty=0,
        frequency_penalty=0.0,
        stop=["\n"],
        user="somebody",
    )
    assert done.choices[0].text == TRANSLATION


def test_its_client_gets_the_scores_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    done = client.completions.create(
        model="en-de", prompt=[TEXTS, "I like it."], logprobs=0, extra_body=PAIR
    )
    for choice in done.choices:
        assert choice.logprobs is not None
        tokens, scores = choice.logprobs.tokens, choice.logprobs.token_logprobs
        offsets = choice.logprobs.text_offset
        assert tokens is not None
        assert scores is not None
        assert offsets is not None
        assert len(tokens) == len(scores) == len(offsets)
        assert all(score <= 0 for score in scores)
        for token, offset in zip(tokens, offsets, strict=True):
            assert choice.text[offset:].startswith(token)
    pieces = chunks_of_logprobs(client)
    assert pieces == done.choices[0].logprobs.tokens  # type: ignore[union-attr]


def test_the_offsets_of_a_sentence_are_right_after_a_placeholder(live: Live) -> None:
    prompt = "I like {a_rather_long_name}. I am tired."
    (choice,) = ask(live, prompt=prompt, logprobs=0, **PAIR).json()["choices"]
    assert choice["text"].endswith(" " + TRANSLATION)
    found = choice["logprobs"]
    assert found["tokens"][-4:] == ["Ich", " bin", " müde", "."]
    for token, offset in zip(found["tokens"][-4:], found["text_offset"][-4:], strict=True):
        assert choice["text"][offset:].startswith(token)


def chunks_of_logprobs(client: openai.OpenAI) -> list[str]:
    stream = client.completions.create(
        model="en-de", prompt=TEXTS, logprobs=0, stream=True, extra_body=PAIR
    )
    found: list[str] = []
    for chunk in stream:
        for choice in chunk.choices:
            found += (choice.logprobs.tokens or []) if choice.logprobs else []
    return found


def test_the_length_is_a_finish_reason(client: openai.OpenAI) -> None:
    done = client.completions.create(model="en-de", prompt=SOURCE, max_tokens=2)
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None
    assert done.usage.completion_tokens == 2


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    def sampled(seed: int) -> str:
        done = client.completions.create(
            model="en-de", prompt=SOURCE, temperature=2, top_p=0.9, seed=seed, max_tokens=20
        )
        return done.choices[0].text

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_its_client_lists_models(client: openai.OpenAI, live: Live) -> None:
    (listed,) = client.models.list().data
    assert (listed.id, listed.object) == ("en-de", "model")
    assert client.models.retrieve("en-de") == listed
    counted = {"route": "/v1/models/{name:path}", "outcome": "invalid"}
    before = live.metric("requests_total", **counted)
    with pytest.raises(openai.NotFoundError, match="loaded: en-de"):
        client.models.retrieve("gpt-3.5-turbo-instruct")
    live.wait_until(lambda: live.metric("requests_total", **counted) == before + 1)


def test_its_client_sees_errors_as_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="gpt-3.5-turbo-instruct", prompt=SOURCE)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.type == "invalid_request_error"
    assert "loaded: en-de" in unknown.value.message
    with pytest.raises(openai.BadRequestError, match="token ids are not read"):
        client.completions.create(model="en-de", prompt=[1, 2, 3])
    with pytest.raises(openai.BadRequestError, match="fr is not supported"):
        client.completions.create(model="en-de", prompt="a", extra_body={"target": "fr"})
    with pytest.raises(openai.NotFoundError, match="prompt` to /v1/completions"):
        client.chat.completions.create(
            model="en-de", messages=[{"role": "user", "content": SOURCE}]
        )


def test_its_clients_key_is_verified(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha") as live:
        url = live.url + "/v1"
        with openai.OpenAI(base_url=url, api_key="alpha", max_retries=0) as right:
            assert right.completions.create(model="en-de", prompt=SOURCE).choices
        with openai.OpenAI(base_url=url, api_key="beta", max_retries=0) as wrong:
            with pytest.raises(openai.AuthenticationError) as refused:
                wrong.completions.create(model="en-de", prompt=SOURCE)
            assert refused.value.code == "invalid_api_key"
        assert ask(live).status_code == 401


def test_a_full_queue_is_its_rate_limit(bundled: Model) -> None:
    with (
        crowded(bundled) as live,
        openai.OpenAI(base_url=live.url + "/v1", api_key="a", max_retries=0) as client,
    ):
        for streams in (False, True):
            with pytest.raises(openai.RateLimitError, match="segments wait already") as refused:
                client.completions.create(model="en-de", prompt=SOURCE, stream=streams)
            assert refused.value.type == "rate_limit_error"


def test_its_client_sees_a_failure_inside_a_stream(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("detokenizing failed")

    with monkeypatch.context() as patch:
        patch.setattr("server.reading.Reader.take", broken)
        stream = client.completions.create(model="en-de", prompt=SOURCE, stream=True)
        with pytest.raises(openai.APIError, match="something failed in the server"):
            list(stream)


# -- its wire format -----------------------------------------------------------------------------


def test_chunks_are_as_its_specification_has_them(live: Live) -> None:
    *told, finish, usage = chunks(live, stream_options={"include_usage": True})
    for chunk in told:
        assert set(chunk) == {"id", "object", "created", "model", "choices", "usage"}
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        assert choice["logprobs"] is choice["finish_reason"] is None
    (choice,) = finish["choices"]
    assert choice == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    assert (usage["choices"], set(usage["usage"])) == (
        [],
        {"prompt_tokens", "completion_tokens", "total_tokens"},
    )
    assert all("usage" not in chunk for chunk in chunks(live))


def test_a_stream_tells_several_prompts_apart(live: Live) -> None:
    texts = {0: "", 1: ""}
    for chunk in chunks(live, prompt=[SOURCE, ">>en<< Ich bin müde."]):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == {0: TRANSLATION, 1: "I'm tired."}


def test_a_stream_is_refused_with_a_status(live: Live) -> None:
    answer = ask(live, stream=True, temperature=-1)
    assert answer.status_code == 400
    assert "temperature" in answer.json()["error"]["message"]


def test_what_was_cut_is_told(live: Live) -> None:
    cut = {"prompt": TEXTS, "max_tokens": 2, **PAIR}
    warnings = ask(live, **cut).json()["warnings"]
    assert warnings[0].startswith("text 0: segment 0 was cut at 2 tokens")
    assert chunks(live, **cut)[-1]["warnings"] == warnings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": []}, "prompt must not be empty"),
        ({"prompt": [[1, 2]]}, "token ids are not read"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"model": None}, "model"),
        ({"nonsense": 1}, "'nonsense' is not a field"),
        ({"source": "en"}, "source has no effect without target"),
        ({"stream_options": {"include_usage": True}}, "stream_options has no effect"),
        ({"max_tokens": 1, "max_new_tokens": 2}, "not both"),
        ({"alignments": True}, "alignments are not shown here"),
        ({"num_return_sequences": 2}, "is called n"),
        ({"n": 2}, "send use_beam_search"),
        ({"best_of": 2}, "send use_beam_search"),
        ({"use_beam_search": True}, "needs best_of"),
        ({"use_beam_search": True, "n": 3, "best_of": 2}, "at least n"),
        ({"use_beam_search": False, "num_beams": 2}, "contradicts"),
        ({"use_beam_search": True, "num_beams": 3, "best_of": 2}, "contradict each other"),
        ({"num_beams": 3, "best_of": 2}, "contradict each other"),
        ({"use_beam_search": True, "num_beams": 1}, "needs best_of"),
        ({"num_beams": 2, "n": 3}, "num_return_sequences must be"),
        ({"n": 2, "use_beam_search": True, "stream": True}, "leave out n"),
        ({"n": 2, "use_beam_search": True, "logprobs": 0}, "leave out n"),
        ({"logprobs": 5}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"top_p": 0.5, "temperature": 0}, "top_p has no effect"),
        ({"prompt": "a" * 20_001}, "exceeds text limit (20000)"),
        ({"prompt": ["a"] * 1001}, "exceeds text limit (1000)"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    live: Live, fields: dict[str, Any], message: str
) -> None:
    answer = ask(live, **fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["type"] == "invalid_request_error"


def test_usage_counts_the_tokens_of_every_choice(live: Live) -> None:
    fields = {"prompt": [SOURCE, SOURCE], "num_beams": 2, "use_beam_search": True, "max_tokens": 3}
    one, two = (ask(live, **fields, n=n).json() for n in (1, 2))
    assert [choice["finish_reason"] for choice in two["choices"]] == ["length"] * 4
    assert one["usage"]["completion_tokens"] == 2 * 3
    assert two["usage"]["completion_tokens"] == 4 * 3
    assert two["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"use_beam_search": False}, {"num_beams": 1}),
        ({"use_beam_search": False, "n": 1, "best_of": 1}, {"num_beams": 1}),
        ({}, {"num_beams": None}),
        ({"top_p": 1, "temperature": 0.7}, {"top_p": 1}),
        ({"top_p": 1, "do_sample": True}, {"top_p": 1}),
        ({"top_p": 1, "temperature": 0}, {"top_p": None}),
        ({"top_p": 1}, {"top_p": None}),
    ],
)
def test_what_is_said_is_not_left_to_the_models_own_defaults(
    sent: dict[str, Any], meant: dict[str, Any]
) -> None:
    decoding = CompletionRequest(model="m", prompt="a", **sent).decoding()
    assert {name: getattr(decoding, name) for name in meant} == meant
