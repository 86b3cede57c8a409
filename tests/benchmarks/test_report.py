import json
from pathlib import Path

from benchmarks.bench import Results
from benchmarks.figures import Paired
from benchmarks.report import environment, markdown, write

RATIO = {"median": 1.5, "low": 1.4, "high": 1.6, "turns": 3}
FIGURES = {
    "sentences_per_s": {"stele": 30.0, "ctranslate2": 20.0},
    "ms_per_step": {"stele": 4.5, "ctranslate2": 6.75},
    "ratio": {"ctranslate2": RATIO},
    "equal": {"ctranslate2": 0.99},
}
RATE = {
    "server": "stele",
    "rate_per_s": 40.0,
    "goodput_per_s": 39.5,
    "latency_s": {"p50": 0.01, "p95": 0.02, "p99": 0.03},
    "first_token_s": {},
    "inter_token_s": {},
    "not_ok": 2,
    "client_cpu_share": 0.051,
}


def results() -> Results:
    found = Results(ratios={"own": Paired(0.91234567, 0.9, 0.95, 3)})
    found.sections = {
        "offline, base, int8": {"batch 1": FIGURES},
        "open loop": {"rates": [RATE]},
        "not measured": {"libretranslate": "there is no .venv-libretranslate"},
    }
    found.memory = {"stele serve": {"loaded_mb": 300.0, "peak_mb": 400.0}}
    return found


def test_the_report_has_every_figure_and_what_was_not_measured() -> None:
    text = markdown(environment(), results(), "THE TABLE", 812.4)
    for part in (
        "THE TABLE",
        "milliseconds a step are seconds x sentences at work / tokens",
        "| batch 1 | stele 30.0, ctranslate2 20.0 | stele 4.50, ctranslate2 6.75 "
        "| ctranslate2 1.50 (1.40 - 1.60) | ctranslate2 99% |",
        "| stele | 40.0 | 39.5 | 10.0 | 20.0 | 30.0 | -, - | -, - | 2 | 5% |",
        "| stele serve | 300 | 400 |",
        "Not measured: libretranslate: there is no .venv-libretranslate",
        "812 s",
    ):
        assert part in text, part


def test_the_json_says_on_what_it_ran(tmp_path: Path) -> None:
    write(tmp_path, environment(), results(), "", 1.0)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["goals"]["own"]["median"] == 0.9123
    for field in ("cpu", "cores", "flags", "versions", "commit", "date", "threads"):
        assert field in found["environment"], field
    assert found["environment"]["versions"]["torch"]
    assert (tmp_path / "results.md").read_text().startswith("# Stele and its peers")
