"""Requests given to a runner together, and what came of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from model.decoding.options import DecodingOptions
from model.latent_cache import Source
from model.runner import Arrival, Runner

Target = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A source and how many tokens it is continued by; nothing else ends it."""

    source: Source
    options: DecodingOptions

    @classmethod
    def of(cls, source: Source, new_tokens: int, beams: int = 1) -> "Request":
        """Ask for so many tokens, greedily or by a search that goes on to the limit."""
        options = DecodingOptions(max_new_tokens=new_tokens, num_beams=beams)
        return cls(source, options)

    def sampled(self, seed: int) -> "Request":
        """Return the same with draws."""
        return replace(self, options=replace(self.options, temperature=1.0, seed=seed))


def batch(sources: Iterable[Source], new_tokens: Sequence[int], beams: int = 1) -> list[Request]:
    """Return a request for each source."""
    pairs = zip(sources, new_tokens, strict=True)
    return [Request.of(source, count, beams) for source, count in pairs]


class Together:
    """Requests that are decoded together, whenever they join."""

    def __init__(self, runner: Runner, requests: Sequence[Request] = ()) -> None:
        """Let requests join, in rows that follow each other."""
        self._runner = runner
        self.targets: dict[int, list[int]] = {}
        self._most: dict[int, int] = {}
        self._running: list[int] = []
        if requests:
            wide = requests[0].options.rows
            self.join(requests, range(0, wide * len(requests), wide))

    def join(self, requests: Sequence[Request], firsts: Sequence[int]) -> None:
        """Admit requests; each takes its rows from one on, by which it is named."""
        arrivals = []
        for first, request in zip(firsts, requests, strict=True):
            rows = tuple(range(first, first + request.options.rows))
            arrivals.append(Arrival(rows, request.source, request.options))
            self.targets[first] = []
            self._most[first] = request.options.max_new_tokens
        self._runner.admit(arrivals)
        self._running += firsts

    @property
    def is_running(self) -> bool:
        """Whether any goes on."""
        return bool(self._running)

    def step(self, steps: int) -> tuple[int, list[int]]:
        """Decode up to so many tokens of each, and release what has ended.

        Returns:
            How many tokens came, and which have ended.

        Raises:
            RuntimeError: a row is not finite.
        """
        gained, ended = 0, list[int]()
        launched = self._runner.launch(self._running, steps)
        for name, step in zip(self._running, launched.result(), strict=True):
            if not step.is_healthy:
                raise RuntimeError(f"row {name} is not finite")
            target = self.targets[name]
            target += step.tokens
            gained += len(step.tokens)
            if step.hypotheses:
                target[:] = step.hypotheses[0].tokens
            if step.hypotheses or len(target) >= self._most[name]:
                ended.append(name)
        if ended:
            self._runner.release(ended)
            self._running = [name for name in self._running if name not in {*ended}]
        return gained, ended

    def finish(self, steps: int) -> list[Target]:
        """Decode all to their ends; returns the targets in the order in which they joined."""
        while self._running:
            self.step(steps)
        return [tuple(target) for target in self.targets.values()]

    def stop(self) -> None:
        """Release what goes on."""
        self._runner.release(self._running)
        self._running = []
