"""DeepL's dialect, by its own client and by the requests that others send."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import deepl
import httpx
import pytest
from deepl.__main__ import main

from model import Model
from server.routes.deepl_fields import TranslateFields
from tests.server.live import Live, crowded, gated, serve

SOURCE = "I am tired."
TRANSLATION = "Ich bin müde."
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def client(live: Live) -> Iterator[deepl.DeepLClient]:
    with closing(deepl.DeepLClient("any", server_url=live.url)) as made:
        yield made


@pytest.fixture(autouse=True)
def without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepl.http_client.max_network_retries", 0)


def ask(live: Live, **fields: Any) -> httpx.Response:
    return live.post("/v2/translate", {"text": [SOURCE], "target_lang": "DE", **fields})


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["translations"]
    text: str = one["text"]
    return text


# -- its own client ------------------------------------------------------------------------------


def test_its_client_translates_one_text(client: deepl.DeepLClient) -> None:
    result = client.translate_text(SOURCE, source_lang="EN", target_lang="DE")
    assert isinstance(result, deepl.TextResult)
    assert (result.text, result.detected_source_lang) == (TRANSLATION, "EN")
    assert result.billed_characters == len(SOURCE)
    assert result.model_type_used is None


def test_its_client_translates_several_texts_in_order_and_detects_each(
    client: deepl.DeepLClient,
) -> None:
    texts = [SOURCE, "", "Ich bin sehr müde und möchte schlafen.", "How do I get to the station?"]
    results = client.translate_text(texts, target_lang="DE")
    assert isinstance(results, list)
    assert [result.detected_source_lang for result in results] == ["EN", "EN", "DE", "EN"]
    assert results[0].text == TRANSLATION
    assert results[1].text == ""
    assert results[2].text == texts[2]
    assert "Bahnhof" in results[3].text
    assert [result.billed_characters for result in results] == [len(text) for text in texts]


@pytest.mark.parametrize("target", ["EN-GB", "EN-US"])
def test_varieties_of_a_language_are_served_as_the_language(
    client: deepl.DeepLClient, target: str
) -> None:
    result = client.translate_text("Ich bin müde.", source_lang="DE", target_lang=target)
    assert isinstance(result, deepl.TextResult)
    assert "tired" in result.text


def test_its_clients_options_that_we_serve_are_accepted(client: deepl.DeepLClient) -> None:
    result = client.translate_text(
        SOURCE,
        target_lang="DE",
        context="Somebody has worked all night.",
        split_sentences=deepl.SplitSentences.NO_NEWLINES,
        preserve_formatting=True,
        formality=deepl.Formality.PREFER_LESS,
        tag_handling_version="v2",
        model_type="prefer_quality_optimized",
    )
    assert isinstance(result, deepl.TextResult)
    assert result.model_type_used == "quality_optimized"
    assert "müde" in result.text


def test_its_client_lists_languages_and_usage(client: deepl.DeepLClient, live: Live) -> None:
    sources = {language.code: language.name for language in client.get_source_languages()}
    assert sources == {"DE": "German", "EN": "English"}
    targets = client.get_target_languages()
    assert [language.code for language in targets] == ["DE", "EN-GB", "EN-US"]
    assert [language.supports_formality for language in targets] == [False] * 3
    before = client.get_usage().character
    client.translate_text(SOURCE, target_lang="DE")
    with pytest.raises(deepl.DeepLException):
        client.translate_text(SOURCE, target_lang="JA")
    after = client.get_usage()
    assert before.count is not None
    assert after.character.count == before.count + len(SOURCE)
    assert not after.any_limit_reached


def test_its_client_is_told_that_there_are_no_glossaries(client: deepl.DeepLClient) -> None:
    assert client.get_glossary_languages() == []
    assert client.list_glossaries() == []
    assert client.list_multilingual_glossaries() == []
    with pytest.raises(deepl.DeepLException, match="this server stores none"):
        client.create_glossary("mine", "EN", "DE", {"artist": "Maler"})
    with pytest.raises(deepl.GlossaryNotFoundException, match="no such glossary"):
        client.get_glossary("1")
    with pytest.raises(deepl.DeepLException, match=r"'glossary_id' not supported: no glossaries"):
        client.translate_text(SOURCE, source_lang="EN", target_lang="DE", glossary="1")


def test_its_client_is_told_that_documents_are_not_served(client: deepl.DeepLClient) -> None:
    with pytest.raises(deepl.DeepLException, match="send their text to /v2/translate"):
        client.translate_document_upload(SOURCE, target_lang="DE", filename="a.txt")
    with pytest.raises(deepl.DeepLException, match="no such document"):
        client.translate_document_get_status(deepl.DocumentHandle("1", "2"))


def test_its_client_is_told_which_language_is_not_supported(client: deepl.DeepLClient) -> None:
    with pytest.raises(deepl.DeepLException, match=r"Value for 'target_lang' not supported\. JA"):
        client.translate_text(SOURCE, target_lang="JA")
    with pytest.raises(deepl.DeepLException, match=r"Value for 'source_lang' not supported\. JA"):
        client.translate_text(SOURCE, source_lang="JA", target_lang="DE")
    with pytest.raises(deepl.DeepLException, match="'formality' is not supported"):
        client.translate_text(SOURCE, target_lang="DE", formality=deepl.Formality.MORE)


def test_its_command_line_translates(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["deepl", "--auth-key", "any", "--server-url", live.url]
    monkeypatch.setattr("sys.argv", [*where, "text", "--to", "DE", SOURCE])
    main()  # type: ignore[no-untyped-call]
    assert capsys.readouterr().out.strip() == TRANSLATION
    tagged = ["text", "--to", "DE", "--tag-handling", "html", "I am tired."]
    monkeypatch.setattr("sys.argv", [*where, *tagged])
    main()  # type: ignore[no-untyped-call]
    assert capsys.readouterr().out.strip() == TRANSLATION


def test_keys_are_accepted_where_deepls_clients_put_them(bundled: Model) -> None:
    with serve(bundled, api_keys="alpha") as live:
        with closing(deepl.Translator("alpha", server_url=live.url)) as right:
            assert right.translate_text(SOURCE, target_lang="DE").text == TRANSLATION  # type: ignore[union-attr]
        with closing(deepl.Translator("beta", server_url=live.url)) as wrong:
            for call in (wrong.get_usage, wrong.get_source_languages, wrong.list_glossaries):
                with pytest.raises(deepl.AuthorizationException, match="Invalid API key"):
                    call()
            with pytest.raises(deepl.AuthorizationException):
                wrong.translate_text(SOURCE, target_lang="DE")
            with pytest.raises(deepl.AuthorizationException):
                wrong.translate_document_upload(SOURCE, target_lang="DE", filename="a.txt")
        form = {"text": SOURCE, "target_lang": "DE"}
        misskey = live.client.post("/v2/translate", data={**form, "auth_key": "alpha"})
        assert text_of(misskey) == TRANSLATION
        query = live.client.get("/v2/translate", params={**form, "auth_key": "alpha"})
        assert text_of(query) == TRANSLATION
        assert live.client.get("/v2/usage", params={"auth_key": "beta"}).status_code == 403
        missing = live.post("/v2/translate", form)
        assert missing.status_code == 403
        assert isinstance(missing.json()["message"], str)
        assert isinstance(missing.json()["detail"], str)
        bearer = live.post("/v2/translate", form, headers={"authorization": "Bearer alpha"})
        assert text_of(bearer) == TRANSLATION


# -- what others send ----------------------------------------------------------------------------


def test_mastodons_form_with_repeated_texts(live: Live) -> None:
    body = "text=I+am+tired.&text=I+like+it.&source_lang&target_lang=DE"
    key = {"authorization": "DeepL-Auth-Key k"}
    answer = live.client.post("/v2/translate", content=body, headers=FORM | key).json()
    assert [one["detected_source_language"] for one in answer["translations"]] == ["EN", "EN"]
    assert answer["translations"][0]["text"] == TRANSLATION
    listed = live.client.get("/v2/languages", params={"type": "target"}, headers=key).json()
    assert [one["language"] for one in listed] == ["DE", "EN-GB", "EN-US"]


def test_weblates_requests(live: Live) -> None:
    key = {"authorization": "DeepL-Auth-Key k"}
    for kind in ("source", "target"):
        listed = live.client.get("/v2/languages", params={"type": kind}, headers=key)
        assert {"language", "name"} <= set(listed.json()[0])
    pairs = live.client.get("/v2/glossary-language-pairs", headers=key)
    assert pairs.json() == {"supported_languages": []}
    body = {"text": [SOURCE], "source_lang": "EN", "target_lang": "DE", "formality": "default"}
    body |= {"tag_handling": "xml", "ignore_tags": ["x"]}
    assert text_of(live.post("/v2/translate", body, headers=key)) == TRANSLATION


def test_subtitle_edits_form(live: Live) -> None:
    form = {"text": SOURCE, "target_lang": "de", "source_lang": "en", "formality": "default"}
    assert text_of(live.client.post("/v2/translate", data=form)) == TRANSLATION


def test_deep_translators_query(live: Live) -> None:
    query = {"auth_key": "k", "source_lang": "en", "target_lang": "de", "text": SOURCE}
    answer = live.client.get("/v2/translate", params=query)
    assert text_of(answer) == TRANSLATION
    assert text_of(live.client.post("/v2/translate", params=query)) == TRANSLATION


def test_deepl_nodes_form_spells_booleans_as_numbers(live: Live) -> None:
    body = (
        "text=I+am+tired.&target_lang=de&show_billed_characters=1&split_sentences=0"
        "&preserve_formatting=0&tag_handling=xml&outline_detection=0&ignore_tags=x%2Cy"
    )
    assert text_of(live.client.post("/v2/translate", content=body, headers=FORM)) == TRANSLATION


# -- its contract --------------------------------------------------------------------------------


def test_every_response_carries_the_trace_id(live: Live) -> None:
    sent = {"x-request-id": "abc"}
    answers = [
        live.post("/v2/translate", {"text": [SOURCE], "target_lang": "DE"}, headers=sent),
        live.post("/v2/translate", {"text": [SOURCE]}, headers=sent),
        live.client.get("/v2/usage", headers=sent),
        live.client.get("/v2/glossaries/1", headers=sent),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 200, 404]
    assert [answer.headers["x-trace-id"] for answer in answers] == ["abc"] * 4
    assert "x-trace-id" not in live.client.get("/version").headers


def test_a_context_is_reported_as_not_used(live: Live) -> None:
    told = ask(live, context="He has worked all night.").json()
    assert told["warnings"] == ["context was not used: the models read one sentence at a time"]
    assert "warnings" not in ask(live, context="").json()


def test_the_type_of_model_is_a_width_of_search(live: Live) -> None:
    used = {
        kind: ask(live, model_type=kind).json()["translations"][0]["model_type_used"]
        for kind in ("latency_optimized", "quality_optimized", "prefer_quality_optimized")
    }
    assert used == {
        "latency_optimized": "latency_optimized",
        "quality_optimized": "quality_optimized",
        "prefer_quality_optimized": "quality_optimized",
    }


def test_quality_is_refused_where_there_is_no_beam_search(bundled: Model) -> None:
    with serve(bundled, max_beams=1) as live:
        assert "needs beam search" in ask(live, model_type="quality_optimized").json()["message"]
        (one,) = ask(live, model_type="prefer_quality_optimized").json()["translations"]
        assert one["model_type_used"] == "latency_optimized"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": []}, "Parameter 'text' not specified."),
        ({"text": None}, "Parameter 'text' not specified."),
        ({"target_lang": ""}, "Parameter 'target_lang' not specified."),
        ({"text": [1]}, "text.0"),
        ({"nonsense": 1}, "'nonsense' is not a field"),
        ({"split_sentences": "2"}, "split_sentences"),
        ({"tag_handling": "markdown"}, "tag_handling"),
        ({"ignore_tags": ["x"]}, "ignore_tags has no effect without tag_handling"),
        ({"ignore_tags": "x", "tag_handling": ""}, "ignore_tags has no effect"),
        ({"outline_detection": False, "tag_handling": "html"}, "no effect on html"),
        ({"ignore_tags": [1], "tag_handling": "xml"}, "ignore_tags.0"),
        ({"formality": "less"}, "send prefer_less or default"),
        ({"glossary_ids": ["1"]}, "no glossaries are stored"),
        ({"style_id": "1"}, "no style rules"),
        ({"custom_instructions": ["be brief"]}, "follow no instructions"),
        ({"translation_memory_id": "1"}, "no translation memories"),
        ({"target_lang": "FR"}, "Value for 'target_lang' not supported. FR"),
        ({"target_lang": "FR", "source_lang": "EN"}, "Value for 'target_lang' not supported."),
        ({"source_lang": "FR"}, "Value for 'source_lang' not supported."),
        ({"target_lang": "FR", "source_lang": "AUTO"}, "Value for 'target_lang' not supported."),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    live: Live, fields: dict[str, Any], message: str
) -> None:
    answer = ask(live, **fields)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["message"]
    assert isinstance(answer.json()["detail"], str)


def test_limits_are_413(bundled: Model) -> None:
    with serve(bundled, max_texts=2, max_characters=50, max_body_bytes=400) as live:
        body = "&".join(["text=a"] * 3 + ["target_lang=DE"])
        assert live.client.post("/v2/translate", content=body, headers=FORM).status_code == 413
        assert ask(live, text=["a"] * 3).status_code == 413
        assert ask(live, text=["a" * 51], source_lang="EN").status_code == 413
        assert ask(live, text=["a" * 500]).status_code == 413
        two = "text=a&text=b&target_lang=DE"
        assert live.client.post("/v2/translate", content=two, headers=FORM).status_code == 200


def test_as_many_texts_as_allowed_fit_in_a_form(live: Live) -> None:
    body = "target_lang=DE&source_lang=DE" + "&text=a" * 1000
    answer = live.client.post("/v2/translate", content=body, headers=FORM)
    assert len(answer.json()["translations"]) == 1000


def test_only_what_may_repeat_may_be_sent_twice(live: Live) -> None:
    body = "text=a&target_lang=DE&target_lang=EN"
    answer = live.client.post("/v2/translate", content=body, headers=FORM)
    assert "'target_lang' was sent twice" in answer.json()["message"]


def test_what_takes_too_long_is_refused_before_clients_give_up(bundled: Model) -> None:
    model, gate = gated(bundled)
    with serve(model, deepl_timeout_s=0.05) as live:
        gate.close()
        answer = ask(live)
        assert live.held == 1  # the model itself is stuck
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "within 0.05 s; send fewer at once" in answer.json()["message"]
        live.wait_until(lambda: live.metric("rejected_total", reason="deadline") == 1)
        assert live.metric("requests_total", route="/v2/translate", outcome="expired") == 1


def test_a_full_queue_is_429(bundled: Model) -> None:
    with crowded(bundled) as live, closing(deepl.Translator("k", server_url=live.url)) as client:
        assert ask(live).headers["retry-after"] == "1"
        with pytest.raises(deepl.TooManyRequestsException, match="segments wait already"):
            client.translate_text(SOURCE, target_lang="DE")


def test_its_client_sends_again_what_came_too_late(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its pauses, in the first of which the model gets on."""
    model, gate = gated(bundled)
    pauses = []

    def pause(timer: Any) -> None:
        pauses.append(timer)
        timer._num_retries += 1
        gate.open()

    monkeypatch.setattr("deepl.http_client.max_network_retries", 5)
    monkeypatch.setattr("deepl.http_client._BackoffTimer.sleep_until_deadline", pause)
    with (
        serve(model, deepl_timeout_s=0.5) as live,
        closing(deepl.Translator("k", server_url=live.url)) as client,
    ):
        gate.close()
        result = client.translate_text(SOURCE, target_lang="DE")
    assert isinstance(result, deepl.TextResult)
    assert result.text == TRANSLATION
    assert pauses


@pytest.mark.parametrize(
    ("kind", "usual", "allowed", "expected"),
    [
        (None, 6, 16, (None, None)),
        ("latency_optimized", 6, 16, (1, "latency_optimized")),
        ("quality_optimized", 1, 16, (4, "quality_optimized")),
        ("quality_optimized", 6, 16, (6, "quality_optimized")),
        ("prefer_quality_optimized", 1, 2, (2, "quality_optimized")),
        ("prefer_quality_optimized", 1, 1, (1, "latency_optimized")),
    ],
)
def test_quality_is_four_beams_at_least_within_what_is_allowed(
    kind: Any, usual: int, allowed: int, expected: tuple[int | None, str | None]
) -> None:
    fields = TranslateFields(text=[SOURCE], target_lang="DE", model_type=kind)
    decoding, used = fields.decoding(usual, allowed)
    assert (decoding.num_beams, used) == expected


def test_a_misspelt_field_of_languages_is_not_ignored(live: Live) -> None:
    answer = live.client.get("/v2/languages", params={"typ": "target"})
    assert answer.status_code == 400
    assert "'typ' is not a field; known: type, auth_key" in answer.json()["message"]
