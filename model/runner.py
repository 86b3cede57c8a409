"""Runner: token ids to tensors and back; the readable, eager reference on any device."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding import filters
from model.decoding.choose import choose
from model.decoding.options import DecodingOptions
from model.decoding.rows import RowTable
from model.kv_cache import KVCache, round_up
from model.latent_cache import LatentCache, Source
from model.transformer import EncoderDecoder

ROW_STEP = 8  # CPU kernels give a row the same bits at every multiple of it, not at other counts
SOURCE_STEP = (
    8  # a source is encoded with others of its own padded length only, for the same reason
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A source that takes a free row."""

    row: int
    source: Source
    options: DecodingOptions


@dataclass(frozen=True, slots=True)
class StepResult:
    """One decode step, in the order of the rows it ran.

    An unhealthy row produced a NaN or an infinity; its token means nothing.
    Scores are log-probabilities before filters, 0 where a row did not ask for them.
    """

    tokens: list[int]
    scores: list[float]
    healthy: list[bool]


@dataclass(frozen=True, slots=True)
class Pending:
    """A launched step; `result` waits for it."""

    _result: StepResult

    def result(self) -> StepResult:
        """Return the step's outcome."""
        return self._result


class Runner:
    """Runs one model over a fixed number of rows.

    Not thread-safe: one thread calls it. A call that raises leaves every row as it was before,
    so the caller may retry with fewer rows.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        *,
        rows: int,
        max_target: int,
        latent_bytes: int,
        end_is_forbidden: bool = False,
    ) -> None:
        """Allocate the caches.

        Args:
            rows: hypotheses decoded together at most.
            max_target: tokens generated per row at most.
            latent_bytes: bound of the latent cache.
            end_is_forbidden: never generate the end token (to measure fixed lengths).
        """
        self.network = network.eval()
        self.config = network.config
        self.rows = rows
        self.max_source = self.config.max_positions
        self.max_target = max_target
        parameter = next(network.decoder.parameters())  # a norm's, in whatever precision
        self._device, self._dtype = parameter.device, parameter.dtype
        self._table = RowTable(rows, max_target, self.config.start, self._device)
        self._cache = KVCache(
            self.config, rows, self.max_source, max_target, self._dtype, self._device
        )
        suppressed = list(self.config.suppressed) + [self.config.eos] * end_is_forbidden
        self._suppressed = torch.tensor(suppressed, dtype=torch.long, device=self._device)
        self.latents = LatentCache(self._encode, latent_bytes)
        self._unhealthy: set[int] = set()

    @torch.inference_mode()
    def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Encode the arrivals' sources as needed and let each take its row.

        Raises:
            ValueError: a source is empty or longer than `max_source`.
        """
        for arrival in arrivals:
            if not 0 < len(arrival.source) <= self.max_source:
                raise ValueError(
                    f"a source of {len(arrival.source)} tokens; at most {self.max_source}"
                )
        # An equal source that is being read already, or arrives twice, skips the encoder as well.
        needed = list(dict.fromkeys(a.source for a in arrivals if not self._cache.holds(a.source)))
        try:
            for source, latent in zip(needed, self.latents.fetch(needed), strict=True):
                self._cache.add_source(source, self._project(latent))
            for arrival in arrivals:
                self._table.occupy(arrival.row, arrival.options)
        except BaseException:
            self._cache.drop_unread()
            for arrival in arrivals:
                self._table.vacate(arrival.row)
            raise
        self.latents.hits += len(arrivals) - len(needed)
        for arrival in arrivals:
            self._cache.bind(arrival.row, arrival.source)

    @torch.inference_mode()
    def launch(self, rows: Sequence[int]) -> Pending:
        """Decode one token in each of `rows`, all of them admitted."""
        try:
            return Pending(self._step(rows))
        except BaseException:
            self._unhealthy |= set(rows)  # what they wrote may not be finite
            raise

    def _step(self, rows: Sequence[int]) -> StepResult:
        padded = [*rows, *[rows[0]] * (round_up(len(rows), ROW_STEP) - len(rows))]
        index = torch.tensor(padded, device=self._device)
        positions = self._table.lengths[index]
        memory = self._cache.step(index, positions)
        tokens = self._table.newest(index)
        logits = self.network.decode(tokens[:, None], positions[:, None], memory)[:, 0]
        chosen, scores, healthy = self._choose(logits, list(rows), index[: len(rows)], positions)
        self._table.append(index[: len(rows)], chosen)
        result = StepResult(chosen.tolist(), scores.tolist(), healthy.tolist())
        self._unhealthy |= {r for r, ok in zip(rows, result.healthy, strict=True) if not ok}
        return result

    def release(self, rows: Iterable[int]) -> None:
        """Free rows; what an unhealthy one held is overwritten."""
        for row in rows:
            self._table.vacate(row)
            self._cache.release(row, is_clean=row not in self._unhealthy)
            self._unhealthy.discard(row)

    def _choose(
        self, logits: Tensor, row_list: list[int], index: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose from the padded rows' logits; `row_list` and `index` are without padding."""
        asked = [self._table.options[row].wants_scores for row in row_list]
        # Of all padded rows: of a single one, the sum would be split among threads.
        total = logits.logsumexp(1)[: len(row_list)] if any(asked) else None
        logits = logits[: len(row_list)]
        raw = logits.clone() if any(asked) else logits
        filters.apply(logits, index, row_list, self._table, self.config.eos, self._suppressed)
        chosen, healthy = choose(logits, row_list, positions.tolist(), self._table)
        if total is None:
            return chosen, torch.zeros(len(row_list)), healthy
        scores = raw.gather(1, chosen[:, None]).squeeze(1) - total
        unasked = ~torch.tensor(asked, device=self._device)
        return chosen, scores.masked_fill(unasked, 0), healthy

    def _project(self, latent: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project one latent [length, width], padded to a whole step, and drop the padding."""
        length = latent.shape[0]
        padded = torch.zeros(1, round_up(length, SOURCE_STEP), latent.shape[1], dtype=latent.dtype)
        padded = padded.to(self._device)
        padded[0, :length] = latent
        pairs = self.network.source_keys_values(padded)
        return [(keys[0, :, :length], values[0, :, :length]) for keys, values in pairs]

    def _encode(self, sources: Sequence[Source]) -> list[Tensor]:
        by_length: dict[int, list[int]] = {}
        for position, source in enumerate(sources):
            length = min(round_up(len(source), SOURCE_STEP), self.max_source)
            by_length.setdefault(length, []).append(position)
        latents: dict[int, Tensor] = {}
        for length, positions in by_length.items():
            padded = [
                [*sources[p], *[self.config.pad] * (length - len(sources[p]))] for p in positions
            ]
            lengths = torch.tensor([len(sources[p]) for p in positions], device=self._device)
            batch = self.network.encode(torch.tensor(padded, device=self._device), lengths)
            for position, latent in zip(positions, batch, strict=True):
                latents[position] = latent[: len(sources[position])].clone()
        return [latents[position] for position in range(len(sources))]

    def __repr__(self) -> str:
        return f"<Runner {self._table!r} {self._cache!r} {self.latents!r}>"
