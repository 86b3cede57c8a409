"""What tests of captured steps share: requests that steps choose for, and runners of them."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from model import Arrival, DecodingOptions, Pending, Runner
from model.captured.machine import CapturedMachine
from model.captured.memory import Memory
from model.captured.settings import CaptureSettings
from model.transformer import EncoderDecoder
from tests.model.driver import (
    Outcome,
    Request,
    random_beams,
    random_sampling,
    random_source,
)
from tests.model.networks import EOS

PREFIX = (9, EOS, 77)  # the end token does not end what begins with it


def random_runs(
    rng: random.Random, count: int, *, vocabulary: int = 96, max_tokens: int = 14
) -> list[Request]:
    """Requests of every kind that goes on without the host."""
    found: list[Request] = []
    for index in range(count):
        tokens = rng.randint(1, max_tokens)
        options = DecodingOptions(
            **_kind(rng),
            max_new_tokens=tokens,
            min_new_tokens=rng.choice([0, 0, tokens // 2]),
            target_prefix=rng.choice([(), (), PREFIX]),
            forced_bos=rng.choice([None, None, 5]),
            forced_eos=rng.choice([None, None, 0]),
        )
        source = random_source(rng, vocabulary, rng.randint(1, 30))
        if index % 5 == 4:
            source = rng.choice(found).source
        found.append(Request(source, options))
    return found


def _kind(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["greedy", "sampling", "beams"])
    if kind == "sampling":
        return random_sampling(rng)
    if kind == "greedy":
        return {}
    return random_beams(rng, 4) | {"wants_scores": rng.random() < 0.5}


class CapturedRunner(Runner):
    """A runner of captured steps that takes up to `most` at once, and ends a test that hangs."""

    def __init__(
        self,
        network: EncoderDecoder,
        rows: int,
        *,
        most: int = 1,
        max_target: int = 40,
        launches: int = 1000,
        **settings: Any,
    ) -> None:
        super().__init__(
            network,
            rows=rows,
            max_target=max_target,
            latent_bytes=2**20,
            captured=CaptureSettings(**settings),
        )
        self._rng, self._most, self._left = random.Random(0), most, launches

    def launch(self, names: Sequence[int], steps: int = 1) -> Pending:
        self._left -= 1
        assert self._left, "some target never ends"
        return super().launch(names, self._rng.randint(1, self._most))

    @property
    def machine(self) -> CapturedMachine:
        assert isinstance(self._machine, CapturedMachine)
        return self._machine

    @property
    def memory(self) -> Memory:
        return self.machine._memory


class PoisonedRunner(CapturedRunner):
    """What no row has written for itself is NaN, always."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._poison()

    @torch.inference_mode()
    def _poison(self) -> None:
        memory = self.memory
        rows = {row for target in self._targets.values() for row in target.rows}
        sources = {held.index for held in self.machine._sources._table._held.values()}
        for cells, used in (
            (memory.keys, rows),
            (memory.values, rows),
            (memory.source_keys, sources),
            (memory.source_values, sources),
        ):
            cells[:, [i for i in range(cells.shape[1]) if i not in used]] = float("nan")

    def release(self, names: Iterable[int]) -> None:
        super().release(names)
        self._poison()


def assert_alike(found: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
    """Targets are the same; what a search tells while it goes on may come in other portions."""
    for mine, other in zip(found, expected, strict=True):
        assert mine.healthy == other.healthy
        assert [h.tokens for h in mine.hypotheses] == [h.tokens for h in other.hypotheses]
        assert [h.finish for h in mine.hypotheses] == [h.finish for h in other.hypotheses]
        if not other.hypotheses:
            assert mine.tokens == other.tokens
        else:
            best = list(mine.hypotheses[0].tokens)
            assert mine.tokens == best[: len(mine.tokens)]


def begin(runner: Runner, sources: Sequence[tuple[int, ...]], options: DecodingOptions) -> None:
    runner.admit([Arrival((row,), source, options) for row, source in enumerate(sources)])
