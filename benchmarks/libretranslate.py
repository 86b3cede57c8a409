"""Requests per second beside LibreTranslate itself."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks import servers
from benchmarks.bench import REST_S, Bench
from benchmarks.figures import (
    equal_share,
    in_turns,
    paired,
)
from benchmarks.load import Job, send
from benchmarks.served import bodies, inverted, rate_of, short, texts_of
from benchmarks.servers import ROOT, Server


def beside_libretranslate(bench: Bench, until: float) -> None:
    """Requests per second at concurrency 16, the same beam search in both; greedily beside."""
    python = ROOT / ".venv-libretranslate" / "bin" / "python"
    if not python.exists():
        raise RuntimeError("there is no .venv-libretranslate; `make bench` makes it if it can")
    argos = bench.folder / "argos"
    best = {"ARGOS_INTRA_THREADS": "1", "ARGOS_INTER_THREADS": "2"}
    with ExitStack() as stack:
        started = {
            "libretranslate": servers.libretranslate(python, argos),
            "libretranslate, intra 1, inter 2": servers.libretranslate(python, argos, best),
            "stele": servers.stele(bench.bundled, latent_cache_bytes=0),
        }
        for server in started.values():
            stack.enter_context(server)
        for server in started.values():
            server.wait()
        _turns_with_libretranslate(bench, started, until)
        for name, server in started.items():
            bench.remember(f"concurrency 16: {name}", server.loaded, server.memory())


def _turns_with_libretranslate(bench: Bench, started: dict[str, Server], until: float) -> None:
    def subject(server: Server, **fields: Any) -> Callable[[], float]:
        job = Job(
            port=server.port,
            bodies=bodies(bench.mixed, **fields),
            clients=16,
            warm_s=1,
            seconds=bench.seconds(4),
        )
        return lambda: 1 / rate_of(job)

    theirs = [name for name in started if name != "stele"]
    subjects = {name: subject(started[name]) for name in theirs}
    subjects["stele"] = subject(started["stele"], num_beams=4)
    subjects["stele, greedy"] = subject(started["stele"])
    for name in theirs:
        subjects[name]()  # it loads its model with the first request
    found = in_turns(subjects, turns=bench.turns, until=until, rest_s=REST_S)
    rates = {name: inverted(seconds) for name, seconds in found.items()}
    fastest = max(theirs, key=lambda name: sum(rates[name]))
    ratio = paired(found[fastest], found["stele"])
    greedy = paired(found[fastest], found["stele, greedy"])
    default = paired(found["libretranslate"], found["stele"])
    bench.results.ratios |= {"libretranslate": default, "libretranslate_tuned": ratio}
    bench.results.notes["libretranslate"] = (
        "1.9.6 offline: its sentence splitter replaced by sentencex, its tokenizer adding >>xx<< "
        "and </s>"
    )
    bench.results.notes["libretranslate_tuned"] = (
        f"{fastest.removeprefix('libretranslate, ')}; Stele greedily {greedy.median:.1f}"
    )
    texts = bench.mixed[:32]
    answers = {
        name: texts_of(
            send(Job(port=server.port, bodies=bodies(texts, **fields), requests=32, keeps=32)), 32
        )
        for name, server, fields in (
            ("stele", started["stele"], {"num_beams": 4}),
            (fastest, started[fastest], {}),
        )
    }
    bench.results.sections["libretranslate"] = {
        "requests_per_s": rates,
        "ratio": ratio.as_json(),
        "ratio to its defaults": default.as_json(),
        "ratio, greedy": greedy.as_json(),
        "equal": equal_share(answers["stele"], answers[fastest]),
    }
    shown = ", ".join(f"{name} {max(each):.0f}/s" for name, each in rates.items())
    bench.say(f"concurrency 16: {shown}: {short(ratio)}")
