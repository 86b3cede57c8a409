"""The GPU benchmark from its command to its table, in toy sizes on a CPU."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import launcher, records, worker
from benchmarks.gpu.launcher import Ended
from benchmarks.gpu.names import BART, MODELS, NLLB, OPUS, T5
from benchmarks.gpu.stages import NAMES

ROOT = Path(__file__).parents[2]
ABSENT = (
    *("cachetools", "ctranslate2", "fastapi", "langcodes", "pydantic", "safetensors"),
    *("sentencepiece", "starlette", "tokenizers", "transformers", "uvicorn"),
)
BLOCKER = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def in_this_process(command: Sequence[str], limit_s: float) -> Ended:
    """Do a stage here: what a process of its own would import is imported already."""
    try:
        return Ended(worker.main(command[3:]), [])
    except AssertionError as error:
        return Ended(1, [str(error)])


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Return what every stage but the served one recorded, by stage."""
    path = tmp_path_factory.mktemp("gpu") / "out.jsonl"
    stages = [name for name in NAMES if name not in ("served", "optional")]
    arguments = ["--device", "cpu", "--tiny", "--out", str(path), "--stages", *stages]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "launch", lambda *given: launcher.launch(*given, run=in_this_process))
        assert gpu.main(arguments) == 0
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in stages}
    for line in records.read(path):
        found[line["stage"]].append(line)
    return found


def named(lines: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["what"] == what]


def test_every_stage_runs_from_end_to_end(figures: dict[str, list[dict[str, Any]]]) -> None:
    for stage, lines in figures.items():
        assert [line["value"] for line in named(lines, "ended")] == ["ok"], stage
        assert len(lines) > 1, f"{stage} measured nothing"
    assert not any("predicted" in line for lines in figures.values() for line in lines)


def test_every_model_has_steps_with_their_limits(figures: dict[str, list[dict[str, Any]]]) -> None:
    steps = named(figures["steps"], "decode step")
    for model in MODELS:
        (line,) = (s for s in steps if s["model"] == model and s["rows"] == 4 and "case" not in s)
        assert line["share"] == pytest.approx(line["limit_us"] / line["value"])
        assert line["tokens_per_s"] == pytest.approx(4e6 / line["value"])
    cases = {s.get("case") for s in steps if s["model"] == OPUS}
    assert cases >= {"in a bucket of 4", "draws", "beams", "mixed", "not captured"}


def test_captured_tokens_are_the_eager_ones_in_float32_and_told_in_half_precisions(
    figures: dict[str, list[dict[str, Any]]],
) -> None:
    equal = {
        (line["model"], line["case"]): line for line in named(figures["equality"], "tokens equal")
    }
    for model in MODELS:
        assert equal[model, "toy, captured and eager, float32"]["value"] == 1
        for half in ("float16", "bfloat16"):
            line = equal[model, f"toy, captured and eager, {half}"]
            assert 0 <= line["value"] <= 1
            assert line["equal_to_float32"].keys() == {"captured", "eager"}


def test_bits_are_compared_however_rows_are_arranged(
    figures: dict[str, list[dict[str, Any]]],
) -> None:
    bits = named(figures["capture"], "equal bits")
    assert all(line["value"] is True for line in bits)
    for model in (OPUS, BART):
        assert {line["case"] for line in bits if line["model"] == model} == {
            "replayed and eager",
            "permuted rows",
            "alone and together, one bucket",
            "joining and leaving, one bucket",
        }
    across = named(figures["capture"], "tokens equal")
    assert {line["model"] for line in across} == {OPUS, BART}


def test_whole_batches_count_the_tokens_of_both_protocols(
    figures: dict[str, list[dict[str, Any]]],
) -> None:
    batches = {(b["model"], b["case"]): b for b in named(figures["batches"], "whole batch")}
    assert batches[BART, "forced"]["tokens"] == 28
    assert batches[BART, "stopped"]["tokens"] == 20
    assert {(OPUS, "translation, eager"), (NLLB, "translation, 4 beams")} <= {*batches}
    for line in batches.values():
        assert line["tokens_per_s"] == pytest.approx(line["tokens"] / line["value"] * 1e3)


def test_a_single_stream_the_host_and_the_encoder_are_timed(
    figures: dict[str, list[dict[str, Any]]],
) -> None:
    assert {line["model"] for line in named(figures["stream"], "first token")} == {T5, OPUS}
    through = named(figures["overlap"], "step through the host")
    assert {line["case"] for line in through} >= {"1 in a launch, 1 late", "4 in a launch, 0 late"}
    beside = named(figures["encoder"], "step beside the encoder")
    assert len(beside) == 3


@contextlib.contextmanager
def without(path: Path) -> Iterator[dict[str, str]]:
    (path / "sitecustomize.py").write_text(BLOCKER)
    yield {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}


def test_nothing_but_pytorch_is_needed_and_the_server_is_left_out_with_a_reason(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["--device", "cpu", "--tiny", "--out", str(out), "--stages", "stream", "served"]
    with without(tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    ended = {line["stage"]: line for line in records.read(out) if line["what"] == "ended"}
    assert {name: line["value"] for name, line in ended.items()} == {
        "environment": "ok",
        "stream": "ok",
        "served": "skipped",
    }
    assert ended["served"]["reason"].startswith("the server needs fastapi, ")
    assert "toy sizes: no figure below means anything" in done.stdout


def test_the_process_that_launches_imports_neither_torch_nor_the_model() -> None:
    check = (
        "import sys; from benchmarks.gpu.__main__ import main; main(['--report', '--out', 'none']);"
        "print(sorted({'torch', 'numpy', 'model'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_captured_steps_that_differ_from_the_eager_ones_fail_their_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.gpu import equality

    honest = equality._captured

    def off_by_one(*given: Any) -> list[tuple[int, ...]]:
        first, *rest = honest(*given)
        return [(*first[:-1], first[-1] + 1), *rest]

    monkeypatch.setattr(equality, "_captured", off_by_one)
    monkeypatch.setattr(equality, "MODELS", (OPUS,))
    arguments = ["equality", "--until", "1e12", "--device", "cpu", "--tiny"]
    with pytest.raises(equality.Differs, match=r"float32: OPUS-MT base \(toy\)"):
        worker.main([*arguments, "--out", str(tmp_path / "out.jsonl")])
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["value"] == 7 / 8
    assert first["tokens_equal_until_first_difference"] < 1
