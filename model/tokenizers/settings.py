"""The settings of a tokenizer, gathered from its JSON files as the reference gathers them."""

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from model.checkpoint import Checkpoint
from model.config import UnsupportedModel

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)

_MOST_TOKENS = 2**16  # that a number in a file may ask for


@dataclass(frozen=True, slots=True)
class Settings:
    """What tokenizer_config.json and the older files beside it say.

    Attributes:
        values: the options; tokens are strings or AddedToken.
        added: {id: token} of the tokens beside the model's own vocabulary.
        named: special tokens under names of the checkpoint's own.
    """

    values: dict[str, Any]
    added: dict[int, AddedToken]
    named: dict[str, str | AddedToken]

    def named_tokens(self, defaults: dict[str, Any]) -> list[Any]:
        """Return the special tokens that have a name; `defaults` are those of the class."""
        names = {name: self.values.get(name, defaults.get(name)) for name in NAMED} | self.named
        return [token for token in names.values() if token is not None]

    def extra(self, otherwise: list[Any] | None) -> list[Any]:
        """Return the special tokens without a name."""
        if "extra_special_tokens" in self.values:
            return list(self.values["extra_special_tokens"] or ())
        return list(otherwise or ())

    def count(self, name: str, otherwise: int) -> int:
        """Return how many tokens of a kind there are; `otherwise` if it is not set."""
        count = self.values.get(name, otherwise)
        if not isinstance(count, int) or not 0 <= count <= _MOST_TOKENS:
            raise UnsupportedModel(
                f"tokenizer_config.json: {name} {count!r} is not from 0 to {_MOST_TOKENS}"
            )
        return count

    def flag(self, name: str) -> bool:
        """Return a yes-or-no option, no if it is not set."""
        return bool(self.values.get(name, False))


def read_settings(checkpoint: Checkpoint) -> Settings:
    """Read tokenizer_config.json, special_tokens_map.json, added_tokens.json, tokenizer.json.

    The last three count only where the first does not list the added tokens. A later file wins.
    """
    values = dict(checkpoint.read_json("tokenizer_config.json", default={}))
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    named = _own_names(values)
    if "added_tokens_decoder" in values:
        listed = values["added_tokens_decoder"].items()
        added = {int(index): AddedToken(**_fields(token)) for index, token in listed}
    else:
        _read_special_tokens(checkpoint, values, named)
        added = _read_added_tokens(checkpoint, values)
    values = {key: _tokens(value) for key, value in values.items()}
    by_text = {token.content: token for token in added.values()}
    for name in NAMED:
        if values.get(name) is not None:
            values[name] = by_text.get(text_of(values[name]), values[name])
    return Settings(values, added, named)


def text_of(token: str | AddedToken) -> str:
    """Return a token's text."""
    return token if isinstance(token, str) else str(token.content)


def _own_names(values: dict[str, Any]) -> dict[str, str | AddedToken]:
    """Take special tokens under unusual names out of `values`."""
    own = [key for key in values if key.endswith("_token") and key not in NAMED]
    named = {key: values.pop(key) for key in own if isinstance(values[key], str)}
    if isinstance(values.get("extra_special_tokens"), dict):
        named |= values.pop("extra_special_tokens")
    return named


def _read_special_tokens(
    checkpoint: Checkpoint, values: dict[str, Any], named: dict[str, str | AddedToken]
) -> None:
    for key, value in checkpoint.read_json("special_tokens_map.json", default={}).items():
        if key == "extra_special_tokens" and isinstance(value, list):
            known = list(values.get(key) or ())
            made = [_special(token) if isinstance(token, dict) else token for token in value]
            values[key] = known + [token for token in made if token not in known]
        elif key == "extra_special_tokens" and isinstance(value, dict):
            named |= value
        else:
            values[key] = _special(value) if isinstance(value, dict) else value


def _read_added_tokens(checkpoint: Checkpoint, values: dict[str, Any]) -> dict[int, AddedToken]:
    named = [values.get(name) for name in NAMED] + list(values.get("extra_special_tokens") or ())
    special = {text_of(_tokens(token)) for token in named if token}
    added = {}
    for text, index in checkpoint.read_json("added_tokens.json", default={}).items():
        is_special = text in special
        added[int(index)] = AddedToken(text, normalized=not is_special, special=is_special)
    for token in checkpoint.read_json("tokenizer.json", default={}).get("added_tokens", ()):
        fields = {key: value for key, value in token.items() if key != "id"}
        added[int(token["id"])] = AddedToken(**fields)
    return added


def _special(fields: dict[str, Any]) -> AddedToken:
    return AddedToken(**_fields(fields) | {"special": True})


def _fields(token: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key != "__type"}


def _tokens(value: Any) -> Any:
    """Return `value` with the tokens in it that are written as objects."""
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return AddedToken(**_fields(value))
    return [_tokens(item) for item in value] if isinstance(value, list) else value
