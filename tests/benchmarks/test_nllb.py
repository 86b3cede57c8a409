"""The checkpoint of NLLB's dimensions, small, in every engine that is measured."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks import bench
from benchmarks.cases import random_sources
from benchmarks.checkpoints import convert_for_ctranslate2
from benchmarks.direct import Work
from benchmarks.memory import available_mb
from benchmarks.nllb import write_nllb
from benchmarks.offline_nllb import verify_memory
from benchmarks.peers.ctranslate2_direct import CTranslate2Direct
from benchmarks.peers.transformers_direct import TransformersDirect
from benchmarks.stele_direct import SteleDirect
from model import describe

PIECES, VOCABULARY = 8000, 8205  # 202 languages, the mask and two ids without a token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nllb") / "checkpoint"
    write_nllb(path, width=128, layers=2, hidden=256, vocabulary=VOCABULARY, pieces=PIECES)
    return path


@pytest.fixture(scope="module")
def converted(folder: Path) -> Path:
    path = folder.with_name("converted")
    convert_for_ctranslate2(folder, path, None)
    return path


def test_ctranslate2_has_a_token_for_every_embedding(converted: Path) -> None:
    vocabulary = json.loads((converted / "shared_vocabulary.json").read_text(encoding="utf-8"))
    assert len(set(vocabulary)) == VOCABULARY
    assert vocabulary[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert "eng_Latn" in vocabulary[PIECES:]


def test_special_tokens_have_the_least_of_logits(folder: Path) -> None:
    embeddings = load_file(folder / "model.safetensors")["model.shared.weight"]
    assert not embeddings[:4].any()
    assert embeddings[4:].any(dim=1).all()


def test_it_can_be_served(folder: Path) -> None:
    card = describe(folder)
    assert "de" in card.targets["en"]
    assert card.vocabulary == VOCABULARY


def test_engines_agree_and_only_the_limit_ends_a_target(folder: Path, converted: Path) -> None:
    sources = random_sources([9, 5, 12], seed=1, language=PIECES + 3, end=2)
    work = Work(sources=sources, rows=3, longest=12)
    ours = SteleDirect(folder, "float32", rows=3).translate(work)
    assert [len(target) for target in ours] == [12, 12, 12]
    assert TransformersDirect(folder).translate(work) == ours
    assert CTranslate2Direct(converted, "float32", 1, 1).translate(work) == ours
    assert len({tuple(target) for target in ours}) > 1, "sources are without effect"
    assert all(len(set(target)) > 1 for target in ours), "targets repeat one token"


def test_too_little_memory_is_a_reason_in_one_line(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 24000000 kB\nMemAvailable:    4000000 kB\n")
    assert available_mb(meminfo) == 4096
    assert available_mb(tmp_path / "absent") == float("inf")
    verify_memory("it", 4000, available_mb(meminfo))
    with pytest.raises(RuntimeError, match=r"^it: 8 GB of memory are needed, 4.1 GB are free$"):
        verify_memory("it", 8000, available_mb(meminfo))


def test_a_module_that_fails_says_why_in_its_last_line() -> None:
    with pytest.raises(RuntimeError, match=r"No module named benchmarks\.absent$"):
        bench.run_module("absent")
