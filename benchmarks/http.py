"""`python -m benchmarks.http`: throughput and latency of `stele serve`, a closed loop over HTTP."""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


def sentences(path: Path) -> list[str]:
    """Read the English side of the held-out pairs."""
    return [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]


def metric(url: str, name: str) -> float:
    """Sum a metric's samples, whatever their labels."""
    text = httpx.get(f"{url}/metrics").text
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def load(url: str, texts: Sequence[str], clients: int, seconds: float) -> list[float]:
    """Keep `clients` requests under way for `seconds`; returns each request's latency."""
    latencies: list[float] = []
    end = time.monotonic() + seconds

    async def one(session: httpx.AsyncClient, seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            body = {"q": chance.choice(texts), "source": "en", "target": "de"}
            began = time.monotonic()
            answer = await session.post(f"{url}/translate", json=body)
            answer.raise_for_status()
            latencies.append(time.monotonic() - began)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=60, limits=limits) as session:
        await asyncio.gather(*(one(session, seed) for seed in range(clients)))
    return latencies


def measure(url: str, texts: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    """Load the server and describe what it did."""
    tokens = metric(url, "stele_target_tokens_total")
    steps = metric(url, "stele_decoder_batch_size_count")
    rows = metric(url, "stele_decoder_batch_size_sum")
    began = time.monotonic()
    latencies = asyncio.run(load(url, texts, clients, seconds))
    elapsed = time.monotonic() - began
    steps = metric(url, "stele_decoder_batch_size_count") - steps
    return {
        "clients": clients,
        "requests_per_s": round(len(latencies) / elapsed, 1),
        "target_tokens_per_s": round(
            (metric(url, "stele_target_tokens_total") - tokens) / elapsed, 1
        ),
        "p50_s": round(statistics.median(latencies), 4),
        "p95_s": round(statistics.quantiles(latencies, n=20)[-1], 4),
        "mean_rows_per_step": round(
            (metric(url, "stele_decoder_batch_size_sum") - rows) / max(1, steps), 1
        ),
    }


def main() -> None:
    """Start a server, measure it at each concurrency in turn, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over them")
    parser.add_argument("--port", type=int, default=8017)
    parser.add_argument("--texts", type=Path, default=ROOT / "tests/data/heldout.en-de.tsv")
    options = parser.parse_args()
    texts, url = sentences(options.texts), f"http://127.0.0.1:{options.port}"
    began = time.monotonic()
    serve = [sys.executable, "-m", "server", "serve", "--port", str(options.port)]
    with subprocess.Popen([*serve, "--log-level", "error"], cwd=ROOT) as server:
        try:
            ready_s = wait_until_ready(url, server) - began
            measure(url, texts, 8, 2)  # warm up
            rounds = [
                measure(url, texts, clients, options.seconds)
                for _ in range(options.rounds)
                for clients in options.clients
            ]
            report = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "start_to_ready_s": round(ready_s, 2),
                "resident_mib": round(metric(url, "process_resident_memory_bytes") / 2**20),
                "medians": [
                    medians([r for r in rounds if r["clients"] == c]) for c in options.clients
                ],
            }
        finally:
            server.terminate()
    print(json.dumps(report, indent=2))  # noqa: T201 - the command's output


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> float:
    """Return the moment when the server first said that it is ready."""
    while server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return time.monotonic()
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise SystemExit("the server ended before it was ready")


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
