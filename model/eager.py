"""The eager machine: PyTorch's operators, on any device and in any precision. The reference."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.picks import Picks
from model.decoding.rows import RowTable
from model.decoding.step import Chooser
from model.decoding.target import Target
from model.kv_cache import KVCache, round_up
from model.latent_cache import Source
from model.machine import Gain, alignments, wants_attention
from model.transformer import EncoderDecoder

SOURCE_STEP = (
    8  # a source is encoded with others of its own padded length only, for the same reason
)


class EagerMachine:
    """A `Machine` of an `EncoderDecoder` and a `KVCache`."""

    def __init__(
        self, network: EncoderDecoder, rows: int, max_target: int, table: RowTable, chooser: Chooser
    ) -> None:
        """Allocate the cache of `rows`, each of up to `max_target` tokens."""
        self._network, self._table, self._chooser = network.eval(), table, chooser
        self._config = config = network.config
        parameter = next(network.decoder.parameters())  # a norm's, in whatever precision
        self._device, self._dtype = network.device, parameter.dtype
        self._cache = KVCache(
            config, rows, config.max_positions, max_target, parameter.dtype, self._device
        )

    def encode(self, sources: Sequence[Source]) -> list[Tensor]:
        """As `Machine` says."""
        config = self._config
        pad = config.pad if config.pad < config.source_vocabulary else 0  # nobody reads it
        by_length: dict[int, list[int]] = {}
        for position, source in enumerate(sources):
            length = min(round_up(len(source), SOURCE_STEP), config.max_positions)
            by_length.setdefault(length, []).append(position)
        latents: dict[int, Tensor] = {}
        for length, positions in by_length.items():
            padded = [[*sources[p], *[pad] * (length - len(sources[p]))] for p in positions]
            lengths = torch.tensor([len(sources[p]) for p in positions], device=self._device)
            batch = self._network.encode(torch.tensor(padded, device=self._device), lengths)
            for position, latent in zip(positions, batch, strict=True):
                latents[position] = latent[: len(sources[position])].clone()
        return [latents[position] for position in range(len(sources))]

    def holds(self, source: Source) -> bool:
        """As `Machine` says."""
        return self._cache.holds(source)

    def add_sources(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """As `Machine` says."""
        for source, latent in zip(sources, latents, strict=True):
            self._cache.add_source(source, self._project(latent))

    def _project(self, latent: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project one latent [length, width], padded to a whole step, and drop the padding."""
        length = latent.shape[0]
        padded = torch.zeros(1, round_up(length, SOURCE_STEP), latent.shape[1], dtype=latent.dtype)
        padded = padded.to(self._device)
        padded[0, :length] = latent
        pairs = self._network.source_keys_values(padded)
        return [(keys[0, :, :length], values[0, :, :length]) for keys, values in pairs]

    def drop_unread(self) -> None:
        """As `Machine` says."""
        self._cache.drop_unread()

    def bind(self, row: int, source: Source) -> None:
        """As `Machine` says."""
        self._cache.bind(row, source)

    def release(self, row: int, *, is_clean: bool) -> None:
        """As `Machine` says; zeros replace what is not clean."""
        self._cache.release(row, is_clean=is_clean)

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """As `Machine` says."""
        index = torch.tensor([rows, parents], device=self._device)
        self._cache.reorder(index[0], index[1], length)

    def step(self, targets: Sequence[Target]) -> Picks:
        """As `Machine` says."""
        rows = [row for target in targets for row in target.rows]
        padded = [*rows, *[rows[0]] * (round_up(len(rows), self._network.row_step) - len(rows))]
        decoded, newest = self._table.decoded, self._table.newest
        inputs = [padded, [decoded[row] for row in padded], [newest[row] for row in padded]]
        index, positions, tokens = torch.tensor(inputs, device=self._device)
        # In half precisions attention, too, has other bits for other numbers of rows.
        count = len(rows) if self._dtype == torch.float32 else len(padded)
        memory = self._cache.step(index[:count], positions[:count])
        layers: list[Tensor] | None = [] if wants_attention(targets) else None
        logits = self._network.decode(tokens[:, None], positions[:, None], memory, layers)[:, 0]
        aligned = alignments(torch.stack(layers)[:, :, :, 0], targets) if layers else {}
        return self._chooser.read(logits, targets, aligned)

    @property
    def least_steps(self) -> int:
        """As `Machine` says."""
        return 2

    def room(self, target: Target, decoded: int) -> int:
        """Return 0: one step costs as much as several would save."""
        return 0

    def run(self, targets: Sequence[Target], rooms: Sequence[int]) -> list[Gain]:
        """Refuse: there is no room."""
        raise NotImplementedError("the eager machine takes single steps")

    def interrupt(self) -> None:
        """Do nothing: there is no run."""

    def __repr__(self) -> str:
        return f"<EagerMachine {self._cache!r}>"
