"""Lets the modules inside `model` be imported where little more than PyTorch is installed.

`model/__init__.py` imports what reads checkpoints, tokenizers and languages; a benchmark of random
networks needs none of it.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_MODEL = Path(__file__).parents[2] / "model"
_READERS = ("cachetools", "langcodes", "safetensors", "sentencepiece", "tokenizers")


class _KeepsNothing(dict[Any, Any]):
    """What `cachetools.LRUCache` is at size 0, the only one that is used here."""

    maxsize, currsize = 0, 0

    def __init__(self, maxsize: int, getsizeof: object = None) -> None:
        super().__init__()
        if maxsize:
            raise ValueError("cachetools is missing: a latent cache of size 0 only")


def without_public_names() -> None:
    """Let `import model.x` run nothing of the package itself where that could not be imported."""
    if all(map(is_installed, _READERS)):
        return
    if "model" not in sys.modules:
        package = ModuleType("model")
        package.__path__ = [str(_MODEL)]
        sys.modules["model"] = package
    if not is_installed("cachetools"):
        stand_in = ModuleType("cachetools")
        vars(stand_in)["LRUCache"] = _KeepsNothing
        sys.modules["cachetools"] = stand_in


def is_installed(name: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
