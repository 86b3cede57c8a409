"""API keys: who may ask for work, where keys are configured."""

import hashlib
import hmac
from collections.abc import Iterable

from server.errors import InvalidKey, MissingKey

_SCHEMES = ("bearer", "deepl-auth-key")


class Keys:
    """The configured keys; none means that every request is welcome."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @property
    def are_required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._digests)

    def verify(self, authorization: str | None, field: str | None) -> None:
        """Accept a key from the Authorization header, or else from a field; constant in time.

        Raises:
            MissingKey, InvalidKey: a key is needed, and none or another one was sent.
        """
        if not self.are_required:
            return
        sent = key_in(authorization) or field
        if not sent:
            raise MissingKey("Please contact the server operator to get an API key")
        digest = _digest(sent)
        # Every key is compared, so that the time tells nothing about which one came close.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise InvalidKey("Invalid API key")

    def __repr__(self) -> str:
        return f"<Keys {len(self._digests)}>"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def key_in(authorization: str | None) -> str | None:
    """Return the key in an Authorization header; None where it holds something else, or nothing."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() in _SCHEMES else None
