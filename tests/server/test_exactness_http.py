"""Through HTTP, every family gives what transformers gives, its own defaults included."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from model import Model, load
from tests.model import complete
from tests.model.reference import reference
from tests.model.references import open_reference
from tests.server.live import Live, serve

TEXTS = [
    "The people translate water.",
    "Übersetzung für das Häuser, “schön”! 🙂",
    "вода и 翻訳 する, الوقت",
    " time  . don't</s> deu_Latn\tx",  # raw: special tokens count, white space too
]
SENTENCES = [*TEXTS[:1], "Übersetzung für das Häuser, “schön”!", TEXTS[2]]  # emoji are kept
WORDS = "The house >>fra<< __fr__ <2fr> fra_Latn fr_XX time."
TAGS = ["</s>", "<pad>", "<extra_id_0>"]  # which stay as they are, as all that looks like a tag
LOOK_ALIKES = f"{WORDS} {' '.join(TAGS)}"
BEAMS = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.6, "early_stopping": True}
EVERY_FAMILY = pytest.mark.parametrize("family", complete.FAMILIES)


@dataclass(frozen=True)
class Case:
    """One checkpoint, loaded by transformers and by us."""

    network: Any
    tokenizer: Any
    ours: Model

    @torch.inference_mode()
    def generate(self, source: str | tuple[int, ...], **options: Any) -> Any:
        """Return what `generate` of transformers does with raw text or with ids."""
        if isinstance(source, str):
            inputs = self.tokenizer(source, return_tensors="pt")
        else:
            inputs = {"input_ids": torch.tensor([source])}
        return self.network.generate(**inputs, **options)

    def texts(self, source: str | tuple[int, ...], **options: Any) -> list[str]:
        generated = self.generate(source, **options)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in generated]

    def id(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    parent = tmp_path_factory.mktemp("complete")

    def case(family: str) -> Case:
        folder = complete.write(family, parent / family)
        ours = load(folder, precision="float32", slots=8)
        return Case(reference(folder), open_reference(folder).tokenizer, ours)

    return {family: case(family) for family in complete.FAMILIES}


@pytest.fixture(scope="module")
def live(cases: dict[str, Case]) -> Iterator[Live]:
    with serve(*(case.ours for case in cases.values())) as running:
        yield running


@pytest.fixture
def case(family: str, cases: dict[str, Case]) -> Case:
    return cases[family]


Ask = Callable[..., Any]


@pytest.fixture
def ask(family: str, live: Live) -> Ask:
    """Post to the family's model; returns the answer's JSON."""

    def post(path: str, **body: Any) -> Any:
        answer = live.post(path, body | {"model": family})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


# -- raw -----------------------------------------------------------------------------------------


@EVERY_FAMILY
def test_generate_gives_the_references_text_with_the_checkpoints_own_defaults(
    case: Case, ask: Ask
) -> None:
    found = [ask("/generate", inputs=text)["generated_text"] for text in TEXTS]

    assert found == [case.texts(text)[0] for text in TEXTS]
    assert len(set(found)) > 2, "too uniform to tell"


MATTERS = {  # a family whose texts would be others without it
    "bad_words_ids": "marian",
    "early_stopping": "bart",
    "forced_bos_token_id": "mbart50",
    "forced_eos_token_id": "mbart",
    "length_penalty": "pegasus",
    "max_length": "t5",
    "max_new_tokens": "mt5",
    "min_length": "bart",
    "min_new_tokens": "byt5",
    "no_repeat_ngram_size": "nllb",
    "num_beams": "m2m100",
    "renormalize_logits": "marian",
    "repetition_penalty": "nllb",
    "suppress_tokens": "byt5",
}
LONGER = {"max_length": 60, "max_new_tokens": 60}


@pytest.mark.parametrize("name", MATTERS)
def test_each_default_is_asked_for_by_a_family_to_which_it_matters(
    name: str, cases: dict[str, Case]
) -> None:
    case = cases[MATTERS[name]]
    own = case.network.generation_config
    assert getattr(own, name) is not None
    neutral = GenerationConfig.from_dict(own.to_dict() | {name: LONGER.get(name)})

    with_it = [case.generate(text).tolist() for text in TEXTS]
    case.network.generation_config = neutral
    without_it = [case.generate(text).tolist() for text in TEXTS]
    case.network.generation_config = own

    assert with_it != without_it


@EVERY_FAMILY
def test_all_hypotheses_of_a_search_are_the_references(case: Case, ask: Ask) -> None:
    for text in TEXTS[:3]:
        found = ask("/generate", inputs=text, parameters=BEAMS)
        expected = case.generate(text, **BEAMS, return_dict_in_generate=True, output_scores=True)
        decoded = [case.tokenizer.decode(r, skip_special_tokens=True) for r in expected.sequences]
        assert [each["generated_text"] for each in found["sequences"]] == decoded
        assert found["generated_text"] == decoded[0]
        scores = [each["score"] for each in found["sequences"]]
        assert scores == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


@EVERY_FAMILY
def test_greedy_tokens_are_the_references(case: Case, ask: Ask) -> None:
    for text in TEXTS:
        details = ask("/generate", inputs=text, parameters={"num_beams": 1, "details": True})
        expected = case.generate(text, num_beams=1)[0].tolist()
        tokens = details["details"]["tokens"]
        end = case.network.generation_config.eos_token_id
        assert [token["id"] for token in tokens] == [i for i in expected[1:] if i != end]
        assert "".join(token["text"] for token in tokens) == details["generated_text"]


@EVERY_FAMILY
def test_a_stream_says_the_same_token_by_token(family: str, case: Case, live: Live) -> None:
    for text in TEXTS[:2]:
        for parameters in ({}, {"num_beams": 1}):
            pieces = told(live, family, inputs=text, parameters=parameters)
            assert "".join(pieces) == case.texts(text, **parameters)[0]


def told(live: Live, family: str, **body: Any) -> list[str]:
    """Stream; returns the text of each token, which together are the whole text."""
    stream = live.post("/generate_stream", body | {"model": family}).text
    events = [json.loads(line[5:]) for line in stream.split("\n") if line[:5] == "data:"]
    pieces = [event["token"]["text"] for event in events]
    assert events[-1]["generated_text"] == "".join(pieces)
    return pieces


# -- translation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """A direction as clients ask for it, and what transformers needs for it."""

    source: str
    target: str
    src_lang: str | None = None
    forced_bos: str | None = None
    start: str | None = None
    before: str = ""

    def options(self, case: Case) -> dict[str, Any]:
        found = {}
        if self.forced_bos:
            found["forced_bos_token_id"] = case.id(self.forced_bos)
        if self.start:
            found["decoder_start_token_id"] = case.id(self.start)
        return found


DIRECTIONS = {
    "marian": [Direction("en", "de")],
    "marian-multilingual": [
        Direction("en", "fr", before=">>fra<< "),
        Direction("en", "zh-Hant", before=">>cmn_Hant<< "),
    ],
    "m2m100": [
        Direction("en", "de", src_lang="en", forced_bos="__de__"),
        Direction("ru", "zh", src_lang="ru", forced_bos="__zh__"),
    ],
    "nllb": [
        Direction("en", "de", src_lang="eng_Latn", forced_bos="deu_Latn"),
        Direction("ru", "zh-Hant", src_lang="rus_Cyrl", forced_bos="zho_Hant"),
    ],
    "mbart": [
        Direction("en", "de", src_lang="en_XX", start="de_DE"),
        Direction("ru", "zh", src_lang="ru_RU", start="zh_CN"),
    ],
    "mbart50": [
        Direction("en", "de", src_lang="en_XX", forced_bos="de_DE"),
        Direction("ru", "zh", src_lang="ru_RU", forced_bos="zh_CN"),
    ],
    "t5": [
        Direction("en", "de", before=complete.PREFIXES["translation_en_to_de"]),
        Direction("en", "fr", before=complete.PREFIXES["translation_en_to_fr"]),
    ],
    "madlad": [
        Direction("en", "de", before="<2de> "),
        Direction("ru", "zh-Hant", before="<2zh_Hant> "),
    ],
}
PAIRS = [(family, direction) for family, some in DIRECTIONS.items() for direction in some]
EVERY_DIRECTION = pytest.mark.parametrize(
    ("family", "direction"), PAIRS, ids=[f"{f}-{d.source}-{d.target}" for f, d in PAIRS]
)


def translated(case: Case, direction: Direction, text: str) -> str:
    """Translate one sentence as the family's documentation in transformers does it."""
    default = getattr(case.tokenizer, "src_lang", None)
    if direction.src_lang:
        case.tokenizer.src_lang = direction.src_lang
    found = case.texts(direction.before + text, **direction.options(case))[0]
    if direction.src_lang:
        case.tokenizer.src_lang = default
    return found


@EVERY_DIRECTION
def test_translate_gives_the_references_translation(
    case: Case, direction: Direction, ask: Ask
) -> None:
    languages = {"source": direction.source, "target": direction.target}
    found = ask("/translate", q=SENTENCES, **languages)["translatedText"]

    assert found == [translated(case, direction, text) for text in SENTENCES]


@EVERY_DIRECTION
def test_what_looks_like_special_tokens_is_translated_as_text(
    case: Case, direction: Direction, ask: Ask
) -> None:
    languages = {"source": direction.source, "target": direction.target}
    ours = case.ours.tokenizer
    source = ours.prompt(LOOK_ALIKES, **languages).source

    words, whole = ask("/translate", q=[WORDS, LOOK_ALIKES], **languages)["translatedText"]

    as_text = ours.prompt(WORDS, **languages).source
    assert words == case.texts(as_text, **direction.options(case))[0]
    assert [whole.count(each) for each in TAGS] == [1, 1, 1]
    raw = case.tokenizer(direction.before + LOOK_ALIKES).input_ids
    special = {*case.tokenizer.all_special_ids} - {case.tokenizer.unk_token_id}
    assert special.intersection(source) == special.intersection(ours.prompt("", **languages).source)
    assert list(source) != raw


@pytest.mark.parametrize("family", [f for f in complete.FAMILIES if f not in DIRECTIONS])
def test_a_family_without_languages_refuses_to_translate(family: str, live: Live) -> None:
    body = {"q": "The house.", "source": "en", "target": "de", "model": family}
    refused = live.post("/translate", body)

    assert refused.status_code == 400
    reason = f"{family} declares no languages, so that it serves /generate only"
    assert refused.json()["error"] == reason


# -- how a target begins -------------------------------------------------------------------------

FORCED = {"nllb": "deu_Latn", "m2m100": "__de__", "mbart50": "de_DE", "bart": "<s>", "t5": "▁der"}


@pytest.mark.parametrize("family", FORCED)
def test_a_forced_token_is_named_as_the_vocabulary_has_it(
    family: str, case: Case, ask: Ask
) -> None:
    token = FORCED[family]
    for text in TEXTS[:2]:
        found = ask("/generate", inputs=text, parameters={"forced_bos_token": token})
        expected = case.texts(text, forced_bos_token_id=case.id(token))[0]
        assert found["generated_text"] == expected


@EVERY_FAMILY
def test_a_target_prefix_is_where_the_reference_goes_on_from(
    family: str, case: Case, ask: Ask, live: Live
) -> None:
    begun = beginning(case)
    for text in TEXTS[1:3]:
        for parameters in ({}, {"num_beams": 1}, {"num_beams": 3, "max_new_tokens": 13}):
            asked = {**parameters, "target_prefix": PREFIX}
            found = ask("/generate", inputs=text, parameters=asked)["generated_text"]
            assert found == case.texts(text, decoder_input_ids=begun, **parameters)[0]
            assert found.startswith(case.tokenizer.decode(begun[0], skip_special_tokens=True))
        assert "".join(told(live, family, inputs=text, parameters=asked)) == found


PREFIX = "Häuser 水"


def beginning(case: Case, start: int | None = None, forced: int | None = None) -> Any:
    """Return the decoder's input [1, length] before anything is generated, by the reference's ids.

    Args:
        start, forced: first tokens in place of the checkpoint's own.
    """
    config = case.network.generation_config
    first = config.decoder_start_token_id if start is None else start
    second = config.forced_bos_token_id if forced is None else forced
    is_marian = hasattr(case.tokenizer, "spm_target")  # the others have one model for both sides
    name = "text_target" if is_marian else "text"
    prefix = case.tokenizer(**{name: PREFIX}, add_special_tokens=False).input_ids
    return torch.tensor([[first, *([] if second is None else [second]), *prefix]])


@EVERY_DIRECTION
def test_a_translation_goes_on_from_its_prefix(case: Case, direction: Direction, ask: Ask) -> None:
    languages = {"source": direction.source, "target": direction.target}
    options = direction.options(case)
    start, forced = options.get("decoder_start_token_id"), options.get("forced_bos_token_id")
    source = case.ours.tokenizer.prompt(TEXTS[2], **languages).source

    found = ask("/translate", q=TEXTS[2], target_prefix=PREFIX, **languages)["translatedText"]

    begun = beginning(case, start, forced)
    assert found == case.texts(source, decoder_input_ids=begun, **options)[0]
