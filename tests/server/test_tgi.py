"""text-generation-inference's dialect, by the hub's client."""

from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from model import Model
from tests.server.live import Live, crowded, serve

SOURCE = ">>de<< I am tired."
TRANSLATION = "Ich bin müde."


@pytest.fixture
def client(live: Live) -> Iterator[InferenceClient]:
    with InferenceClient(live.url, token="any") as made:
        yield made


def test_its_client_generates(client: InferenceClient) -> None:
    assert client.text_generation(SOURCE) == TRANSLATION
    detailed = client.text_generation(
        SOURCE,
        details=True,
        return_full_text=False,
        watermark=False,
        max_new_tokens=40,
        do_sample=False,
        stop=["?"],
        repetition_penalty=1.0,
    )
    assert detailed.generated_text == TRANSLATION
    assert detailed.details is not None
    assert detailed.details.finish_reason == "eos_token"
    assert len(detailed.details.tokens) == detailed.details.generated_tokens
    assert "".join(token.text for token in detailed.details.tokens) == TRANSLATION


def test_its_client_streams(client: InferenceClient) -> None:
    assert "".join(client.text_generation(SOURCE, stream=True)) == TRANSLATION
    *_, last = client.text_generation(SOURCE, stream=True, details=True)
    assert last.generated_text == TRANSLATION
    assert last.details is not None
    assert last.details.finish_reason == "eos_token"
    assert last.details.input_length > 0


def test_its_client_samples_with_a_seed(client: InferenceClient) -> None:
    fields: Any = {"do_sample": True, "temperature": 2.0, "top_k": 50, "max_new_tokens": 20}
    texts = [client.text_generation(SOURCE, seed=seed, **fields) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("pair", [("en", "de"), ("en-US", "de_DE"), ("auto", "de")])
def test_its_client_translates_where_languages_are_named(
    client: InferenceClient, pair: tuple[str, str]
) -> None:
    source, target = pair
    text = "I am tired. How do I get to the station?"
    done = client.translation(text, src_lang=source, tgt_lang=target)
    assert done.translation_text.startswith(TRANSLATION + " ")
    assert "Bahnhof" in done.translation_text


def test_its_client_translates_and_summarises_raw_input_without_languages(
    client: InferenceClient,
) -> None:
    assert client.translation(SOURCE).translation_text == TRANSLATION
    assert client.summarization(SOURCE).summary_text == TRANSLATION
    short = client.summarization(SOURCE, generate_parameters={"max_new_tokens": 2})
    assert TRANSLATION.startswith(short.summary_text)
    beams = client.translation(SOURCE, generate_parameters={"num_beams": 4})
    assert beams.translation_text == TRANSLATION


def test_its_client_asks_for_health_and_information(live: Live) -> None:
    with InferenceClient(live.url, provider="hf-inference", token="any") as client:
        assert client.health_check()
        info = client.get_endpoint_info()
    assert (info["model_id"], info["model_pipeline_tag"]) == ("en-de", "text2text-generation")
    assert (info["max_input_tokens"], info["max_total_tokens"]) == (512, 1023)
    assert info["model_dtype"] == "float32"


def test_its_client_sees_errors_as_its_own(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="best_of"):
        client.text_generation(SOURCE, best_of=2)
    with pytest.raises(ValidationError, match="best_of"):
        client.text_generation(SOURCE, best_of=2, stream=True)
    with pytest.raises(ValidationError, match="limit of 512"):
        client.text_generation("antidisestablishmentarianism " * 200)
    with pytest.raises(HfHubHTTPError, match="fr is not supported"):
        client.translation(SOURCE, src_lang="en", tgt_lang="fr")
    with pytest.raises(HfHubHTTPError, match="truncation"):
        client.summarization(SOURCE, truncation="only_first")


@pytest.mark.parametrize("streams", [False, True])
def test_its_client_sees_a_failure_of_generation(
    client: InferenceClient, live: Live, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    def broken(self: object, *_: object) -> None:
        raise RuntimeError("detokenizing failed")

    monkeypatch.setattr("server.reader.Reader.receive", broken)
    with pytest.raises(GenerationError, match="the model failed on this request"):
        list(client.text_generation(SOURCE, stream=streams))
    assert live.post("/generate", {"inputs": SOURCE}).status_code == 424


def test_its_client_sees_a_full_queue(bundled: Model) -> None:
    with (
        crowded(bundled) as live,
        InferenceClient(live.url) as client,
        pytest.raises(OverloadedError, match="segments wait already"),
    ):
        client.text_generation(SOURCE)


def test_its_clients_key_is_verified(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha") as live:
        with InferenceClient(live.url, token="alpha") as right:
            assert right.text_generation(SOURCE) == TRANSLATION
        with InferenceClient(live.url, token="beta") as wrong, pytest.raises(TextGenerationError):
            wrong.text_generation(SOURCE)
        assert live.post("/", {"inputs": SOURCE}).status_code == 401


@pytest.mark.parametrize("streams", [False, True])
def test_the_root_answers_as_generate_does(live: Live, streams: bool) -> None:
    body = {"inputs": SOURCE, "parameters": {"details": True}}
    path = "/generate_stream" if streams else "/generate"
    root = live.post("/", body | {"stream": streams})
    other = live.post(path, body)
    if streams:
        assert root.text == other.text
        assert root.headers["content-type"].startswith("text/event-stream")
    else:
        assert root.json() == [other.json()]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "missing inputs"),
        ({"inputs": [SOURCE]}, "inputs"),
        ({"inputs": SOURCE, "parameters": {"src_lang": "en"}}, "sent together"),
        ({"inputs": SOURCE, "parameters": {"return_full_text": True}}, "return_full_text"),
        ({"inputs": SOURCE, "parameters": {"generate_parameters": 1}}, "must be an object"),
        (
            {"inputs": "a", "parameters": {"seed": 1, "generate_parameters": {"seed": 2}}},
            "both in parameters",
        ),
        (
            {
                "inputs": "a",
                "parameters": {"src_lang": "en", "tgt_lang": "de", "details": True},
            },
            "details is not served with tgt_lang",
        ),
        (
            {
                "inputs": "a",
                "parameters": {"src_lang": "en", "tgt_lang": "de"},
                "stream": True,
            },
            "stream is not served with tgt_lang",
        ),
    ],
)
def test_the_root_refuses_by_name(live: Live, body: dict[str, Any], sentence: str) -> None:
    answer = live.post("/", body)
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"
