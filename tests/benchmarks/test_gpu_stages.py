"""The GPU benchmark's stages: their order and limits, what becomes of one that fails."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.gpu import records, stages, worker
from benchmarks.gpu.__main__ import failed_checks, main, replacements
from benchmarks.gpu.launcher import SKIPPED_CODE, Ended, launch, run_process
from benchmarks.gpu.records import Records
from benchmarks.gpu.report import GOALS
from benchmarks.gpu.stages import CALL_S, NAMES, OPERATIONS, STAGES, Stage


class Clock:
    """A clock that stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Processes:
    """Runs nothing: each command takes the seconds and ends with the code given for it."""

    def __init__(self, clock: Clock, **ends: tuple[float, int]) -> None:
        self._clock, self._ends = clock, ends
        self.limits: dict[str, float] = {}

    def __call__(self, command: Sequence[str], limit_s: float) -> Ended:
        (name,) = command
        seconds, code = self._ends.get(name, (1.0, 0))
        self.limits[name] = limit_s
        self._clock.now += min(seconds, limit_s)
        return Ended(code if seconds <= limit_s else None, ["a traceback", f"{name} said why"])


def named(name: str, limit_s: float = 40.0) -> Stage:
    return Stage(name, name, limit_s, 1, "nothing")


def run(path: Path, seconds: float, processes: Processes, clock: Clock, *names: str) -> None:
    chosen = [named(name) for name in names]
    launch(chosen, lambda stage, until: [stage.name], path, seconds, run=processes, now=clock)


def ends(path: Path) -> dict[str, str]:
    return {line["stage"]: line["value"] for line in records.read(path)}


def test_a_stage_that_fails_or_hangs_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    path, clock = tmp_path / "out.jsonl", Clock()
    processes = Processes(clock, a=(2, 1), b=(1e9, 0), c=(3, SKIPPED_CODE), d=(4, -11))
    run(path, 1000, processes, clock, "a", "b", "c", "d", "e")
    assert ends(path) == {"a": "failed", "b": "timed out", "c": "skipped", "d": "failed", "e": "ok"}
    lines = {line["stage"]: line for line in records.read(path)}
    assert [lines[name]["seconds"] for name in "abcde"] == [2, 40, 3, 4, 1]
    assert lines["c"]["reason"] == "c said why"
    assert lines["e"]["reason"] == ""


def test_all_stages_together_end_in_time(tmp_path: Path) -> None:
    path, clock = tmp_path / "out.jsonl", Clock()
    processes = Processes(clock, a=(39, 0), b=(39, 0), c=(39, 0))
    run(path, 60, processes, clock, "a", "b", "c")
    assert processes.limits == {"a": 40, "b": 21}
    assert ends(path) == {"a": "ok", "b": "timed out", "c": "skipped: no time was left"}
    assert records.ended_well(records.read(path)) == ["a"]


def test_a_stage_knows_when_it_will_be_killed(tmp_path: Path) -> None:
    clock, moments = Clock(), []

    def command(stage: Stage, until: float) -> list[str]:
        moments.append(until)
        return [stage.name]

    processes = Processes(clock, a=(10, 0))
    launch([named("a"), named("b")], command, tmp_path / "o", 45, run=processes, now=clock)
    assert moments == [1040, 1045]


def test_without_the_device_no_other_stage_runs(tmp_path: Path) -> None:
    clock = Clock()
    processes = Processes(clock, environment=(2, 2))
    chosen = stages.of_call(1, [])
    path = tmp_path / "o"
    launch(chosen, lambda stage, until: [stage.name], path, 500, run=processes, now=clock)
    assert ends(path) == {"environment": "failed"}


def test_a_device_that_is_not_there_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ["environment", "--until", "1e12", "--device", "cuda", "--out", str(tmp_path / "o")]
    assert worker.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("device cuda is not there: this build of PyTorch sees 0 GPUs; ")


def test_a_process_is_killed_at_its_limit_with_what_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"import time; time.sleep(1.5); open({str(alive)!r}, 'w')"
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "print('begun', file=sys.stderr, flush=True); time.sleep(60)"
    )
    ended = run_process([sys.executable, "-c", parent], 1.0)
    assert ended == Ended(None, ["begun"])
    time.sleep(1.0)
    assert not alive.exists()


def test_a_process_that_ends_tells_its_code_and_its_last_words() -> None:
    command = [sys.executable, "-c", "import sys; print('a\\nb', file=sys.stderr); sys.exit(3)"]
    assert run_process(command, 30) == Ended(3, ["a", "b"])


def test_every_call_of_the_prepared_order_begins_with_the_device_and_ends_in_time() -> None:
    first, second = stages.of_call(1, []), stages.of_call(2, [])
    assert first[0].name == second[0].name == "environment"
    assert sorted({s.name for s in (*first, *second)}) == sorted(NAMES)
    for chosen in (first, second):
        assert sum(stage.limit_s for stage in chosen[1:]) <= 1.25 * CALL_S


def test_the_third_call_repeats_what_failed_and_what_is_published() -> None:
    well = [name for name in NAMES if name not in ("gemms", "overlap")]
    again = [stage.name for stage in stages.of_call(3, well)]
    assert again == ["environment", "gemms", "steps", "batches", "overlap"]


def test_an_unknown_stage_or_replacement_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["--stages", "stpes"], "no stage stpes; there are environment, probe"),
        (["--replace", "append=plain"], "--replace append=plain: give one of embed"),
        (["--replace", "embed=fast"], "--replace embed=fast: give one of embed"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert sentence in capsys.readouterr().err


def test_an_operation_whose_check_failed_is_replaced_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for operation, status in (("embed", "ok"), ("pick", "failed"), ("advance", "timed out")):
        Records(path, f"check-{operation}").add(records.ENDED, status)
    assert failed_checks(path) == {"pick": "plain", "advance": "plain"}
    Records(path, "check-pick").add(records.ENDED, "ok")
    assert failed_checks(path) == {"advance": "plain"}
    assert replacements(["embed=plain", "pick=triton"]) == {"embed": "plain", "pick": "triton"}


def test_the_checked_operations_are_those_of_the_captured_step() -> None:
    from dataclasses import fields

    from model.captured.operations import Operations

    assert {field.name for field in fields(Operations)} == {*OPERATIONS}
    assert len({stage.name for stage in STAGES}) == len(STAGES)


def test_a_line_cut_off_is_left_out_and_a_later_figure_replaces_an_earlier_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.jsonl"
    figures = Records(path, "probe")
    figures.add("copy", 2700.0, "GB/s")
    figures.add("launch", 5.5, "us", case="torch")
    figures.add("copy", 3000.0, "GB/s")
    with path.open("a") as file:
        file.write('{"stage": "probe", "wh')
    lines = records.read(path)
    assert [(line["what"], line["value"]) for line in lines] == [("copy", 3000.0), ("launch", 5.5)]
    assert lines[0]["prediction_error"] == 0
    assert lines[0]["is_within_prediction"]


def test_each_line_is_written_at_once_with_the_error_of_its_prediction(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    Records(path, "steps").add("decode step", 540.0, "us", model="OPUS-MT base", rows=64, share=0.1)
    line = json.loads(path.read_text())
    assert line["predicted"] == [207, 270, 404]
    assert line["prediction_error"] == 1.0
    assert not line["is_within_prediction"]
    assert (line["model"], line["rows"], line["share"]) == ("OPUS-MT base", 64, 0.1)


def test_the_document_names_every_stage_with_its_call_and_every_goal() -> None:
    text = (Path(__file__).parents[2] / "docs/gpu.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    told = {name: call.strip("| ") for call, name, *_ in rows}
    for stage in STAGES:
        name = "check-*" if stage.part else stage.name
        assert told[name] == (str(stage.call) if stage.call else "every"), name
    for goal in GOALS:
        bound = f"{goal.bound:.0%}".replace("%", " %") if goal.figure == "share" else ""
        assert (bound or f"{goal.bound:,.10g}") in text, goal
