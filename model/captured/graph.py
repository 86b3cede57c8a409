"""A step recorded once and replayed: on a CPU as a tape of operators, as exact as a device's graph.

Numbers are baked in, tensors stay where they are, and none of Python between the operators runs
again: what would be wrong in a device's graph is wrong here.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], None]


class Graph(Protocol):
    """One recorded step."""

    def replay(self) -> None:
        """Run it again, on the tensors that it was recorded with."""


class _Call:
    """One operator with its arguments, and the tensors that its results belong in."""

    def __init__(self, operator: Any, args: Any, kwargs: Any, fresh: list[tuple[int, Tensor]]):
        self._operator, self._args, self._kwargs, self._fresh = operator, args, kwargs, fresh

    def replay(self) -> None:
        results = tree_leaves(self._operator(*self._args, **self._kwargs))
        for index, tensor in self._fresh:
            tensor.copy_(results[index])


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        given = set(_storages((args, kwargs)))
        fresh = [
            (index, result)
            for index, result in enumerate(tree_leaves(results))
            if isinstance(result, Tensor) and _storage(result) not in given
        ]
        # A view of a tensor that stays where it is needs no replay.
        if fresh or func._schema.is_mutable:
            self.calls.append(_Call(func, args, kwargs or {}, fresh))
        return results


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _storages(values: Any) -> Iterator[int]:
    return (_storage(value) for value in tree_leaves(values) if isinstance(value, Tensor))


class TapeGraph:
    """A `Graph` of operators on the CPU; recording runs the step once."""

    def __init__(self, step: Step) -> None:
        with _Recorder() as recorder:
            step()
        self._calls = recorder.calls

    def replay(self) -> None:
        """As `Graph` says."""
        for call in self._calls:
            call.replay()

    def __len__(self) -> int:
        return len(self._calls)
