"""Which files of a repository are fetched, and whether a folder has all it needs."""

import json
from collections.abc import Collection
from pathlib import Path

# Top level only. No code, no other frameworks' weights; what is pickled only to be converted.
SERVED = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "*.json",
    "*.spm",
    "*.model",
    "merges.txt",
    "vocab.txt",
)
PICKLED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "*.spm", "*.model")


def has_pickled_weights(names: Collection[str]) -> bool:
    """Whether PyTorch's pickled weights are among the files."""
    return "pytorch_model.bin" in names or "pytorch_model.bin.index.json" in names


def is_complete(folder: Path, *, pickled: bool = False) -> bool:
    """Whether config, tokenizer and weights are all there, every shard of the weights included.

    Args:
        pickled: let pickled weights count where there are no safetensors.
    """
    if not (folder / "config.json").is_file():
        return False
    if not any(path.is_file() for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        return False
    kinds = ["model.safetensors", "pytorch_model.bin"][: 1 + pickled]
    return any(_has_weights(folder, kind) for kind in kinds)


def _has_weights(folder: Path, whole: str) -> bool:
    if (folder / whole).is_file():
        return True
    parts = shards(folder / f"{whole}.index.json")
    return bool(parts) and all((folder / part).is_file() for part in parts)


def shards(index: Path) -> list[str]:
    """Return the names of the files that an index of weights lists; none if there is no index."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({Path(name).name for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
