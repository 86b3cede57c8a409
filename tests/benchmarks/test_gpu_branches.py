"""What only a GPU reaches of its benchmark, over a stand-in of `torch.cuda`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import launcher, records, timing, worker
from benchmarks.gpu.launcher import Ended
from tests.benchmarks.fake_cuda import OnCpu, pretend

STAGES = ("probe", "gemms", "attention", "capture", "encoder", "stream")


def over_the_stand_in(command: Sequence[str], limit_s: float) -> Ended:
    with OnCpu():
        return Ended(worker.main(command[3:]), [])


def test_every_stage_reaches_its_end_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(timing, "SPIN_S", 0.0)
    run = over_the_stand_in
    monkeypatch.setattr(gpu, "launch", lambda *given: launcher.launch(*given, run=run))
    out = tmp_path / "out.jsonl"
    arguments = ["--device", "cuda", "--tiny", "--out", str(out), "--stages", *STAGES]
    assert gpu.main(arguments) == 0
    lines = records.read(out)
    ended = {line["stage"]: line["value"] for line in lines if line["what"] == "ended"}
    assert ended == dict.fromkeys(("environment", *STAGES), "ok")
    assert [line["value"] for line in lines if line["what"] == "device"] == ["a fake"]
    assert any("predicted" in line for line in lines)
    rivals = {line["case"].split(", ")[1] for line in lines if line["what"] == "cross-attention"}
    assert {"plain", "bmm", "efficient", "cudnn", "flash"} <= rivals
    waits = [line["value"] for line in lines if line["what"] == "no hidden wait"]
    assert waits == [True, True]
