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
    """Requests that were admitted at once."""

    def __init__(
        self, runner: Runner, requests: Sequence[Request], first_rows: Sequence[int] | None = None
    ) -> None:
        """Admit them.

        Args:
            first_rows: where each takes its rows; one after the other by default.
        """
        self._runner = runner
        wide = requests[0].options.rows
        firsts = first_rows or range(0, wide * len(requests), wide)
        self.targets: dict[int, list[int]] = {first: [] for first in firsts}
        self._order = [*self.targets]
        self._most = dict(zip(firsts, (r.options.max_new_tokens for r in requests), strict=True))
        runner.admit(
            [
                Arrival(tuple(range(first, first + wide)), request.source, request.options)
                for first, request in zip(firsts, requests, strict=True)
            ]
        )
        self._running = [*self.targets]

    @property
    def is_running(self) -> bool:
        """Whether any goes on."""
        return bool(self._running)

    def step(self, steps: int) -> int:
        """Decode up to so many tokens of each; what has ended is released. Returns the tokens."""
        gained, ended = 0, []
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
        return gained

    def finish(self, steps: int) -> list[Target]:
        """Decode all to their ends; returns the targets in the order of the requests."""
        while self._running:
            self.step(steps)
        return [tuple(self.targets[name]) for name in self._order]

    def stop(self) -> None:
        """Release what goes on."""
        self._runner.release(self._running)
        self._running = []
