"""Complete random checkpoints of every family: network, tokenizer and the defaults of the hub.

`write(family, folder)` saves one. Its generation_config.json asks for as much as the family's
published ones do, so that whoever forgets a default gives other text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tests.model import reference, vocabularies
from tests.model.references import change_json, open_reference, write_config

Lookup = Callable[[str], int]  # id of a token
Asked = tuple[dict[str, Any], dict[str, Any]]  # special tokens, generation defaults

_FAIRSEQ = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
_T5 = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
_MADLAD = {"bos_token_id": 1, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}


def _marian(size: int, lookup: Lookup) -> Asked:
    pad = size - 1
    tokens = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 0}
    asked = {"bad_words_ids": [[pad]], "forced_eos_token_id": 0, "num_beams": 4, "max_length": 24}
    return tokens, asked | {"renormalize_logits": True}


def _marian_multilingual(size: int, lookup: Lookup) -> Asked:
    tokens, asked = _marian(size, lookup)
    del asked["renormalize_logits"]  # older repositories do not say it
    return tokens, asked | {"num_beams": 3}


def _m2m100(size: int, lookup: Lookup) -> Asked:
    return _FAIRSEQ, {"num_beams": 3, "max_length": 26, "early_stopping": True}


def _nllb(size: int, lookup: Lookup) -> Asked:
    return _FAIRSEQ, {"max_length": 28, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2}


def _mbart(size: int, lookup: Lookup) -> Asked:
    tokens = _FAIRSEQ | {"decoder_start_token_id": lookup("ro_RO")}
    return tokens, {"forced_eos_token_id": 2, "num_beams": 3, "max_length": 22}


def _mbart50(size: int, lookup: Lookup) -> Asked:
    asked = {"forced_bos_token_id": lookup("en_XX"), "forced_eos_token_id": 2}
    return _FAIRSEQ, asked | {"num_beams": 4, "max_length": 24, "early_stopping": True}


def _bart(size: int, lookup: Lookup) -> Asked:
    asked: dict[str, Any] = {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
    asked |= {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}
    return _FAIRSEQ, asked | {"min_length": 8, "max_length": 26, "no_repeat_ngram_size": 3}


def _pegasus(size: int, lookup: Lookup) -> Asked:
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    asked = {"forced_eos_token_id": 1, "num_beams": 4, "max_length": 30}
    return tokens, asked | {"length_penalty": 0.6}


def _t5(size: int, lookup: Lookup) -> Asked:
    return _T5, {"max_length": 26}


def _mt5(size: int, lookup: Lookup) -> Asked:
    return _T5, {"max_new_tokens": 20, "num_beams": 2, "early_stopping": "never"}


def _madlad(size: int, lookup: Lookup) -> Asked:
    return _MADLAD, {"max_length": 24, "num_beams": 2, "length_penalty": 0.0}


def _byt5(size: int, lookup: Lookup) -> Asked:
    return _T5, {"max_length": 40, "suppress_tokens": [300, 301], "min_new_tokens": 12}


_WRITERS = {
    "marian": _marian,
    "marian-multilingual": _marian_multilingual,
    "m2m100": _m2m100,
    "nllb": _nllb,
    "mbart": _mbart,
    "mbart50": _mbart50,
    "bart": _bart,
    "pegasus": _pegasus,
    "t5": _t5,
    "mt5": _mt5,
    "madlad": _madlad,
    "byt5": _byt5,
}
FAMILIES = tuple(_WRITERS)
_FAVOURED: dict[
    str, dict[str, float]
] = {  # the end, and what is a bad word: so that targets end, each at its own length
    "marian": {"eos_token_id": 6.0, "pad_token_id": 9.0},
    "marian-multilingual": {"eos_token_id": 6.0, "pad_token_id": 6.0},
    "m2m100": {"eos_token_id": 1.6},
    "nllb": {"eos_token_id": 3.0},
    "t5": {"eos_token_id": 1.4},
    "mt5": {"eos_token_id": 1.6},
    "byt5": {"eos_token_id": 1.5},
}
PREFIXES = {  # of T5, as its config.json has them
    "translation_en_to_de": "translate English to German: ",
    "translation_en_to_fr": "translate English to French: ",
}


def write(family: str, folder: Path) -> Path:
    """Save the checkpoint of one of FAMILIES in the hub's layout; returns `folder`."""
    folder.mkdir(parents=True)
    size = vocabularies.write_tokenizer(family, folder)
    write_config(folder, vocabularies.model_type(family), size)  # the tokenizer needs one
    tokenizer = open_reference(folder).tokenizer
    tokens, asked = _WRITERS[family](size, tokenizer.convert_tokens_to_ids)
    model = reference.make(family.removesuffix("-multilingual"), vocab_size=size, **tokens)
    for name, amount in _FAVOURED.get(family, {}).items():
        _favour(model, tokens[name], amount)
    model.save_pretrained(folder)
    GenerationConfig(**tokens, **asked).save_pretrained(folder)
    if family == "t5":
        tasks = {task: {"prefix": prefix} for task, prefix in PREFIXES.items()}
        change_json(folder / "config.json", task_specific_params=tasks)
    return folder


def _favour(model: Any, token: int, amount: float) -> None:
    """Make a token likelier: by its bias, or by the length of its row where there is none."""
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias[0, token] += amount
    else:
        model.lm_head.weight.data[token] *= amount
