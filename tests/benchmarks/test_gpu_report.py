"""What the GPU benchmark prints last."""

from typing import Any

import pytest

from benchmarks.gpu.names import BART, NLLB, OPUS, T5
from benchmarks.gpu.report import GOALS, Goal, report, table


def line(what: str, value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    return {"stage": "s", "what": what, "value": value, "unit": unit, **more}


def row(lines: list[dict[str, Any]], begin: str) -> list[str]:
    (found,) = (r for r in table(lines).splitlines() if r.startswith(f"| {begin}"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_step_stands_beside_its_limit_and_its_goal() -> None:
    step = line("decode step", 1050.0, "us", model=BART, rows=64, share=0.56, tokens_per_s=60_952.0)
    cells = row([step], f"decode step | {BART}")
    assert cells[1:] == [BART, "64", "60,952", "1.050", "56%", "", "at least 55%: met"]


def test_a_batch_beats_both_published_columns_or_misses() -> None:
    def cells(rate: float) -> list[str]:
        batch = line(
            "whole batch", 101.0, "ms", model=BART, rows=32, case="stopped", tokens_per_s=rate
        )
        return row([batch], f"whole batch, stopped | {BART} | 32")

    assert cells(12_612.0)[-2:] == [
        "TensorRT-LLM 10,662 / 12,611",
        "above 12,611 tokens/s: met",
    ]
    assert cells(12_611.0)[-1] == "above 12,611 tokens/s: missed"


def test_the_other_protocol_and_other_rows_have_no_goal() -> None:
    forced = line("whole batch", 111.0, "ms", model=BART, rows=32, case="forced", tokens_per_s=1.0)
    assert row([forced], "whole batch, forced")[-2:] == ["", ""]
    step = line("decode step", 900.0, "us", model=BART, rows=32, share=0.4)
    assert row([step], f"decode step | {BART} | 32")[-2:] == ["", ""]


@pytest.mark.parametrize(
    ("kind", "value", "verdict"),
    [
        ("at least", 2.0, "met"),
        ("at least", 1.99, "missed"),
        ("at most", 2.0, "met"),
        ("at most", 2.01, "missed"),
        ("above", 2.0, "missed"),
        ("above", 2.01, "met"),
    ],
)
def test_a_goal_is_met_at_its_bound(kind: Any, value: float, verdict: str) -> None:
    assert Goal("w", OPUS, 1, "value", kind, 2.0).verdict(value) == verdict


def test_every_goal_has_its_row_and_what_was_not_measured_says_so() -> None:
    rows = table([]).splitlines()[2:]
    assert len(rows) == len(GOALS) == 10
    assert all(each.endswith(": not measured |") for each in rows)
    for model in (BART, NLLB, OPUS, T5):
        assert any(model in each for each in rows)


def test_the_report_says_what_was_measured_what_failed_and_which_predictions_were_wrong() -> None:
    device = line(
        "device",
        None,
        "",
        torch="2.11.0",
        triton="3.6.0",
        driver="580",
        commit="abc",
        plain=["pick"],
        is_tiny=False,
    ) | {"value": "H100"}
    ended = [
        line("ended", None, "", seconds=9.0, reason="") | {"stage": "probe", "value": "ok"},
        line("ended", None, "", seconds=4.0, reason="no kernel")
        | {"stage": "gemms", "value": "failed"},
    ]
    equal = line("tokens equal", 0.984, "of rows", model=OPUS, rows=64, case="float16")
    equal["replaced"] = {"pick": "plain"}
    wrong = {"predicted": [1, 2, 3], "prediction_error": 2.0, "is_within_prediction": False}
    figure = line("launch", 6.0, "us", case="torch") | wrong
    told = report([device, *ended, equal, figure])
    assert (
        "H100, torch 2.11.0, triton 3.6.0, driver 580, commit abc\nplain forms of: pick\n" in told
    )
    assert (
        "ended well: probe\ngemms: failed after 4 s no kernel\ns: with {'pick': 'plain'}\n" in told
    )
    assert "| tokens equal | OPUS-MT base, 64 rows, float16 | 98.4% |" in told
    assert "0 of 1 figures within their prediction\n  launch (torch): 6 us, predicted 2" in told
    assert "error +200%" in told


def test_a_toy_run_says_that_its_figures_mean_nothing() -> None:
    told = report(
        [
            line("device", None, "", torch="", triton="", driver="", commit="", plain=[])
            | {"value": "CPU", "is_tiny": True}
        ]
    )
    assert "toy sizes: no figure below means anything" in told
