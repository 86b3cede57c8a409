"""Plots of a run: ratios by batch, latency by rate, memory."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.bench import Results


def draw(folder: Path, results: Results) -> None:
    """Write ratios.png, latency.png and memory.png, each where there is something to show."""
    offline = {name: s for name, s in results.sections.items() if name.startswith("offline")}
    if offline:
        _draw_ratios(folder / "ratios.png", offline)
    if rates := results.sections.get("open loop", {}).get("rates"):
        _draw_latency(folder / "latency.png", rates)
    if results.memory:
        _draw_memory(folder / "memory.png", results.memory)


def _draw_ratios(path: Path, sections: dict[str, Any]) -> None:
    names, ratios, below, above = [], [], [], []
    for section, cases in sections.items():
        for case, figures in cases.items():
            for peer, ratio in figures["ratio"].items():
                names.append(f"{section.removeprefix('offline, ')}, {case}, x {peer}")
                ratios.append(ratio["median"])
                below.append(ratio["median"] - ratio["low"])
                above.append(ratio["high"] - ratio["median"])
    figure = Figure(figsize=(9, 1 + 0.28 * len(names)))
    axes = figure.subplots()
    axes.barh(names[::-1], ratios[::-1], xerr=[below[::-1], above[::-1]], color="#4477aa")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the peer (median, lowest and highest turn)")
    _save(figure, path)


def _draw_latency(path: Path, rates: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for server in dict.fromkeys(each["server"] for each in rates):
        chosen = [each for each in rates if each["server"] == server and each["latency_s"]]
        xs = [each["rate_per_s"] for each in chosen]
        for name, style in (("p50", ":"), ("p99", "-")):
            ys = [1000 * each["latency_s"][name] for each in chosen]
            axes.plot(xs, ys, style, marker="o", label=f"{server}, {name}")
    axes.set_xlabel("requests a second (Poisson arrivals)")
    axes.set_ylabel("latency, ms")
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    _save(figure, path)


def _draw_memory(path: Path, memory: dict[str, dict[str, float]]) -> None:
    names = list(memory)[::-1]
    figure = Figure(figsize=(9, 1 + 0.3 * len(names)))
    axes = figure.subplots()
    axes.barh(names, [memory[n]["peak_mb"] for n in names], color="#bbccee", label="peak")
    axes.barh(names, [memory[n]["loaded_mb"] for n in names], color="#4477aa", label="loaded")
    axes.set_xlabel("resident, MB")
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
