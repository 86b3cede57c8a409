"""A checkpoint folder in Hugging Face's layout: its JSON files and its safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_PICKLED = ("pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json")


class CheckpointError(ValueError):
    """A checkpoint that cannot be served; the message is one line that names file and tensor."""


class Checkpoint:
    """One folder. Nothing is unpickled and nothing is executed."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`, which must exist and hold config.json and model.safetensors."""
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
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds {type(content).__name__}, not a JSON object")
        return content

    def _weights(self) -> Path:
        path = self.folder / "model.safetensors"
        if path.is_file():
            return path
        for name in _PICKLED:
            if (self.folder / name).exists():
                raise CheckpointError(
                    f"{self.folder / name} is pickled, which can execute code when it is read; "
                    "convert it to model.safetensors"
                )
        raise CheckpointError(f"{path} is missing")

    def tensors(
        self, shapes: Mapping[str, torch.Size], derived: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Read exactly the tensors named in `shapes`.

        Args:
            shapes: what the network needs, by the checkpoint's names.
            derived: parts of names that are computed or tied, and may stand in the file unread.

        Raises:
            CheckpointError: a tensor is missing, mis-shaped, not a number or unknown, or the file
                is truncated.
        """
        path = self._weights()
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
                self._verify_names(path, names, set(shapes), derived)
                tensors = {name: file.get_tensor(name) for name in shapes}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated or not safetensors: {error}") from error
        for name, tensor in tensors.items():
            if tensor.shape != shapes[name]:
                raise CheckpointError(
                    f"{path}: {name} has shape {list(tensor.shape)}, not {list(shapes[name])}"
                )
            if not tensor.is_floating_point():
                raise CheckpointError(f"{path}: {name} is {tensor.dtype}, not floating point")
            if not bool(tensor.float().isfinite().all()):
                raise CheckpointError(f"{path}: {name} holds values that are not finite")
        return tensors

    @staticmethod
    def _verify_names(
        path: Path, found: set[str], needed: set[str], derived: tuple[str, ...]
    ) -> None:
        if missing := sorted(needed - found):
            raise CheckpointError(f"{path}: {missing[0]} is missing ({len(missing)} in all)")
        unknown = sorted(n for n in found - needed if not any(part in n for part in derived))
        if unknown:
            raise CheckpointError(f"{path}: {unknown[0]} is unknown ({len(unknown)} in all)")
