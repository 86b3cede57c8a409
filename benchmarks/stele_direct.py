"""Stele's engine called directly: a runner whose rows are kept busy, without a server."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.direct import Ids, Work
from model import Arrival, DecodingOptions, Precision, load
from server import __version__

STEPS = 8  # decoded in one call where no source waits


class SteleDirect:
    """A loaded checkpoint without a latent cache, so that every source is encoded."""

    version = __version__

    def __init__(self, folder: Path, precision: Precision, rows: int) -> None:
        self._model = load(folder, precision=precision, slots=rows, latent_bytes=0)
        self._rows = rows

    def translate(self, work: Work) -> list[Ids]:
        """Return the targets' ids in order, without the end."""
        return [target for sources in work.calls for target in self._together(sources, work)]

    def _together(self, sources: Sequence[Ids], work: Work) -> list[Ids]:
        """Decode `work.rows` targets at a time; where one ends the next source takes its rows."""
        runner, eos = self._model.runner, self._model.runner.config.eos
        options = DecodingOptions(max_new_tokens=work.longest, num_beams=work.beams)
        targets: list[Ids] = [[] for _ in sources]
        free = [
            tuple(range(first, first + work.beams))
            for first in range(0, work.rows * work.beams, work.beams)
        ][::-1]
        waiting = list(range(len(sources)))[::-1]
        running: dict[int, tuple[int, tuple[int, ...]]] = {}  # by name: which source, its rows
        while waiting or running:
            arrivals = []
            while free and waiting:
                rows, number = free.pop(), waiting.pop()
                running[rows[0]] = (number, rows)
                arrivals.append(Arrival(rows, tuple(sources[number]), options))
            if arrivals:
                runner.admit(arrivals)
            names = list(running)
            ended = []
            steps = 1 if waiting else STEPS  # as the server does: who waits takes the next row
            for name, step in zip(names, runner.launch(names, steps).result(), strict=True):
                target = targets[running[name][0]]
                target += step.tokens
                if step.hypotheses:
                    target[:] = step.hypotheses[0].tokens
                if step.hypotheses or eos in step.tokens or len(target) >= work.longest:
                    ended.append(name)
            if ended:
                runner.release(ended)
                free += [running.pop(name)[1] for name in ended]
        return [_without_end(target, eos, work.longest) for target in targets]

    def texts_per_s(
        self, texts: Sequence[str], target: str, warm_s: float, seconds: float, longest: int
    ) -> float:
        """Return how many of `texts`, over and over, end in a second while all rows are busy.

        As a closed loop of clients counts it: what ends in the first `warm_s` is left out.

        Args:
            longest: tokens of a target at most.
        """
        tokenizer, runner = self._model.tokenizer, self._model.runner
        sources = [tokenizer.prompt(text, "en", target).source for text in texts]
        waiting, options = itertools.cycle(sources), DecodingOptions(max_new_tokens=longest)
        free, lengths, ended = list(range(self._rows)), dict[int, int](), 0
        began = time.perf_counter()
        while (now := time.perf_counter() - began) < warm_s + seconds:
            arrivals = [Arrival((row,), next(waiting), options) for row in free]
            if arrivals:
                runner.admit(arrivals)
                lengths |= dict.fromkeys(free, 0)
            names, free = list(lengths), []
            for name, step in zip(names, runner.launch(names).result(), strict=True):
                lengths[name] += len(step.tokens)
                if runner.config.eos in step.tokens or lengths[name] >= longest:
                    free.append(name)
            for name in free:
                del lengths[name]
            runner.release(free)
            ended += len(free) if now >= warm_s else 0
        runner.release(list(lengths))
        return ended / seconds

    def translate_texts(self, texts: Sequence[str], target: str) -> list[str]:
        """Translate greedily from English, all at once, tokenisation included."""
        tokenizer = self._model.tokenizer
        sources = [list(tokenizer.prompt(text, "en", target).source) for text in texts]
        work = Work(sources=sources, rows=self._rows, at_once=True)
        return [tokenizer.decode(ids) for ids in self.translate(work)]


def _without_end(target: Ids, eos: int, longest: int) -> Ids:
    target = target[:longest]
    return target[: target.index(eos)] if eos in target else target
