"""What may be asked of a translation: LibreTranslate's fields, and our own."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from server.decoding_fields import DecodingFields
from server.errors import InvalidRequest
from server.text.rules import TextRules

MAX_ALTERNATIVES = 32


class TranslateRequest(DecodingFields):
    """LibreTranslate's fields, and our own."""

    q: str | list[str] = Field(description="One text or several.")
    source: str = Field(description="A language code, or auto.")
    target: str
    format: Literal["text", "html"] = "text"
    alternatives: int = Field(
        0,
        json_schema_extra={"minimum": 0, "maximum": MAX_ALTERNATIVES},
        description="Other translations to return, at most; they differ early. None of html.",
    )
    glossary: dict[str, str] | None = Field(
        None, description="Source terms, and what stands for each in the translation."
    )
    protected: list[str] | None = Field(None, description="Terms that stay as they are.")
    api_key: str | None = None
    secret: str | None = Field(None, description="Sent by LibreTranslate's own page; not used.")
    model: str | None = Field(
        None, description="Which loaded model; by default the first that knows the languages."
    )
    details: bool = Field(False, description="Adds finish reason, usage, timings and scores.")
    preview: bool = Field(
        False, description="In a stream: preview events tell what may follow what is certain."
    )

    @field_validator("format", mode="before")
    @classmethod
    def _known_format(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("", "text", "html"):
            raise InvalidRequest(f"{value[:40]} format is not supported")
        return value or "text"

    @field_validator("alternatives", mode="wrap")
    @classmethod
    def _number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> int:
        try:
            number: int = handler(0 if value is None else value)
        except ValidationError as error:
            sentence = "Invalid request: alternatives parameter is not a number"
            raise InvalidRequest(sentence) from error
        if number < 0:
            raise InvalidRequest("Invalid request: alternatives parameter must be >= 0")
        return number

    @property
    def rules(self) -> TextRules:
        """How the texts are read."""
        return TextRules(
            markup="html" if self.format == "html" else None,
            glossary=tuple((self.glossary or {}).items()),
            protected=tuple(self.protected or ()),
        )

    @property
    def texts(self) -> list[str]:
        """The texts in order, also where only one was sent."""
        return [self.q] if isinstance(self.q, str) else self.q


class DetectRequest(BaseModel):
    """LibreTranslate's fields."""

    model_config = ConfigDict(extra="forbid")

    q: str
    api_key: str | None = None
