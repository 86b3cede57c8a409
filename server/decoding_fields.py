"""The one vocabulary of decoding fields that every endpoint takes, and what it comes to."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from model import DecodingOptions
from server.errors import InvalidRequest

Int = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Float = Annotated[float, Field(allow_inf_nan=False)]

_SAMPLING_ONLY = ("top_k", "top_p", "seed")
_BEAMS_ONLY = ("length_penalty", "early_stopping", "num_return_sequences")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a request asks for besides its decoding fields, in token ids."""

    source_tokens: int = 1
    start: int | None = None
    forced_bos: int | None = None
    target_prefix: tuple[int, ...] = ()
    alternatives: int = 0
    wants_scores: bool = False


class DecodingFields(BaseModel):
    """Absent or null: as generation_config.json says, else greedy. All apply to each sentence."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: Int | None = Field(
        None,
        description="Default: the model's own max_length, else twice the source and 32; within "
        "the model's limit.",
    )
    min_new_tokens: Int | None = None
    do_sample: bool | None = Field(
        None, description="false: the likeliest tokens, whatever else is set."
    )
    temperature: Float | None = Field(None, description="Above 0 samples.")
    top_k: Int | None = None
    top_p: Float | None = None
    seed: Int | None = Field(None, description="The same seed gives the same text.")
    repetition_penalty: Float | None = None
    no_repeat_ngram_size: Int | None = None
    stop: str | list[str] | None = Field(None, description="The text ends where one would appear.")
    num_beams: Int | None = Field(
        None, description="Hypotheses that are searched together; 1 is greedy."
    )
    length_penalty: Float | None = Field(
        None, description="Of beam search: above 0 prefers long targets."
    )
    early_stopping: bool | Literal["never"] | None = Field(
        None, description="Of beam search: when it may end, as in transformers."
    )
    num_return_sequences: Int | None = Field(
        None, description="The best hypotheses to return, at most num_beams."
    )
    forced_bos_token: str | None = Field(
        None, description="The vocabulary entry that the target must begin with."
    )
    target_prefix: str | None = Field(
        None, description="Text that the target begins with; the answer begins with it too."
    )
    suppress_tokens: list[Int] | None = Field(None, description="Token ids never generated.")
    alignments: bool | Literal["average"] | Int | None = Field(
        None,
        description="Attention of each target token over the source: true or average for the mean "
        "of all decoder layers, or a layer's index.",
    )

    @field_validator("alignments", mode="before")
    @classmethod
    def _layer(cls, value: Any) -> Any:
        """Take any number for a layer, in a form too; as booleans 0 and 1 would say no and yes."""
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
            return int(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @property
    def wants_alignments(self) -> bool:
        """Whether alignments are asked for; 0 is a layer."""
        return self.alignments is not None and self.alignments is not False

    def verified(self, defaults: Mapping[str, Any], limit: int) -> Self:
        """Refuse combinations that contradict themselves; returns self.

        Raises:
            InvalidRequest: says which fields.
        """
        if not self._samples(defaults):
            self._refuse(_SAMPLING_ONLY, "without sampling; send a temperature above 0 too")
        if self._beams(defaults) == 1:
            self._refuse(_BEAMS_ONLY, "without beam search; send num_beams above 1 too")
        if self.stop and self.returns_several:
            raise InvalidRequest("stop ends one text: leave out num_return_sequences, or stop")
        self.options(Demand(), limit=limit, defaults=defaults)
        return self

    @property
    def returns_several(self) -> bool:
        """Whether more than the best hypothesis is asked for."""
        return self.num_return_sequences is not None and self.num_return_sequences > 1

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            is_neutral = name == "num_return_sequences" and self.num_return_sequences == 1
            if getattr(self, name) is not None and not is_neutral:
                raise InvalidRequest(f"{name} has no effect {reason}")

    def options(
        self, demand: Demand, *, limit: int, defaults: Mapping[str, Any]
    ) -> DecodingOptions:
        """Combine these fields with the model's defaults and what else the request asks for.

        Args:
            limit: tokens that a target of the model can have at most, its prefix included.

        Raises:
            InvalidRequest: a value is out of range; the message names it.
        """
        try:
            return DecodingOptions(
                **self._lengths(demand, limit, defaults),
                **self._sampling(demand, defaults),
                **self._search(demand, defaults),
                repetition_penalty=self._value("repetition_penalty", defaults, 1.0),
                no_repeat_ngram_size=self._value("no_repeat_ngram_size", defaults, 0),
                stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or []),
                start=demand.start,
                target_prefix=demand.target_prefix,
                forced_bos=defaults.get("forced_bos_token_id")
                if demand.forced_bos is None
                else demand.forced_bos,
                forced_eos=defaults.get("forced_eos_token_id"),
                suppressed=tuple(self.suppress_tokens or ()),
                wants_scores=demand.wants_scores,
                alignments=self._alignments(),
            )
        except ValueError as error:
            raise InvalidRequest(str(error)) from error

    def _lengths(self, demand: Demand, limit: int, defaults: Mapping[str, Any]) -> dict[str, Any]:
        room = limit - len(demand.target_prefix)
        if room < 1:
            raise InvalidRequest(f"target_prefix leaves no room within {limit} target tokens")
        if self.max_new_tokens is not None and self.max_new_tokens > room:
            raise InvalidRequest(f"max_new_tokens must be at most {room} for this model")
        longest = self.max_new_tokens
        if longest is None:
            default = _new_tokens(demand, defaults, "max", 2 * demand.source_tokens + 32)
            if default < 1:
                raise InvalidRequest(
                    f"no token is left within the model's own max_length "
                    f"{defaults.get('max_length')}; send max_new_tokens"
                )
            longest = max(min(room, default), min(room, self.min_new_tokens or 0))
        shortest = self.min_new_tokens
        if shortest is None:  # the model's wish yields to the request's limit
            shortest = max(min(_new_tokens(demand, defaults, "min", 0), longest), 0)
        return {"max_new_tokens": longest, "min_new_tokens": shortest}

    def _sampling(self, demand: Demand, defaults: Mapping[str, Any]) -> dict[str, Any]:
        if not self._samples(defaults) or demand.alternatives:
            return {}
        return {
            "temperature": self._value("temperature", defaults, 1.0),
            "top_k": self._value("top_k", defaults, 0),
            "top_p": self._value("top_p", defaults, 1.0),
            "seed": random.getrandbits(64) if self.seed is None else self.seed,
        }

    def _search(self, demand: Demand, defaults: Mapping[str, Any]) -> dict[str, Any]:
        if demand.alternatives:
            return {"alternatives": demand.alternatives}
        if (beams := self._beams(defaults)) == 1:
            return {}
        return {
            "num_beams": beams,
            "length_penalty": self._value("length_penalty", defaults, 1.0),
            "early_stopping": self._value("early_stopping", defaults, False),
            "renormalises": bool(defaults.get("renormalize_logits")),
            "num_hypotheses": 1 if self.num_return_sequences is None else self.num_return_sequences,
        }

    def _alignments(self) -> Literal["average"] | int | None:
        if not self.wants_alignments:
            return None
        return "average" if self.alignments is True else self.alignments

    def _value(self, name: str, defaults: Mapping[str, Any], otherwise: Any) -> Any:
        own = getattr(self, name)
        return defaults.get(name, otherwise) if own is None else own

    def _beams(self, defaults: Mapping[str, Any]) -> int:
        """How many beams are meant: a request that samples does without the model's default."""
        if self.num_beams is not None:
            return self.num_beams
        return 1 if self._samples(defaults) else int(defaults.get("num_beams", 1))

    def _samples(self, defaults: Mapping[str, Any]) -> bool:
        if self.do_sample is not None:
            if self.do_sample and self.temperature is not None and self.temperature <= 0:
                raise InvalidRequest("do_sample needs a temperature above 0")
            return self.do_sample
        if self.temperature is not None:
            if self.temperature < 0:
                raise InvalidRequest("temperature must not be negative")
            return self.temperature > 0
        return bool(defaults.get("do_sample", False)) and (self.num_beams or 1) == 1


def _new_tokens(
    demand: Demand, defaults: Mapping[str, Any], bound: Literal["max", "min"], otherwise: int
) -> int:
    """Return the model's own bound; its lengths count the start token and the prefix."""
    if f"{bound}_length" in defaults:
        return int(defaults[f"{bound}_length"]) - 1 - len(demand.target_prefix)
    return int(defaults.get(f"{bound}_new_tokens", otherwise))
