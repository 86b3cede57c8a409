"""The reference's tokenizers, of folders as they are published."""

import json
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from model import BUNDLED, Tokenizer
from model.checkpoint import Checkpoint
from model.tokenizer import open_tokenizer
from tests.model.corpus import SHARED
from tests.model.vocabularies import Files, model_type, write_tokenizer

REAL = {  # folder: (model_type, vocabulary of the published model)
    "marian-fr-en": ("marian", 53017),
    "marian-nmt-joint": ("marian", 32001),
    "mbart-barthez": ("mbart", 50002),
    "pegasus-mmcquade11": ("pegasus", 96103),
    "roberta-bart-bpe": ("bart", 50265),
    "t5-small-tokenizer": ("t5", 32128),
}
UNREADABLE = ("marian-nmt-joint", "mbart-barthez")  # by transformers


@dataclass(frozen=True)
class Reference:
    """`tokenizer(text).input_ids` and `decode(ids, skip_special_tokens=True)`."""

    tokenizer: Any

    @property
    def is_bare(self) -> bool:
        return isinstance(self.tokenizer, tokenizers.Tokenizer)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        if self.is_bare:
            return [self.tokenizer.encode(text).ids for text in texts]
        with warnings.catch_warnings():  # ByT5's, of a text that brings its own end
            warnings.filterwarnings("ignore", message="This sequence already has")
            return [list(ids) for ids in self.tokenizer(list(texts)).input_ids]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size() if self.is_bare else len(self.tokenizer)


def open_ours(folder: Path) -> Tokenizer:
    checkpoint = Checkpoint(folder)
    config = checkpoint.config
    return open_tokenizer(
        checkpoint, architecture=config["model_type"], vocabulary=config["vocab_size"], eos=1
    )


def open_reference(folder: Path, **options: Any) -> Reference:
    if folder.name in UNREADABLE:
        return Reference(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
    with warnings.catch_warnings():  # it recommends sacremoses, which it uses for nothing here
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return Reference(AutoTokenizer.from_pretrained(folder, **options))


def published(name: str, into: Path) -> Path:
    """Copy a published folder, with a config.json where it has none; skip where it is absent."""
    if name == "bundled":
        return BUNDLED
    folder = SHARED / "ckpt" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    copied = into / name
    shutil.copytree(folder, copied, copy_function=shutil.copyfile)
    copied.chmod(0o755)
    write_config(copied, *REAL[name])
    return copied


def made(family: str, files: Files, into: Path) -> Path:
    """Write a family's tokenizer, trained here, with a config.json."""
    folder = into / f"{family}-{files}"
    folder.mkdir()
    write_config(folder, model_type(family), write_tokenizer(family, folder, files))
    return folder


def write_config(folder: Path, architecture: str, vocabulary: int) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text()) if path.exists() else {"model_type": architecture}
    path.unlink(missing_ok=True)
    ids = {"pad_token_id": 0, "decoder_start_token_id": 0}
    path.write_text(json.dumps(ids | content | {"vocab_size": vocabulary}))


def change_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON object; ... removes one."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content |= changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
