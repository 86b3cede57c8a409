"""Clients write ISO 639 codes; each family has its own for the same languages."""

from pathlib import Path

import pytest

from model import Prompt, UnknownDirection
from model.languages import aliases, client_codes, every_pair
from model.tokenizers.codes import FLORES_CODES, M2M100_CODES, MBART50_CODES
from tests.model.references import change_json, made, open_ours, open_reference
from tests.model.vocabularies import Files


@pytest.mark.parametrize("own", [FLORES_CODES, MBART50_CODES, M2M100_CODES["m2m100"]])
def test_every_language_of_a_family_has_one_code(own: tuple[str, ...]) -> None:
    codes = client_codes(own)

    assert sorted(codes.values()) == sorted(own)
    assert client_codes(reversed(own)) == codes
    names = aliases(codes)
    assert all(names[code.lower()] == client for client, code in codes.items())
    assert all(names[client.lower()] == client for client in codes)


@pytest.mark.parametrize(
    ("client", "own"),
    [
        *(("de", "deu_Latn"), ("en", "eng_Latn"), ("ja", "jpn_Jpan"), ("sr", "srp_Cyrl")),
        *(("zh", "zho_Hans"), ("zh-Hant", "zho_Hant"), ("yue", "yue_Hant")),
        *(("ks", "kas_Arab"), ("ks-Deva", "kas_Deva"), ("kr", "knc_Latn"), ("kr-Arab", "knc_Arab")),
        *(("ace", "ace_Latn"), ("ace-Arab", "ace_Arab"), ("taq-Tfng", "taq_Tfng")),
        *(("ar", "arb_Arab"), ("arz", "arz_Arab"), ("fa", "pes_Arab"), ("fa-AF", "prs_Arab")),
        *(("az", "azj_Latn"), ("azb", "azb_Arab"), ("ku", "kmr_Latn"), ("ckb", "ckb_Arab")),
        *(("lv", "lvs_Latn"), ("ltg", "ltg_Latn"), ("sq", "als_Latn"), ("ms", "zsm_Latn")),
        *(("ps", "pbt_Arab"), ("qu", "quy_Latn"), ("ff", "fuv_Latn"), ("tl", "tgl_Latn")),
        *(("ak", "aka_Latn"), ("tw", "twi_Latn"), ("nb", "nob_Latn"), ("nn", "nno_Latn")),
        *(("mg", "plt_Latn"), ("mn", "khk_Cyrl"), ("ne", "npi_Deva"), ("or", "ory_Orya")),
        *(("sw", "swh_Latn"), ("uz", "uzn_Latn"), ("yi", "ydd_Hebr"), ("om", "gaz_Latn")),
    ],
)
def test_nllb_languages_have_their_iso_codes(client: str, own: str) -> None:
    assert client_codes(FLORES_CODES)[client] == own


def test_other_families_languages_have_the_same_codes() -> None:
    mbart, m2m100 = client_codes(MBART50_CODES), client_codes(M2M100_CODES["m2m100"])
    assert (mbart["de"], mbart["en"], mbart["zh"], mbart["tl"]) == (
        "de_DE",
        "en_XX",
        "zh_CN",
        "tl_XX",
    )
    assert {client for client, own in m2m100.items() if client != own} == {"nso"}  # its name: ns


def test_marian_names_of_every_age_have_their_codes() -> None:
    own = ["fra", "de", "zho_Hans", "cmn_Hant", "srp_Latn", "srp_Cyrl", "pt_BR", "pt", "ROMANCE"]
    assert client_codes(own) == {
        "fr": "fra",
        "de": "de",
        "zh": "zho_Hans",
        "cmn": "cmn_Hant",
        "sr-Latn": "srp_Latn",
        "sr": "srp_Cyrl",
        "pt-BR": "pt_BR",
        "pt": "pt",
        "ROMANCE": "ROMANCE",
    }
    assert client_codes(["cmn_Hans", "cmn_Hant"]) == {"zh": "cmn_Hans", "zh-Hant": "cmn_Hant"}


def test_clients_may_write_other_spellings() -> None:
    names = aliases(client_codes(FLORES_CODES))
    for spelling, client in {
        "deu_latn": "de",
        "deu-latn": "de",
        "de-latn": "de",
        "zh-hans": "zh",
        "zho_hant": "zh-Hant",
        "no": "nb",
        "fil": "tl",
        "ar-arab": "ar",
    }.items():
        assert names[spelling] == client
    assert "xx" not in names


def test_pairs_are_of_different_languages() -> None:
    pairs = every_pair(["b", "a", "c"])
    assert pairs == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}


# -- prompts -------------------------------------------------------------------------------------

PREFIXES = {
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4},
    "translation_en_to_fr": {"prefix": "translate English to French: "},
    "summarization": {"prefix": "summarize: "},
}


@pytest.mark.parametrize("family", ["t5", "byt5"])
def test_t5_is_told_by_words_in_front(family: str, tmp_path: Path) -> None:
    folder = made(family, "json", tmp_path)
    change_json(folder / "config.json", task_specific_params=PREFIXES)
    ours, reference = open_ours(folder), open_reference(folder)

    assert ours.targets == {"en": ("de", "fr")}
    for text in ("The house.", " the  time", "größer 🙂", ""):
        raw = f"translate English to French: {text}"
        assert list(ours.prompt(text, "en", "fr").source) == reference.encode([raw])[0]
    with pytest.raises(UnknownDirection, match="de to en is not supported"):
        ours.prompt("Haus", "de", "en")


@pytest.mark.parametrize("files", ["json", "sentencepiece"])
def test_madlad_is_told_the_target_by_a_piece(files: Files, tmp_path: Path) -> None:
    folder = made("madlad", files, tmp_path)
    ours, reference = open_ours(folder), open_reference(folder)

    assert ours.targets["de"] == ("ber", "en", "fr", "ja", "ru", "sr", "zh", "zh-Hant")
    for text in ("The house.", "  the  time ", "größer 🙂", ""):
        raw = [f"<2zh_Hant> {text}"]
        assert list(ours.prompt(text, "de", "zh-Hant").source) == reference.encode(raw)[0]
    assert ours.token_id("<2zh>") not in ours.prompt("<2zh> a", "de", "fr").source


def test_a_multilingual_marian_is_told_by_its_first_token(tmp_path: Path) -> None:
    folder = made("marian-multilingual", "json", tmp_path)
    ours, reference = open_ours(folder), open_reference(folder)

    assert ours.targets == {"en": ("de", "fr", "sr", "zh", "zh-Hant")}
    found = ours.prompt("The house.", "en", "zh-Hant")
    assert found == Prompt(tuple(reference.encode([">>cmn_Hant<< The house."])[0]))
    assert ours.prompt(">>deu<< a", "en", "zh").source.count(ours.token_id(">>deu<<") or 0) == 0


def test_nllb_of_old_has_the_source_behind(tmp_path: Path) -> None:
    folder = made("nllb", "json", tmp_path)
    change_json(folder / "tokenizer_config.json", legacy_behaviour=True)
    ours = open_ours(folder)
    reference = open_reference(folder, src_lang="deu_Latn")

    found = ours.prompt("Das Haus.", "de", "en")

    assert list(found.source) == reference.encode(["Das Haus."])[0]
    assert found.source[-1] == ours.token_id("deu_Latn")
    assert (found.start, found.forced_bos) == (None, ours.token_id("eng_Latn"))


def test_a_model_without_languages_translates_nothing(tmp_path: Path) -> None:
    ours = open_ours(made("bart", "json", tmp_path))
    assert not ours.targets
    with pytest.raises(UnknownDirection, match="declares no languages"):
        ours.prompt("a", "en", "de")
