"""Requests through a Runner, alone or with staggered company."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model import Arrival, DecodingOptions, Hypothesis, Runner, Step
from model.decoding.search import Alignment


@dataclass(frozen=True)
class Request:
    source: tuple[int, ...]
    options: DecodingOptions
    cancel_after: int | None = None  # steps


@dataclass
class Outcome:
    tokens: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    healthy: bool = True
    steps: int = 0
    hypotheses: tuple[Hypothesis, ...] = ()
    alignments: list[Alignment] = field(default_factory=list)

    def take(self, step: Step) -> None:
        self.steps += not step.is_awaited
        self.healthy &= step.is_healthy
        self.tokens += step.tokens
        self.scores += step.scores
        self.alignments += step.alignments
        self.hypotheses = step.hypotheses


def random_source(rng: random.Random, vocabulary: int, length: int) -> tuple[int, ...]:
    return (*(rng.randrange(1, vocabulary - 1) for _ in range(length - 1)), 0)


def random_requests(
    rng: random.Random, count: int, *, vocabulary: int, max_source: int, max_tokens: int
) -> list[Request]:
    """Every kind of option, source length and way to end; every fifth source is used twice."""
    requests: list[Request] = []
    for index in range(count):
        source = random_source(rng, vocabulary, rng.randint(1, max_source))
        if index % 5 == 4:
            source = rng.choice(requests).source
        max_new_tokens = rng.randint(1, max_tokens)
        kind = _random_choice(rng)
        if "num_beams" in kind and rng.random() < 0.5:
            kind["phrases"] = random_phrases(rng, vocabulary, max_new_tokens - 2)
        options = DecodingOptions(
            **kind,
            max_new_tokens=max_new_tokens,
            min_new_tokens=rng.choice([0, 0, max_new_tokens // 2]),
            target_prefix=rng.choice([(), (), (), (9, 4, 77)]),
            forced_bos=rng.choice([None, None, 5]),
            forced_eos=rng.choice([None, None, 0]),
            suppressed=rng.choice([(), (), (3, 8)]),
            repetition_penalty=rng.choice([1.0, 1.0, 1.3, 0.8]),
            no_repeat_ngram_size=rng.choice([0, 0, 2, 3]),
            wants_scores=rng.random() < 0.7,
        )
        cancel_after = rng.choice([None, None, None, rng.randint(0, max_tokens)])
        requests.append(Request(source, options, cancel_after))
    return requests


def _random_choice(rng: random.Random) -> dict[str, Any]:
    """Greedy, sampling, beams or alternatives."""
    kind = rng.choice(["greedy", "sampling", "sampling", "beams", "alternatives"])
    if kind == "sampling":
        return random_sampling(rng)
    if kind == "beams":
        return random_beams(rng, 6)
    return {"alternatives": rng.randint(1, 4)} if kind == "alternatives" else {}


def random_phrases(rng: random.Random, vocabulary: int, room: int) -> tuple[tuple[int, ...], ...]:
    """Up to three phrases of up to four tokens, together of at most `room`, if there is any."""
    phrases: list[tuple[int, ...]] = []
    for _ in range(rng.randint(1, 3)):
        length = min(rng.randint(1, 4), room - sum(map(len, phrases)))
        allowed = [token for token in range(1, vocabulary - 1) if token not in (3, 8)]
        phrases += [tuple(rng.choices(allowed, k=length))] * (length > 0)
    return tuple(phrases)


def random_sampling(rng: random.Random) -> dict[str, Any]:
    """Options of a request that draws."""
    return {
        "temperature": rng.uniform(0.3, 2.0),
        "top_k": rng.choice([0, 5, 40]),
        "top_p": rng.choice([1.0, 0.8]),
        "seed": rng.randrange(2**64),
    }


def random_beams(rng: random.Random, most: int) -> dict[str, Any]:
    """Options of a search of up to `most` beams."""
    beams = rng.randint(2, most)
    return {
        "num_beams": beams,
        "num_hypotheses": rng.randint(1, beams),
        "length_penalty": rng.choice([0.0, 1.0, 2.0]),
        "early_stopping": rng.choice([True, False, "never"]),
        "renormalises": rng.choice([True, False]),
    }


def _has_ended(request: Request, outcome: Outcome, eos: int) -> bool:
    return (
        not outcome.healthy
        or bool(outcome.hypotheses)
        or eos in outcome.tokens[-1:]
        or (request.options.rows == 1 and len(outcome.tokens) >= request.options.max_new_tokens)
        or outcome.steps == request.cancel_after
    )


def run_together(runner: Runner, requests: Sequence[Request], rng: random.Random) -> list[Outcome]:
    """Run `requests` as a busy server would: arrivals, rows and their order are all random."""
    waiting = list(range(len(requests)))
    free = list(range(runner.rows))
    held: dict[int, tuple[int, ...]] = {}  # rows by their first
    running: dict[int, int] = {}  # request by first row
    outcomes = [Outcome() for _ in requests]
    while waiting or running:
        rng.shuffle(free)
        arrivals = {}
        for _ in range(rng.randint(0 if running else 1, 6)):
            if waiting and len(free) >= requests[waiting[0]].options.rows:
                index = waiting.pop(0)
                rows = tuple(free.pop() for _ in range(requests[index].options.rows))
                arrivals[rows[0]], held[rows[0]] = index, rows
        runner.admit(
            [Arrival(held[r], requests[i].source, requests[i].options) for r, i in arrivals.items()]
        )
        running |= arrivals
        _release_ended(runner, requests, outcomes, running, held, free)
        if running:
            names = rng.sample(list(running), len(running))
            for name, step in zip(names, runner.launch(names).result(), strict=True):
                outcomes[running[name]].take(step)
            _release_ended(runner, requests, outcomes, running, held, free)
    return outcomes


def _release_ended(
    runner: Runner,
    requests: Sequence[Request],
    outcomes: list[Outcome],
    running: dict[int, int],
    held: dict[int, tuple[int, ...]],
    free: list[int],
) -> None:
    for name, index in list(running.items()):
        if _has_ended(requests[index], outcomes[index], runner.config.eos):
            del running[name]
            runner.release([name])
            free += held.pop(name)


def run_alone(runner: Runner, request: Request) -> Outcome:
    return run_together(runner, [request], random.Random(0))[0]
