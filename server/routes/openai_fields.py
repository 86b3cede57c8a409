"""What a request for completions asks for: OpenAI's fields and ours, as decoding fields."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from server.decoding_fields import DecodingFields, Int
from server.errors import InvalidRequest

Zero = Annotated[float, Field(ge=0, le=0)]


class StreamOptions(BaseModel):
    """OpenAI's fields."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class CompletionRequest(DecodingFields):
    """OpenAI's fields, those of ours that say how to decode, and a pair of languages.

    What of the original's is not served is accepted at its neutral value only.
    """

    model: str = Field(min_length=1, description="Which loaded model, by its name in /v1/models.")
    prompt: str | list[str] = Field(description="One text or several; no token ids.")
    source: str | None = Field(
        None, description="A language code, or auto: the prompt is translated to `target`."
    )
    target: str | None = Field(
        None, description="Without one the prompt is the model's raw input, special tokens too."
    )
    max_tokens: Int | None = Field(None, description="The same as max_new_tokens.")
    n: Annotated[int, Field(ge=1, le=32)] | None = Field(
        None, description="Above 1: the best hypotheses of a beam search."
    )
    best_of: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="With use_beam_search the number of beams; else 1."
    )
    use_beam_search: bool | None = Field(None, description="With best_of beams, or n.")
    logprobs: Literal[0] | None = Field(None, description="0: of the tokens that were chosen.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Accepted, and kept nowhere.")
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    api_key: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_ids(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(part, int | list) for part in value):
            raise ValueError("token ids are not read; send text")
        return value

    @property
    def texts(self) -> list[str]:
        """The prompts in order, also where only one was sent."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def choices(self) -> int:
        """How many choices each prompt may have."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream tells at its end what it cost."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def verify(self) -> None:
        """Refuse what contradicts itself, or would have no effect; raises InvalidRequest."""
        refusals = {
            "prompt must not be empty": not self.texts or not all(self.texts),
            "source has no effect without target": self.source and not self.target,
            "stream_options has no effect without stream": self.stream_options and not self.stream,
            "send max_tokens or max_new_tokens, not both": None
            not in (self.max_tokens, self.max_new_tokens),
            "alignments are not shown here; send them to /translate": self.wants_alignments,
            "num_return_sequences is called n here": self.num_return_sequences is not None,
        }
        if self.choices > 1:
            refusals |= {
                "a stream tells one choice: leave out n": self.stream,
                "logprobs are those of one choice: leave out n": self.logprobs is not None,
            }
        for sentence, is_wrong in refusals.items():
            if is_wrong:
                raise InvalidRequest(sentence)

    def decoding(self) -> DecodingFields:
        """Return how to decode; raises InvalidRequest for beams that contradict each other."""
        values = {name: getattr(self, name) for name in DecodingFields.model_fields}
        if self.max_tokens is not None:
            values["max_new_tokens"] = self.max_tokens
        if self.top_p == 1 and not (self.temperature or self.do_sample):
            values["top_p"] = None  # as its clients send it, also with a temperature of 0
        if self.temperature == 0:  # then the same text comes with every seed
            values["seed"] = None
        values["num_beams"] = self._width()
        if self.choices > 1:
            values["num_return_sequences"] = self.choices
        return DecodingFields(**values)

    def _width(self) -> int | None:
        """Return how many beams are meant; None leaves it to the model."""
        beams, best_of = self.num_beams or 1, self.best_of or 1
        if self.use_beam_search is False and beams > 1:
            raise InvalidRequest("num_beams contradicts use_beam_search")
        if self.best_of is not None and best_of < self.choices:
            raise InvalidRequest("best_of must be at least n")
        if not self.use_beam_search and beams == 1:
            if max(best_of, self.choices) > 1:
                raise InvalidRequest(
                    "n and best_of above 1 need beam search: send use_beam_search, and best_of"
                )
            return 1 if self.use_beam_search is False else self.num_beams
        if best_of > 1 and self.num_beams not in (None, best_of):
            raise InvalidRequest("num_beams and best_of contradict each other; send one of them")
        width = self.num_beams or max(best_of, self.choices)
        if width == 1:
            raise InvalidRequest("use_beam_search needs best_of, the number of beams")
        return width
