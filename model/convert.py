"""Pickled checkpoints made safetensors: the one place that unpickles, run by hand in a process of
its own and never imported by the server.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model import describe
from model.building import verify_names
from model.checkpoint import Checkpoint, CheckpointError
from model.hub_files import PICKLED, SERVED, shards

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def convert(folder: Path, out: Path) -> None:
    """Write the checkpoint in `folder` to `out`, which is new or empty, with safetensors.

    What is safetensors already is copied; pickled weights are read as tensors only, one shard at a
    time, and keep their names and dtypes. A tensor with several names is written once. `out`
    appears when it is complete, and not before.

    Raises:
        CheckpointError: one line that names the file, and what is wrong with it.
        OSError: a disk is full or not writable.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not an empty folder; name another one")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    weights = _weights(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    _verify_space(weights, out.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        if weights[0].suffix == ".safetensors":
            _copy_safetensors(weights, partial)
        else:
            _unpickle_all(weights, partial)
        _copy_others(folder, partial)
        partial.chmod(0o755)
        partial.replace(out)
    except SafetensorError as error:  # how its writer tells of a full disk
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify(out: Path) -> None:
    """Raise what keeps a converted checkpoint from being served; no tensor is read for it.

    Raises:
        CheckpointError, UnsupportedModel: of its configuration, tokenizer, or names of tensors.
    """
    describe(out)
    verify_names(Checkpoint(out))


def _weights(folder: Path) -> list[Path]:
    """Return the files with the weights; safetensors where there are any."""
    for whole in (_WHOLE, "pytorch_model.bin"):
        if (folder / whole).is_file():
            return [folder / whole]
        parts = [folder / part for part in shards(folder / f"{whole}.index.json")]
        if absent := [part for part in parts if not part.is_file()]:
            raise CheckpointError(f"{absent[0]} is missing, which {whole}.index.json names")
        if parts:
            return parts
    raise CheckpointError(f"{folder} holds neither {_WHOLE} nor pytorch_model.bin")


def _verify_space(weights: Sequence[Path], disk: Path) -> None:
    needed = sum(path.stat().st_size for path in weights)
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise CheckpointError(
            f"{disk} has {free / 10**9:.1f} GB free; {needed / 10**9:.1f} GB are needed"
        )


def _copy_safetensors(weights: Sequence[Path], out: Path) -> None:
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated or not safetensors: {error}") from error
        shutil.copyfile(path, out / path.name)


def _copy_others(folder: Path, out: Path) -> None:
    """Copy config and tokenizer; what indexes the pickled shards stays behind."""
    for pattern in SERVED:
        for path in folder.glob(pattern):
            if path.suffix != ".safetensors" and path.name not in PICKLED:
                shutil.copyfile(path, out / path.name)


def _unpickle_all(weights: Sequence[Path], out: Path) -> None:
    if len(weights) == 1:
        _write(_unpickle(weights[0]), out / _WHOLE)
        return
    total = 0
    places: dict[str, str] = {}
    for number, path in enumerate(weights, 1):
        tensors = _unpickle(path)
        name = f"model-{number:05d}-of-{len(weights):05d}.safetensors"
        written = _write(tensors, out / name)
        total += sum(tensor.nbytes for tensor in written.values())
        places |= dict.fromkeys(written, name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (out / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _unpickle(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; nothing that a pickle may name is called but what makes tensors."""
    try:
        # Files of PyTorch before 1.6 are no archives, and cannot be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except UnpicklingError as error:
        reason = _first_sentence(error)
        raise CheckpointError(f"{path} is refused, nothing in it was run: {reason}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {_first_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds {type(content).__name__}, not tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {str(name)[:80]} is {type(tensor).__name__}, not a tensor"
            )
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _first_sentence(error: UnpicklingError) -> str:
    """Return the part of PyTorch's long advice that says what was found."""
    found = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)
    return found.splitlines()[0].partition(". Please")[0][:200] if found else "not a pickle"


def _write(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Write each distinct tensor under one name, in memory of its own; returns what was written."""
    written = {name: tensor.contiguous() for name, tensor in _distinct(tensors)}
    storages: set[int] = set()
    for name, tensor in written.items():
        if tensor.untyped_storage().data_ptr() in storages:  # a part of another one
            written[name] = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
    save_file(written, path, metadata={"format": "pt"})
    return written


def _distinct(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield tied tensors once, by the name that says so (`shared`), or else by their first."""
    ordered = sorted(tensors.items(), key=lambda item: "shared" not in item[0])
    seen: set[Any] = set()
    for name, tensor in ordered:
        view = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
        )
        if view not in seen or tensor.numel() == 0:
            yield name, tensor
        seen.add(view)
