"""What is captured, and how far steps run ahead of the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.captured.buckets import SMALLEST
from model.captured.chosen import Implementation


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Choices of a captured machine; impossible values raise ValueError.

    Attributes:
        bucket_min: rows of the smallest captured step. With as many as there are slots, or more,
            every step has the same shape, and no row's bits depend on how many run.
        late: how many steps run ahead of the host at most, while it reads what is done.
        max_beams: of a search that steps continue by themselves; the host continues wider ones.
        encoder_tokens: encoded at once, padding included, or one source. The larger, the longer a
            running decode may have to share the device; with 1 each source is encoded alone, and
            its bits do not depend on others.
        replaced: as `chosen` says, which implementation of an operation is taken instead.
    """

    bucket_min: int = SMALLEST
    late: int = 1
    max_beams: int = 8
    encoder_tokens: int = 8192
    replaced: Mapping[str, Implementation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Verify each value."""
        for name, least in (
            ("bucket_min", 1),
            ("late", 0),
            ("max_beams", 2),
            ("encoder_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")
