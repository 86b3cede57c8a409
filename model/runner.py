"""Runner: token ids to tensors and back; the readable, eager reference on any device."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding.options import DecodingOptions
from model.decoding.rows import RowTable
from model.decoding.search import Alignment
from model.decoding.step import Chooser, Move, Step
from model.decoding.target import Target
from model.kv_cache import KVCache, round_up
from model.latent_cache import LatentCache, Source
from model.transformer import EncoderDecoder

SOURCE_STEP = (
    8  # a source is encoded with others of its own padded length only, for the same reason
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A source that takes free rows, as many as its options ask for; the first one names it."""

    rows: tuple[int, ...]
    source: Source
    options: DecodingOptions


@dataclass(frozen=True, slots=True)
class Pending:
    """A launched step; `result` waits for it."""

    _result: list[Step]

    def result(self) -> list[Step]:
        """Return what each target gained, in the order in which they were launched."""
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
            max_target: tokens of a target at most, its prefix included.
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
        self._table = RowTable(rows, max_target, self.config.start)
        self._cache = KVCache(
            self.config, rows, self.max_source, max_target, self._dtype, self._device
        )
        suppressed = list(self.config.suppressed) + [self.config.eos] * end_is_forbidden
        self._chooser = Chooser(
            self._table,
            self.config.eos,
            torch.tensor(suppressed, dtype=torch.long, device=self._device),
        )
        self.latents = LatentCache(self._encode, latent_bytes)
        self._targets: dict[int, Target] = {}  # by their first rows
        self._unhealthy: set[int] = set()

    @torch.inference_mode()
    def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Encode the arrivals' sources as needed and let each take its rows.

        Raises:
            ValueError: a source is empty or longer than `max_source`, a target may become longer
                than `max_target`, or the rows are not as many as the options ask for.
        """
        for arrival in arrivals:
            self._verify(arrival)
        # An equal source that is being read already, or arrives twice, skips the encoder as well.
        needed = list(dict.fromkeys(a.source for a in arrivals if not self._cache.holds(a.source)))
        held = [(row, arrival) for arrival in arrivals for row in arrival.rows]
        try:
            for source, latent in zip(needed, self.latents.fetch(needed), strict=True):
                self._cache.add_source(source, self._project(latent))
            for row, arrival in held:
                self._table.occupy(row, arrival.options)
        except BaseException:
            self._cache.drop_unread()
            for row, _ in held:
                self._table.vacate(row)
            raise
        self.latents.hits += len(arrivals) - len(needed)
        for row, arrival in held:
            self._cache.bind(row, arrival.source)
        for a in arrivals:
            target = Target.begin(a.rows, a.options, len(a.source), self.config.eos)
            self._targets[a.rows[0]] = target

    def _verify(self, arrival: Arrival) -> None:
        source, options = len(arrival.source), arrival.options
        if not 0 < source <= self.max_source:
            raise ValueError(f"a source of {source} tokens; at most {self.max_source}")
        target = len(options.target_prefix) + options.max_new_tokens
        if target > self.max_target:
            raise ValueError(f"a target of up to {target} tokens; at most {self.max_target}")
        if len(arrival.rows) != options.rows:
            raise ValueError(f"{len(arrival.rows)} rows for options that need {options.rows}")

    @torch.inference_mode()
    def launch(self, names: Sequence[int]) -> Pending:
        """Decode one token in every row of the targets named by their first rows."""
        # In the order of their rows, which the cache can then read without copying them.
        ordered = sorted(names)
        targets = [self._targets[name] for name in ordered]
        try:
            steps = dict(zip(ordered, self._step(targets), strict=True))
            return Pending([steps[name] for name in names])
        except BaseException:
            self._unhealthy.update(names)  # what they wrote may not be finite
            raise

    def _step(self, targets: Sequence[Target]) -> list[Step]:
        rows = [row for target in targets for row in target.rows]
        padded = [*rows, *[rows[0]] * (round_up(len(rows), self.network.row_step) - len(rows))]
        decoded, newest = self._table.decoded, self._table.newest
        inputs = [padded, [decoded[row] for row in padded], [newest[row] for row in padded]]
        index, positions, tokens = torch.tensor(inputs, device=self._device)
        # In half precisions attention, too, has other bits for other numbers of rows.
        count = len(rows) if self._dtype == torch.float32 else len(padded)
        memory = self._cache.step(index[:count], positions[:count])
        layers: list[Tensor] | None = [] if _wants_attention(targets) else None
        logits = self.network.decode(tokens[:, None], positions[:, None], memory, layers)[:, 0]
        attention = _attention(layers, targets) if layers else {}
        moves = self._chooser.moves(self._chooser.read(logits, targets, attention), targets)
        self._record(rows, moves)
        return [move.step for move in moves]

    def _record(self, rows: list[int], moves: Sequence[Move]) -> None:
        """Let every row hold what was chosen for it."""
        self._table.verify_room(rows)  # from here on nothing raises but for want of memory
        moved = [
            (row, parent)
            for move in moves
            if move.parents is not move.target.rows
            for row, parent in zip(move.target.rows, move.parents, strict=True)
            if row != parent
        ]
        if moved:
            to, origins = [row for row, _ in moved], [parent for _, parent in moved]
            index = torch.tensor([to, origins], device=self._device)
            length = max(self._table.decoded[row] for row in to) + 1
            self._cache.reorder(index[0], index[1], length)
            self._table.reorder(to, origins)
        self._table.append(rows, [token for move in moves for token in move.tokens])
        for move in moves:
            move.target.search, move.target.order = move.search, move.order
            if not move.step.is_healthy:
                self._unhealthy.add(move.target.rows[0])

    def release(self, names: Iterable[int]) -> None:
        """Free the rows of targets; what an unhealthy one held is overwritten."""
        for name in names:
            for row in self._targets.pop(name).rows:
                self._table.vacate(row)
                self._cache.release(row, is_clean=name not in self._unhealthy)
            self._unhealthy.discard(name)

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


def _wants_attention(targets: Sequence[Target]) -> bool:
    return any(target.options.alignments is not None for target in targets)


def _attention(layers: list[Tensor], targets: Sequence[Target]) -> dict[int, Alignment]:
    """Return, by place in the step, what each row that asks looks at: the mean over heads.

    It is that of the layer asked for, or of all layers.
    """
    asked = [(t.options.alignments, t.source_length) for t in targets for _ in t.rows]
    places = [place for place, (wanted, _) in enumerate(asked) if wanted is not None]
    # [layers, places, source]
    by_layer = torch.stack([layer[places, :, 0].float().mean(1) for layer in layers])
    average = by_layer.mean(0)
    found = {}
    for index, place in enumerate(places):
        wanted, length = asked[place]
        weights = by_layer[wanted, index] if isinstance(wanted, int) else average[index]
        found[place] = tuple(weights[:length].tolist())
    return found
