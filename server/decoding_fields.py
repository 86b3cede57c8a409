"""The one vocabulary of decoding fields that every endpoint takes, and what it comes to."""

import random
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from model import DecodingOptions
from server.errors import InvalidRequest

Int = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Float = Annotated[float, Field(allow_inf_nan=False)]

_SAMPLING_ONLY = ("top_k", "top_p", "seed")


class DecodingFields(BaseModel):
    """Absent or null: as generation_config.json says, else greedy. All apply to each sentence."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: Int | None = Field(
        None, description="Default: twice the source and 32, within the model's limit."
    )
    min_new_tokens: Int | None = None
    do_sample: bool | None = Field(
        None, description="false: the likeliest token, whatever else is set."
    )
    temperature: Float | None = Field(None, description="Above 0 samples.")
    top_k: Int | None = None
    top_p: Float | None = None
    seed: Int | None = Field(None, description="The same seed gives the same text.")
    repetition_penalty: Float | None = None
    no_repeat_ngram_size: Int | None = None
    stop: str | list[str] | None = Field(None, description="The text ends where one would appear.")
    num_beams: Int | None = Field(None, description="Only 1 is served for now.")

    def verified(self, defaults: Mapping[str, Any], limit: int) -> Self:
        """Refuse combinations that contradict themselves; returns self.

        Raises:
            InvalidRequest: says which fields.
        """
        if self.num_beams not in (None, 1):
            raise InvalidRequest("num_beams above 1 is not supported yet; leave it out or send 1")
        if not self._samples(defaults):
            for name in _SAMPLING_ONLY:
                if getattr(self, name) is not None:
                    raise InvalidRequest(
                        f"{name} has no effect without sampling; send a temperature above 0 too"
                    )
        self.options(source_tokens=1, limit=limit, defaults=defaults, wants_scores=False)
        return self

    def options(
        self, *, source_tokens: int, limit: int, defaults: Mapping[str, Any], wants_scores: bool
    ) -> DecodingOptions:
        """Combine these fields with the model's defaults.

        Args:
            source_tokens: of the segment; decides the default of max_new_tokens.
            limit: tokens that the model can generate at most.

        Raises:
            InvalidRequest: a value is out of range; the message names it.
        """
        if self.max_new_tokens is not None and self.max_new_tokens > limit:
            raise InvalidRequest(f"max_new_tokens must be at most {limit} for this model")
        samples = self._samples(defaults)
        default_length = max(
            min(limit, 2 * source_tokens + 32), min(limit, self.min_new_tokens or 0)
        )
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        seed = random.getrandbits(64) if self.seed is None else self.seed
        try:
            return DecodingOptions(
                max_new_tokens=default_length
                if self.max_new_tokens is None
                else self.max_new_tokens,
                min_new_tokens=self.min_new_tokens or 0,
                temperature=self._value("temperature", defaults, 1.0) if samples else 0.0,
                top_k=self._value("top_k", defaults, 0) if samples else 0,
                top_p=self._value("top_p", defaults, 1.0) if samples else 1.0,
                seed=seed if samples else 0,
                repetition_penalty=self._value("repetition_penalty", defaults, 1.0),
                no_repeat_ngram_size=self._value("no_repeat_ngram_size", defaults, 0),
                stop=tuple(stop),
                wants_scores=wants_scores,
            )
        except ValueError as error:
            raise InvalidRequest(str(error)) from error

    def _value(self, name: str, defaults: Mapping[str, Any], otherwise: Any) -> Any:
        own = getattr(self, name)
        return defaults.get(name, otherwise) if own is None else own

    def _samples(self, defaults: Mapping[str, Any]) -> bool:
        if self.do_sample is not None:
            if self.do_sample and self.temperature is not None and self.temperature <= 0:
                raise InvalidRequest("do_sample needs a temperature above 0")
            return self.do_sample
        if self.temperature is not None:
            if self.temperature < 0:
                raise InvalidRequest("temperature must not be negative")
            return self.temperature > 0
        return bool(defaults.get("do_sample", False))
