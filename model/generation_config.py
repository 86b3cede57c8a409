"""What a checkpoint's generation_config.json asks for: defaults, special tokens, refusals.

Where that file is missing, transformers reads the same fields from config.json, and so do we;
where it exists, config.json has no say.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model.config import UnsupportedModel
from model.decoding.options import DecodingOptions

_SAMPLING_TOP_K = 50  # what transformers samples from where a file only says do_sample


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """How a checkpoint wants its targets decoded unless a request says otherwise.

    None where the checkpoint does not say. Of a bound on new tokens and one on the length, which
    counts the start token and a target prefix too, only the one that counts is given.
    `early_stopping` is True, False or "never", as in transformers.
    """

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    renormalize_logits: bool | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int | None = None

    def given(self) -> dict[str, Any]:
        """Return the fields that the checkpoint sets."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The tokens that begin, end and shape a target."""

    start: int
    eos: int
    suppressed: tuple[int, ...]
    forced_bos: int | None
    forced_eos: int | None


def _is_off(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _reaches_one(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 1


# Fields that change tokens and are not done, with what each may say because it changes nothing.
_NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "assistant_early_exit": _is_off(),
    "begin_suppress_tokens": _is_off([]),
    "constraints": _is_off([]),
    "diversity_penalty": _is_off(0),
    "dola_layers": _is_off(),
    "encoder_no_repeat_ngram_size": _is_off(0),
    "encoder_repetition_penalty": _is_off(1),
    "epsilon_cutoff": _is_off(0),
    "eta_cutoff": _is_off(0),
    "exponential_decay_length_penalty": _is_off(),
    "force_words_ids": _is_off([]),
    "forced_decoder_ids": _is_off([]),
    "guidance_scale": _is_off(1),
    "max_time": _is_off(),
    "min_p": _is_off(0),
    "num_beam_groups": _is_off(1),
    "penalty_alpha": _is_off(0),
    "remove_invalid_values": _is_off(False),
    "sequence_bias": _is_off([], {}),
    "stop_strings": _is_off([]),
    "token_healing": _is_off(False),
    "top_h": _is_off(),
    "typical_p": _reaches_one,
    "watermarking_config": _is_off(),
}


def effective(published: Mapping[str, Any], generation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields that count: generation_config.json's, config.json's without that file.

    Args:
        published: config.json.
        generation: generation_config.json, empty where there is none.
    """
    if generation:
        return generation
    if published.get("force_bos_token_to_be_generated"):  # how BART said it before 2021
        return {**published, "forced_bos_token_id": published.get("bos_token_id")}
    return published


def defaults(published: Mapping[str, Any], generation: Mapping[str, Any]) -> GenerationDefaults:
    """Read the defaults of a checkpoint; arguments as in `effective`.

    Raises:
        UnsupportedModel: a field that would change tokens is not done, or a value is of the wrong
            kind; the message names the field.
    """
    fields = effective(published, generation)
    for name, is_neutral in _NEUTRAL.items():
        if fields.get(name) is not None and not is_neutral(fields[name]):
            raise UnsupportedModel(f"{name} {fields[name]!r} is not supported")
    top_k = _integer(fields, "top_k")
    if fields.get("do_sample") and top_k is None:
        top_k = _SAMPLING_TOP_K
    found = GenerationDefaults(
        do_sample=_switch(fields, "do_sample"),
        early_stopping=_switch(fields, "early_stopping", "never"),
        top_k=top_k,
        temperature=_number(fields, "temperature"),
        top_p=_number(fields, "top_p"),
        repetition_penalty=_number(fields, "repetition_penalty"),
        length_penalty=_number(fields, "length_penalty"),
        no_repeat_ngram_size=_integer(fields, "no_repeat_ngram_size"),
        num_beams=_integer(fields, "num_beams"),
        num_return_sequences=_integer(fields, "num_return_sequences"),
        renormalize_logits=_switch(fields, "renormalize_logits"),
        max_new_tokens=_integer(fields, "max_new_tokens"),
        min_new_tokens=_integer(fields, "min_new_tokens"),
        max_length=_length(fields, "max"),
        min_length=_length(fields, "min"),
    )
    _verify(found)
    return found


def _verify(found: GenerationDefaults) -> None:
    """Refuse what would fail every request that leaves it as it is, or be done otherwise."""
    beams = found.num_beams or 1
    if found.do_sample and beams > 1:
        raise UnsupportedModel(f"do_sample with num_beams {beams} is not supported")
    used: dict[str, Any] = {
        "max_new_tokens": found.max_new_tokens,
        "repetition_penalty": found.repetition_penalty,
        "no_repeat_ngram_size": found.no_repeat_ngram_size,
        "num_beams": found.num_beams,
    }
    if found.max_length is not None:
        used["max_new_tokens"] = found.max_length - 1
    if beams > 1:
        used["length_penalty"] = found.length_penalty
    if found.do_sample:
        used |= {"temperature": found.temperature, "top_k": found.top_k, "top_p": found.top_p}
        if found.temperature == 0:
            raise UnsupportedModel("do_sample with temperature 0 is not supported")
    given = {name: value for name, value in used.items() if value is not None}
    try:
        DecodingOptions(**{"max_new_tokens": 1} | given)
    except ValueError as error:
        raise UnsupportedModel(str(error)) from error


def special_tokens(published: Mapping[str, Any], generation: Mapping[str, Any]) -> SpecialTokens:
    """Read the special tokens of a checkpoint; arguments as in `effective`.

    Raises:
        UnsupportedModel: one is missing, or would need something that is not done.
    """
    fields = effective(published, generation)
    eos = _token(fields, "eos_token_id")
    start = _token(fields, "decoder_start_token_id")
    if start is None:
        start = _token(fields, "bos_token_id")
    if eos is None or start is None:
        name = "eos_token_id" if eos is None else "decoder_start_token_id"
        raise UnsupportedModel(f"{name} is missing; without it a target cannot be decoded")
    return SpecialTokens(
        start=start,
        eos=eos,
        suppressed=_suppressed(fields, eos),
        forced_bos=_token(fields, "forced_bos_token_id"),
        forced_eos=_token(fields, "forced_eos_token_id"),
    )


def _token(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UnsupportedModel(f"{name} is {value!r}, not one integer")
    return value


def _suppressed(fields: Mapping[str, Any], eos: int) -> tuple[int, ...]:
    words = fields.get("bad_words_ids") or []
    tokens = fields.get("suppress_tokens") or []
    if not all(isinstance(word, list) for word in words):
        raise UnsupportedModel(f"bad_words_ids is {words!r}, not a list of lists")
    if any(len(word) != 1 for word in words):
        raise UnsupportedModel("bad_words_ids of several tokens are not supported")
    bad = [word[0] for word in words if word != [eos]]  # the reference never forbids the end so
    return tuple(dict.fromkeys([*bad, *tokens]))


def _length(fields: Mapping[str, Any], bound: str) -> int | None:
    length = _integer(fields, f"{bound}_length")
    return length if fields.get(f"{bound}_new_tokens") is None else None


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UnsupportedModel(f"{name} is {value!r}, not an integer")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise UnsupportedModel(f"{name} is {value!r}, not a number")
    return value


def _switch(fields: Mapping[str, Any], name: str, *others: str) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool) and value not in others:
        raise UnsupportedModel(f"{name} is {value!r}, not true or false")
    return value
