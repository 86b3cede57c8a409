"""What a request in DeepL's dialect asks for: its fields, verified, as rules and wishes of ours."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.decoding_fields import DecodingFields
from server.errors import InvalidRequest
from server.text.rules import TextRules

LISTS = ("text", "ignore_tags", "splitting_tags", "non_splitting_tags")  # forms may repeat them
QUALITY_BEAMS = 4
_TAGS = LISTS[1:]
_MAX_TAGS = 100

# What DeepL serves and this server does not: the field, and what to do instead.
_NOT_SERVED = {
    "glossary_id": "no glossaries are stored on this server; leave it out",
    "glossary_ids": "no glossaries are stored on this server; leave it out",
    "style_id": "there are no style rules on this server; leave it out",
    "custom_instructions": "the models follow no instructions; leave it out",
    "translation_memory_id": "there are no translation memories on this server; leave it out",
    "translation_memory_threshold": "there are no translation memories on this server; "
    "leave it out",
}


def _nothing(value: Any) -> Any:
    """Read an empty string, as forms send it, as absent."""
    return None if value == "" else value


def _listed(value: Any) -> Any:
    """Read a list, a comma-separated list, or a list of those, as the clients send them."""
    if value is None:
        return []
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return value
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def _as_text(value: Any) -> Any:
    """Read 0 and 1 as numbers and booleans too."""
    if isinstance(value, bool | int):
        return str(int(value))
    return _nothing(value)


def _alone(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Tags = Annotated[list[str], BeforeValidator(_listed), Field(max_length=_MAX_TAGS)]
Flag = Annotated[bool | None, BeforeValidator(_nothing)]
Unserved = Annotated[Any, Field(description="Refused: not served.")]


class TranslateFields(BaseModel):
    """DeepL's fields."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[list[str], BeforeValidator(_alone)] = Field(min_length=1)
    target_lang: str = Field(min_length=1)
    source_lang: Annotated[str | None, BeforeValidator(_nothing)] = Field(
        None, description="Detected for each text where it is not sent."
    )
    context: str | None = Field(
        None, description="Accepted, and not used: the answer's `warnings` say so."
    )
    split_sentences: Annotated[
        Literal["0", "1", "nonewlines"] | None, BeforeValidator(_as_text)
    ] = Field(
        None,
        description="1 by default; in html a line end is white space, so that 1 is nonewlines.",
    )
    preserve_formatting: Flag = Field(None, description="Formatting is preserved either way.")
    formality: Annotated[
        Literal["default", "more", "less", "prefer_more", "prefer_less"] | None,
        BeforeValidator(_nothing),
    ] = Field(None, description="more and less are refused: no model has them.")
    model_type: Annotated[
        Literal["latency_optimized", "quality_optimized", "prefer_quality_optimized"] | None,
        BeforeValidator(_nothing),
    ] = Field(
        None,
        description=f"Greedy, or a search with {QUALITY_BEAMS} beams at least; by default as the "
        "model's generation_config.json says.",
    )
    tag_handling: Annotated[Literal["html", "xml"] | None, BeforeValidator(_nothing)] = None
    tag_handling_version: Annotated[Literal["v1", "v2"] | None, BeforeValidator(_nothing)] = Field(
        None, description="Of DeepL's own parser; there is one way here."
    )
    outline_detection: Flag = None
    ignore_tags: Tags = []
    splitting_tags: Tags = []
    non_splitting_tags: Tags = []
    show_billed_characters: Flag = Field(None, description="They are shown either way.")
    auth_key: str | None = None
    glossary_id: Unserved = None
    glossary_ids: Unserved = None
    style_id: Unserved = None
    custom_instructions: Unserved = None
    translation_memory_id: Unserved = None
    translation_memory_threshold: Unserved = None

    def verify(self) -> None:
        """Refuse what is not served, or would have no effect; raises InvalidRequest."""
        for name, reason in _NOT_SERVED.items():
            if getattr(self, name) not in (None, "", []):
                raise InvalidRequest(f"Value for {name!r} not supported: {reason}")
        if self.formality in ("more", "less"):
            raise InvalidRequest(
                f"'formality' is not supported for given 'target_lang': no model here has one; "
                f"send prefer_{self.formality} or default"
            )
        for name in _TAGS:
            if self.tag_handling is None and getattr(self, name):
                raise InvalidRequest(f"{name} has no effect without tag_handling; send html or xml")
        if self.outline_detection is False and self.tag_handling == "html":
            raise InvalidRequest("outline_detection has no effect on html; send it with xml")

    @property
    def rules(self) -> TextRules:
        """How the texts are read."""
        default = "nonewlines" if self.tag_handling == "html" else "1"
        kinds: Mapping[str, Literal["split", "flow", "whole"]]
        kinds = {"0": "whole", "1": "split", "nonewlines": "flow"}
        return TextRules(
            markup=self.tag_handling,
            ignored_tags=frozenset(self.ignore_tags),
            splitting_tags=frozenset(self.splitting_tags),
            non_splitting_tags=frozenset(self.non_splitting_tags),
            finds_outline=self.outline_detection is not False,
            sentences=kinds[self.split_sentences or default],
        )

    def decoding(self, usual_beams: int, max_beams: int) -> tuple[DecodingFields, str | None]:
        """Return how to decode, and the type of model that this comes to, if one was asked for.

        Args:
            usual_beams: what the models search with by themselves.
            max_beams: what one sentence may have.

        Raises:
            InvalidRequest: quality was insisted on where beam search is switched off.
        """
        if self.model_type is None:
            return DecodingFields(), None
        beams = min(max(QUALITY_BEAMS, usual_beams), max_beams)
        if self.model_type == "quality_optimized" and beams == 1:
            raise InvalidRequest(
                "model_type quality_optimized needs beam search, which this server does not allow; "
                "send prefer_quality_optimized"
            )
        if self.model_type == "latency_optimized" or beams == 1:
            return DecodingFields(num_beams=1), "latency_optimized"
        return DecodingFields(num_beams=beams), "quality_optimized"
