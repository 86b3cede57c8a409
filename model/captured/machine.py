"""The captured machine: replays steps of static shape, several without the host between them."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from model.captured.buckets import buckets
from model.captured.chosen import chosen
from model.captured.device import Cuda, Device, Host, Mark, give_back, on_device
from model.captured.encoder import encode
from model.captured.kinds import room, variant
from model.captured.memory import Memory
from model.captured.operations import CannotCapture, Operations
from model.captured.runs import Outgoing, Results, Sent
from model.captured.settings import CaptureSettings
from model.captured.sources import Sources
from model.captured.staging import Staging
from model.captured.steps import Steps, Variant
from model.captured.weights import gather
from model.decoding.picks import Picks
from model.decoding.rows import RowTable
from model.decoding.search import Search
from model.decoding.step import Chooser
from model.decoding.target import Target
from model.latent_cache import Source
from model.machine import Gain, alignments, wants_attention
from model.transformer import EncoderDecoder

logger = logging.getLogger(__name__)

_SEARCHES: frozenset[Variant] = frozenset({"beams", "mixed"})


class CapturedMachine:
    """A `Machine` of an `EncoderDecoder`, whose decode steps are captured before it is ready.

    A row of the runner is a slot here, and a source has a place of its own; which of them a step
    reads is said in one copy before it, so that nothing moves when rows join or leave. Steps choose
    tokens themselves where they can, and stop rows themselves, so that the host may read their
    results late.

    What fails on a device fails for good: each call raises from then on, and so does the probe by
    which an engine finds out whether it is ready.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        rows: int,
        max_target: int,
        table: RowTable,
        chooser: Chooser,
        suppressed: Tensor,
        settings: CaptureSettings | None = None,
        operations: Operations | None = None,
    ) -> None:
        """Allocate memory for `rows`, each of up to `max_target` tokens, and capture all steps.

        Args:
            suppressed: tokens that are never chosen, int64.
            operations: by themselves, the fastest that the device has.

        Raises:
            CannotCapture: the network is one of eight bits, or has too few positions.
            Exception: the device could not capture a step, or lacks memory.
        """
        self.settings = settings = settings or CaptureSettings()
        self._network, self._table, self._chooser = network.eval(), table, chooser
        self._config = config = network.config
        device = network.device
        self._device: Device = Host() if device.type == "cpu" else Cuda(device)
        self._entries = settings.late + 2
        sizes = buckets(rows, settings.bucket_min)
        weights = gather(network, max_target)
        tokens = settings.encoder_tokens
        with self._device.decoding():
            self._memory = memory = Memory(
                weights,
                rows,
                sizes[-1],
                config.max_positions,
                max_target,
                self._entries,
                settings.max_beams,
                device,
            )
            operations = operations or chosen(device, settings.replaced, head_dim=config.head_dim)
            self._steps = Steps(weights, memory, operations, self._device, sizes, suppressed)
            self._staging = Staging(memory, self._device, rows)
            self._sources = Sources(memory, weights.source, self._device, rows, tokens)
            self._box = Outgoing(memory, self._device, self._entries)
        self._is_interrupted = False

    def encode(self, sources: Sequence[Source]) -> list[Tensor]:
        """As `Machine` says; beside what is decoding."""
        with self._device.encoding():
            tokens = self.settings.encoder_tokens
            return encode(self._network, sources, tokens, self._device.device)

    def holds(self, source: Source) -> bool:
        """As `Machine` says."""
        return source in self._sources

    def add_sources(self, sources: Sequence[Source], latents: Sequence[Tensor]) -> None:
        """As `Machine` says."""
        self._sources.add(sources, latents)

    def drop_unread(self) -> None:
        """As `Machine` says."""
        self._sources.drop_unread()

    def bind(self, row: int, source: Source) -> None:
        """As `Machine` says."""
        self._sources.bind(row, source)
        self._staging.bind(row, self._table.options[row], self._sources.index(row))

    def release(self, row: int, *, is_clean: bool) -> None:
        """As `Machine` says; zeros replace what is not clean."""
        self._sources.release(row, is_clean=is_clean)
        if not is_clean:
            with self._device.decoding():
                self._memory.clean_slot(row)

    def reorder(self, rows: Sequence[int], parents: Sequence[int], length: int) -> None:
        """As `Machine` says; nothing but the table of ancestors changes."""
        with self._device.decoding():
            index = on_device([rows, parents], torch.int64, self._device.device)
            self._memory.reorder(index[0], index[1])

    def step(self, targets: Sequence[Target]) -> Picks:
        """As `Machine` says; the host chooses, from logits that a captured step made."""
        rows = [row for target in targets for row in target.rows]
        with self._device.decoding():
            self._wait_for(rows)
            bucket = self._steps.bucket(len(rows))
            positions = [self._table.decoded[row] for row in rows]
            self._say(rows, positions, [position + 1 for position in positions], bucket, [])
            aligned = {}
            if wants_attention(targets):  # so seldom that it is not worth a graph
                layers: list[Tensor] = []
                self._steps.run(bucket, "logits", layers)
                aligned = alignments(torch.stack(layers), targets)
            else:
                self._steps.replay(bucket, "logits")
            return self._chooser.read(self._memory.logits[: len(rows)], targets, aligned)

    def _wait_for(self, rows: Sequence[int]) -> None:
        """Let the device go on only when the sources of these rows can be read."""
        for mark in map(self._sources.pending, rows):
            if mark is not None:
                self._device.wait(mark)

    def _say(
        self,
        rows: Sequence[int],
        positions: Sequence[int],
        limits: Sequence[int],
        bucket: int,
        searches: Sequence[tuple[int, Search]],
    ) -> None:
        newest = self._table.newest
        self._staging.rows(rows, [newest[row] for row in rows], positions, limits, bucket)
        if searches:
            self._staging.searches(searches, bucket)
        self._staging.send(bucket)
        self._steps.take(bucket)

    @property
    def least_steps(self) -> int:
        """As `Machine` says: no step need let the host choose."""
        return 1

    def room(self, target: Target, decoded: int) -> int:
        """As `Machine` says: whatever takes the likeliest token, draws, or searches by beams."""
        return room(target, decoded, self._config.eos, self.settings.max_beams)

    def run(self, targets: Sequence[Target], rooms: Sequence[int]) -> list[Gain]:
        """As `Machine` says; targets whose sources are not encoded yet gain nothing, if others do.

        Results are read while later steps run.
        """
        marks = [self._sources.pending(target.rows[0]) for target in targets]
        ready = [mark is None for mark in marks]
        if not any(ready):  # the device waits for them
            ready = [True] * len(targets)
        awaited = {
            id(mark): mark
            for mark, runs in zip(marks, ready, strict=True)
            if mark is not None and not runs
        }
        some = [target for target, runs in zip(targets, ready, strict=True) if runs]
        limits = [limit for limit, runs in zip(rooms, ready, strict=True) if runs]
        with self._device.decoding():
            gained = iter(self._run(some, limits, [*awaited.values()]))
        return [next(gained) if runs else Gain((), True) for runs in ready]

    def _run(
        self, targets: Sequence[Target], rooms: Sequence[int], awaited: Sequence[Mark]
    ) -> list[Gain]:
        """Run targets until they end or their rooms do, or what others await has been reached."""
        rows: list[int] = []
        limits: list[int] = []
        searches: list[tuple[int, Search]] = []
        for target, tokens in zip(targets, rooms, strict=True):
            if target.search is not None:
                searches.append((len(rows), target.search))
            # In the order of its hypotheses, which the step keeps.
            rows += [target.rows[index] for index in target.order]
            limits += [self._table.decoded[target.rows[0]] + tokens] * len(target.rows)
        self._wait_for(rows)
        bucket = self._steps.bucket(len(rows))
        decoded = self._table.decoded
        self._say(rows, [decoded[row] for row in rows], limits, bucket, searches)
        results = Results(targets, [decoded[target.rows[0]] for target in targets])
        with self._restoring(rows) if searches else nullcontext():
            self._follow(results, bucket, variant(targets), max(rooms), awaited)
        return results.gains()

    @contextmanager
    def _restoring(self, rows: Sequence[int]) -> Iterator[None]:
        """Let beams that were moved stand as before where what follows raises."""
        index = on_device([*rows], torch.int64, self._device.device)
        ancestors = self._memory.slots.ancestors
        before = ancestors[index]
        try:
            yield
        except BaseException:
            ancestors[index] = before
            raise

    def _follow(
        self,
        results: Results,
        bucket: int,
        kind: Variant,
        most: int,
        awaited: Sequence[Mark],
    ) -> None:
        """Replay steps until no target goes on or others may, and read them late."""
        flying: deque[Sent] = deque()
        self._box.begin(wants_candidates=kind in _SEARCHES)
        for _ in range(most):
            self._steps.replay(bucket, kind)
            flying.append(self._box.send())
            is_late = len(flying) > self.settings.late
            if is_late and not results.take(*flying.popleft().read()):
                break
            if self._is_interrupted or any(mark.query() for mark in awaited):
                break
        self._is_interrupted = False
        while flying:
            results.take(*flying.popleft().read())

    def interrupt(self) -> None:
        """As `Machine` says; the steps in flight count."""
        self._is_interrupted = True

    def __repr__(self) -> str:
        steps = ", ".join(map(str, self._steps.buckets))
        return f"<CapturedMachine {self._sources!r}, steps of {steps} rows>"


def captured_machine(
    network: EncoderDecoder,
    rows: int,
    max_target: int,
    table: RowTable,
    chooser: Chooser,
    suppressed: Tensor,
    settings: CaptureSettings,
) -> CapturedMachine | None:
    """Return the machine, or None, with a warning, where the device could not capture its steps.

    Raises:
        CannotCapture: as the machine does.
    """
    try:
        return CapturedMachine(network, rows, max_target, table, chooser, suppressed, settings)
    except CannotCapture:
        raise
    except Exception as error:  # compilers of kernels have exceptions of their own
        logger.warning("steps run operator by operator, as capturing them failed: %s", error)
    give_back(network.device)  # what the attempt allocated
    return None
