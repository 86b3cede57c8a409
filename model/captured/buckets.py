"""Buckets: for how many rows a step is captured."""

from collections.abc import Sequence

SMALLEST = 8  # below it a matrix product takes as long, or two kernels instead of one


def buckets(slots: int, smallest: int = SMALLEST) -> tuple[int, ...]:
    """Return the row counts to capture, ascending: `smallest`, doubled up to `slots`.

    The last one holds every slot. With `smallest` of at least `slots` there is one bucket, and no
    row's bits depend on how many there are.
    """
    if slots < 1 or smallest < 1:
        raise ValueError(f"buckets of {smallest} rows and more for {slots} slots")
    found, rows = [], min(smallest, max(slots, SMALLEST))
    while rows < slots:
        found.append(rows)
        rows *= 2
    return (*found, slots if found else rows)


def bucket_of(rows: int, captured: Sequence[int]) -> int:
    """Return the smallest of `captured`, ascending, that holds `rows`."""
    for bucket in captured:
        if rows <= bucket:
            return bucket
    raise ValueError(f"{rows} rows; at most {captured[-1]} were captured")
