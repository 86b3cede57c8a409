"""What a run leaves behind: JSON with everything, a Markdown table, and plots."""

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.bench import Results

ROOT = Path(__file__).parent.parent
_PACKAGES = (
    "torch",
    "ctranslate2",
    "transformers",
    "sentencepiece",
    "fastapi",
    "uvicorn",
    "httptools",
    "uvloop",
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp")


def environment() -> dict[str, Any]:
    """Return what the figures depend on: device, versions, commit, date."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in _cpuinfo("flags").split()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "libretranslate": _libretranslate(),
        "commit": _git("rev-parse", "HEAD"),
        "is_modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "threads": {
            "stele": "its defaults",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
    }


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    try:
        found = re.search(rf"^{field}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        return ""
    return found[1] if found else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _libretranslate() -> str | None:
    for path in ROOT.glob(".venv-libretranslate/lib/*/site-packages/libretranslate-*.dist-info"):
        return path.name.removeprefix("libretranslate-").removesuffix(".dist-info")
    return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write(
    folder: Path, device: Mapping[str, Any], results: Results, table: str, seconds: float
) -> None:
    """Write results.json, results.md and, with matplotlib, plots into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {
        "environment": device,
        "seconds": round(seconds, 1),
        "goals": {key: ratio.as_json() for key, ratio in results.ratios.items()},
        "reasons": results.reasons,
        "notes": results.notes,
        "memory": results.memory,
        "sections": results.sections,
    }
    text = json.dumps(_rounded(everything), indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(device, results, table, seconds), encoding="utf-8")
    try:
        from benchmarks.plots import draw
    except ModuleNotFoundError as error:
        print(f"  no plots: {error.name} is missing: pip install 'stele[bench]'")  # noqa: T201
        return
    draw(folder, results)


def _rounded(value: Any) -> Any:
    """Return a value with floats of four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def markdown(device: Mapping[str, Any], results: Results, table: str, seconds: float) -> str:
    """Return the report: where it ran, the goals, and a table for each kind of figure."""
    versions = ", ".join(f"{name} {number}" for name, number in device["versions"].items())
    parts = [
        "# Stele and its peers",
        f"{device['date']}, {device['cpu']}, {device['cores']} cores "
        f"({', '.join(device['flags'])}), Python {device['python']}, {versions}; "
        f"commit {device['commit']}{' (modified)' if device['is_modified'] else ''}; "
        f"{seconds:.0f} s. Ratios are medians of paired turns.",
        table,
        *(_offline(name, cases) for name, cases in results.sections.items() if "offline" in name),
        _rates(results.sections.get("open loop", {}).get("rates", [])),
        _memory(results.memory),
    ]
    missing = results.sections.get("not measured", {})
    parts += [f"Not measured: {name}: {reason}" for name, reason in missing.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _offline(name: str, cases: Mapping[str, Any]) -> str:
    lines = [
        f"## {name}",
        "",
        "A step gives every sentence at work a token: milliseconds a step are seconds x sentences "
        "at work / tokens, ends and encoding included.",
        "",
        "| | sentences/s | ms a step | Stele x (lowest - highest) | equal outputs |",
        "|---|---|---|---|---|",
    ]
    for case, figures in cases.items():
        speeds = ", ".join(f"{n} {v:.1f}" for n, v in figures["sentences_per_s"].items())
        steps = ", ".join(f"{n} {v:.2f}" for n, v in figures.get("ms_per_step", {}).items())
        ratios = ", ".join(
            f"{n} {r['median']:.2f} ({r['low']:.2f} - {r['high']:.2f})"
            for n, r in figures["ratio"].items()
        )
        equal = ", ".join(f"{n} {share:.0%}" for n, share in figures["equal"].items())
        if kept := figures.get("int8_equal_to_float32"):
            equal += "; int8 as float32: "
            equal += ", ".join(f"{n} {share:.0%}" for n, share in kept.items())
        lines.append(f"| {case} | {speeds} | {steps or '-'} | {ratios} | {equal} |")
    return "\n".join(lines)


def _rates(rates: list[dict[str, Any]]) -> str:
    if not rates:
        return ""
    lines = [
        "## Poisson arrivals",
        "",
        "| server | rate/s | goodput/s | p50, ms | p95 | p99 | TTFT p50, p99 "
        "| inter-token p50, p99 | not ok | client's share of a core |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in rates:
        latency = [_ms(each["latency_s"], name) for name in ("p50", "p95", "p99")]
        moments = [
            f"{_ms(each[name], 'p50')}, {_ms(each[name], 'p99')}"
            for name in ("first_token_s", "inter_token_s")
        ]
        cells = [f"{each['rate_per_s']:.1f}", f"{each['goodput_per_s']:.1f}", *latency, *moments]
        cells += [str(each["not_ok"]), f"{each['client_cpu_share']:.0%}"]
        lines.append(f"| {each['server']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(spread: Mapping[str, float], name: str) -> str:
    return f"{1000 * spread[name]:.1f}" if spread else "-"


def _memory(memory: Mapping[str, Mapping[str, float]]) -> str:
    if not memory:
        return ""
    lines = ["## Memory", "", "| process | loaded, MB | peak, MB |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {held['loaded_mb']:.0f} | {held['peak_mb']:.0f} |"
        for name, held in memory.items()
    ]
    return "\n".join(lines)
