"""A checkpoint folder in Hugging Face's layout: its JSON files and its safetensors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json")


class CheckpointError(ValueError):
    """A checkpoint that cannot be served; the message is one line that names file and tensor."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tensor must be, and what to make of it."""

    shape: torch.Size
    dtype: torch.dtype


class Checkpoint:
    """One folder. Nothing is unpickled and nothing is executed."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`, which must exist and hold config.json."""
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder")
        self.folder = folder
        self.config = self.read_json("config.json")
        self.generation = self.read_json("generation_config.json", default={})

    def file(self, name: str) -> Path:
        """Return the path of a file that must be there."""
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        return path

    def read_json(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read a JSON object; `default` stands for a missing file."""
        if default is not None and not (self.folder / name).exists():
            return default
        path = self.file(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds {type(content).__name__}, not a JSON object")
        return content

    @cached_property
    def shards(self) -> dict[str, Path]:
        """Which file holds each tensor, by the tensor's name."""
        single, index = self.folder / _SINGLE, self.folder / _INDEX
        if single.is_file():
            with _open(single) as file:
                return dict.fromkeys(file.keys(), single)
        if not index.is_file():
            raise CheckpointError(self._what_is_there_instead())
        return self._indexed(index)

    def _what_is_there_instead(self) -> str:
        for name in _PICKLED:
            if (self.folder / name).exists():
                return (
                    f"{self.folder / name} is pickled, which can execute code when it is read; "
                    f"`stele convert {self.folder} OUT` writes it as {_SINGLE}"
                )
        return f"{self.folder / _SINGLE} is missing"

    def _indexed(self, index: Path) -> dict[str, Path]:
        names = self.read_json(_INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(f, str) for f in names.values()):
            raise CheckpointError(f"{index} lacks a weight_map of tensors to files")
        held: dict[str, set[str]] = {}
        for name in sorted(set(names.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{index} names {name!r}, not a safetensors file beside it")
            with _open(self.file(name)) as file:
                held[name] = set(file.keys())
        for tensor, name in names.items():
            if tensor not in held[name]:
                raise CheckpointError(f"{self.folder / name} lacks {tensor}, which {index} names")
        return {tensor: self.folder / name for tensor, name in names.items()}

    def tensors(self, wanted: Mapping[str, Wanted]) -> Iterator[tuple[str, Tensor]]:
        """Read tensors one by one, each converted before the next is read.

        Args:
            wanted: what to read, by the checkpoint's names; all of them are in `shards`.

        Raises:
            CheckpointError: a tensor is mis-shaped or not a number, or its file is truncated.
        """
        for path in sorted({self.shards[name] for name in wanted}):
            with _open(path) as file:
                for name in sorted(name for name in wanted if self.shards[name] == path):
                    yield name, _read(file, path, name, wanted[name])

    def verify_names(self, needed: set[str], derived: tuple[str, ...]) -> None:
        """Refuse a checkpoint that lacks a tensor or holds an unknown one.

        Args:
            derived: parts of names that are computed or tied, and may stand in the file unread.

        Raises:
            CheckpointError: names the first such tensor.
        """
        found = set(self.shards)
        if missing := sorted(needed - found):
            path = next(iter(self.shards.values()), self.folder)
            raise CheckpointError(f"{path}: {missing[0]} is missing ({len(missing)} in all)")
        unknown = sorted(n for n in found - needed if not any(part in n for part in derived))
        if unknown:
            path = self.shards[unknown[0]]
            raise CheckpointError(f"{path}: {unknown[0]} is unknown ({len(unknown)} in all)")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not safetensors: {error}") from error


def _read(file: Any, path: Path, name: str, wanted: Wanted) -> Tensor:
    shape = torch.Size(file.get_slice(name).get_shape())
    if shape != wanted.shape:
        raise CheckpointError(f"{path}: {name} has shape {list(shape)}, not {list(wanted.shape)}")
    stored = file.get_tensor(name)
    if not stored.is_floating_point():
        raise CheckpointError(f"{path}: {name} is {stored.dtype}, not floating point")
    # A copy even where nothing is converted: what is stored is a view of the file's pages.
    tensor: Tensor = stored.to(wanted.dtype, copy=True)
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{path}: {name} holds values that are not finite in {wanted.dtype}")
    return tensor
