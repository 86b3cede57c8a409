"""What can go wrong, as the client sees it.

ServiceError (500)
    InvalidRequest (400)        what was sent cannot be served; says what to change
        UnsupportedLanguage (400)
    TooLarge (413)              a limit is exceeded; names it
    UnsupportedMedia (415)
    BodyTimeout (408)           the body did not arrive in time
    MissingKey (401), InvalidKey (403), Disabled (403)
    UnknownModel (404), NotFound (404)
    QueueFull (429), NotReady (503), Draining (503)   refused for now; `retry_after_s`
    DeadlineExceeded (504)
    ClientGone (499)            nobody is left to answer
"""

from typing import ClassVar


class ServiceError(Exception):
    """A request that failed; `code` is public API and never changes meaning."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retry_after_s: float | None = None


class GenerationFailed(ServiceError):
    """The model could not finish this request; others were not touched."""

    code = "generation_failed"
    title = "The model failed on this request"


class InvalidRequest(ServiceError):
    """What was sent cannot be served; the message says what to change."""

    status = 400
    code = "invalid_request"
    title = "Invalid request"

    def __init__(self, sentence: str, more: str = "") -> None:
        """Take the message in two parts.

        Args:
            sentence: all that a client which knows its servers' sentences by heart is told.
            more: what helps, for everybody else; begins with what parts it from the sentence.
        """
        super().__init__(sentence + more)
        self.sentence = sentence


class UnsupportedLanguage(InvalidRequest):
    """No loaded model translates this pair."""

    code = "unsupported_language"
    title = "Unsupported language"


class TooLarge(ServiceError):
    """A limit is exceeded; the message names it."""

    status = 413
    code = "too_large"
    title = "Too large"


class UnsupportedMedia(ServiceError):
    """The body's type or encoding is not read here."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class BodyTimeout(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"
    title = "Body timeout"


class MissingKey(ServiceError):
    """An API key is required and none was sent."""

    status = 401
    code = "missing_api_key"
    title = "API key required"


class InvalidKey(ServiceError):
    """The API key is not one of ours."""

    status = 403
    code = "invalid_api_key"
    title = "Invalid API key"


class Disabled(ServiceError):
    """Whoever runs the server has switched this off."""

    status = 403
    code = "disabled"
    title = "Switched off"


class UnknownModel(ServiceError):
    """No loaded model has this name."""

    status = 404
    code = "unknown_model"
    title = "Unknown model"


class NotFound(ServiceError):
    """Nothing has the name that was asked for."""

    status = 404
    code = "not_found"
    title = "Not found"


class Refused(ServiceError):
    """Not now; the same request may succeed after `retry_after_s`."""

    reason: ClassVar[str]

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Refused):
    """As many segments wait as may wait."""

    status = 429
    code = reason = "queue_full"
    title = "Queue full"


class NotReady(Refused):
    """The model is still loading, or the engine has failed."""

    status = 503
    code = "not_ready"
    title = "Not ready"
    reason = "not_ready"


class Draining(Refused):
    """The server is shutting down and accepts nothing new."""

    status = 503
    code = reason = "draining"
    title = "Shutting down"


class DeadlineExceeded(ServiceError):
    """The request did not finish within its time."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class ClientGone(ServiceError):
    """The client left; whatever is answered reaches nobody."""

    status = 499
    code = "client_gone"
    title = "Client closed the connection"
