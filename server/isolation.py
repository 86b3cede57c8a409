"""Calls of a model that may fail: repeated item by item, so that a failure takes nobody along."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from server.device_lock import DeviceLock

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def isolated(
    device: DeviceLock, call: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]
) -> tuple[list[tuple[Sequence[_Item], _Result]], list[_Item]]:
    """Call with all items, or once more with each alone where that raises.

    Args:
        device: held during each call.
        call: returns anything but None.

    Returns:
        What was called with success and its result, and the items that raise even alone.
    """
    if (result := _attempt(device, call, items)) is not None:
        return [(items, result)], []
    done: list[tuple[Sequence[_Item], _Result]] = []
    failed = []
    for item in items:
        if (result := _attempt(device, call, [item])) is not None:
            done.append(([item], result))
        else:
            failed.append(item)
    return done, failed


def _attempt(
    device: DeviceLock, call: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]
) -> _Result | None:
    """Call; None if it raised: the one broad catch of the engine."""
    try:
        with device:
            return call(items)
    except Exception:
        logger.exception("the model failed on %d rows", len(items))
        return None
