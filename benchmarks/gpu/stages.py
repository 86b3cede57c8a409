"""The stages in the order in which they decide most, each with the time it may take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CALL_S = 9 * 60  # a call of the prepared order must end by itself before a lease's limit ends it


@dataclass(frozen=True, slots=True)
class Stage:
    """A process of its own: what kills one leaves the others.

    Attributes:
        module: in this package; its `run` does the stage.
        part: of the module's work, where several stages share it.
        call: which call of the prepared order it belongs to; 0 is part of every one.
    """

    name: str
    module: str
    limit_s: float
    call: int
    decides: str
    part: str = ""


OPERATIONS = ("embed", "add_norm", "append_attend", "cross_attend", "pick", "advance")


def _check(operation: str) -> Stage:
    return Stage(f"check-{operation}", "kernel_checks", 30, 1, f"which {operation} runs", operation)


STAGES = (
    Stage("environment", "environment", 150, 0, "what was measured, and where"),
    Stage("probe", "probe", 45, 1, "the chip's ceilings, launches and replays"),
    *map(_check, OPERATIONS),
    Stage("gemms", "gemms", 60, 1, "the smallest row bucket"),
    Stage("attention", "attention", 60, 1, "the kernel for each length of source"),
    Stage("equality", "equality", 60, 1, "captured against eager, the precision of each family"),
    Stage("capture", "capture", 80, 1, "replayed against eager, permuted rows, other buckets"),
    Stage("steps", "steps", 80, 1, "decode steps against their limits"),
    Stage("profile", "profiles", 40, 2, "what a step launches"),
    Stage("batches", "batches", 120, 2, "whole batches, the published protocol among them"),
    Stage("overlap", "overlap", 70, 2, "steps in one launch, and whether the host keeps up"),
    Stage("encoder", "encoding", 60, 2, "chunks of the encoder beside the running decode"),
    Stage("stream", "one_stream", 30, 2, "first token and gaps of a single stream"),
    Stage("served", "over_http", 90, 2, "over HTTP, against CTranslate2 where it runs"),
    Stage("optional", "optional", 60, 2, "what a second round of fusion could gain"),
)
NAMES = tuple(stage.name for stage in STAGES)
_ALWAYS_AGAIN = ("steps", "batches")


def named(names: Iterable[str]) -> list[Stage]:
    """Return the stages of these names in their order, after those that every call begins with.

    Raises:
        ValueError: a name is none of a stage.
    """
    wanted = set(names)
    if unknown := sorted(wanted - {*NAMES}):
        raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return [stage for stage in STAGES if stage.call == 0 or stage.name in wanted]


def of_call(call: int, ended_well: Sequence[str]) -> list[Stage]:
    """Return the stages of the prepared order's call.

    Args:
        call: 1, 2, or 3: what has not ended well before, then the figures that are published.
        ended_well: names of stages that did.
    """
    if call < 3:
        return [stage for stage in STAGES if stage.call in (0, call)]
    again = [name for name in NAMES if name not in ended_well]
    return named([*again, *_ALWAYS_AGAIN])
