"""Runner: which targets hold which rows, and what each step gives them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from model.captured.machine import captured_machine
from model.captured.settings import CaptureSettings
from model.decoding.options import DecodingOptions
from model.decoding.rows import RowTable
from model.decoding.step import Chooser, Move, Step, searched
from model.decoding.target import Target
from model.eager import EagerMachine
from model.latent_cache import LatentCache, Source
from model.machine import Gain, Machine
from model.native.machine import NativeMachine
from model.native.network import NativeNetwork
from model.newcomers import Newcomers
from model.transformer import EncoderDecoder

Network = EncoderDecoder | NativeNetwork


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
        network: Network,
        *,
        rows: int,
        max_target: int,
        latent_bytes: int,
        end_is_forbidden: bool = False,
        captured: bool | CaptureSettings | None = None,
    ) -> None:
        """Allocate the caches.

        Args:
            rows: hypotheses decoded together at most.
            max_target: tokens of a target at most, its prefix included.
            latent_bytes: bound of the latent cache.
            end_is_forbidden: never generate the end token (to measure fixed lengths).
            captured: whether, or how, to capture steps and replay them; by default on other
                devices than a CPU. Where that fails, steps run operator by operator.

        Raises:
            ValueError: an eight-bit network cannot be captured.
        """
        self.network = network
        self.config = network.config
        self.rows = rows
        self.max_source = self.config.max_positions
        self.max_target = max_target
        self._table = table = RowTable(rows, max_target, self.config.start)
        suppressed = list(self.config.suppressed) + [self.config.eos] * end_is_forbidden
        device = torch.device("cpu") if isinstance(network, NativeNetwork) else network.device
        tensor = torch.tensor(suppressed, dtype=torch.long, device=device)
        self._chooser = chooser = Chooser(table, self.config.eos, tensor)
        machine: Machine
        beside = None
        if isinstance(network, NativeNetwork):
            if captured:
                raise ValueError("the compiled library's steps cannot be captured")
            network.suppress(suppressed)
            machine = native = NativeMachine(network, rows, max_target, table, chooser)
            beside = native if network.threads > 1 else None
        else:
            machine = _machine(network, rows, max_target, table, chooser, tensor, captured)
        self._machine = machine
        self.latents = LatentCache(machine.encode, latent_bytes)
        self._newcomers = Newcomers(beside, self.latents)
        self._targets: dict[int, Target] = {}  # by their first rows
        self._unhealthy: set[int] = set()

    @torch.inference_mode()
    def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Encode the arrivals' sources as needed and let each take its rows.

        Where other targets can be stepped meanwhile, and the machine can, sources are only begun
        here, and encoded beside the steps.

        Raises:
            ValueError: a source is empty or longer than `max_source`, a target may become longer
                than `max_target`, a token is in no vocabulary, or the rows are not as many as the
                options ask for.
        """
        for arrival in arrivals:
            self._verify(arrival)
        # An equal source that is being read already, or arrives twice, skips the encoder as well.
        holds = self._machine.holds
        needed = list(dict.fromkeys(a.source for a in arrivals if not holds(a.source)))
        held = [(row, arrival) for arrival in arrivals for row in arrival.rows]
        beside = self._newcomers.chosen(needed, len(self._targets))
        at_once = [source for source in needed if source not in beside]
        try:
            self._machine.add_sources(at_once, self.latents.fetch(at_once))
            for row, arrival in held:
                self._table.occupy(row, arrival.options)
            self._newcomers.begin(beside)
        except BaseException:
            self._machine.drop_unread()
            for row, _ in held:
                self._table.vacate(row)
            raise
        self.latents.hits += len(arrivals) - len(needed)
        for row, arrival in held:
            self._machine.bind(row, arrival.source)
        for a in arrivals:
            target = Target.begin(a.rows, a.options, len(a.source), self.config.eos)
            self._targets[a.rows[0]] = target
            self._newcomers.add(a.rows[0], a.source)

    def _verify(self, arrival: Arrival) -> None:
        source, options = len(arrival.source), arrival.options
        if not 0 < source <= self.max_source:
            raise ValueError(f"a source of {source} tokens; at most {self.max_source}")
        target = len(options.target_prefix) + options.max_new_tokens
        if target > self.max_target:
            raise ValueError(f"a target of up to {target} tokens; at most {self.max_target}")
        if len(arrival.rows) != options.rows:
            raise ValueError(f"{len(arrival.rows)} rows for options that need {options.rows}")
        _verify_tokens(arrival.source, self.config.source_vocabulary)
        given = (options.start, options.forced_bos, options.forced_eos)
        named = [token for token in given if token is not None]
        phrased = [token for phrase in options.phrases for token in phrase]
        _verify_tokens(
            (*options.target_prefix, *options.suppressed, *named, *phrased), self.config.vocabulary
        )
        if never := {*phrased} & {self.config.eos, *self.config.suppressed}:
            raise ValueError(f"a phrase holds token {min(never)}, which no target may contain")

    @torch.inference_mode()
    def launch(self, names: Sequence[int], steps: int = 1) -> Pending:
        """Decode one token in every row of the targets named by their first rows, or several.

        A target whose source is still being encoded gains nothing; where there is no other one,
        the launch waits.

        Args:
            steps: how many at most. With more than 1, targets of which the machine needs nothing
                else meanwhile may gain several: up to their end, their limit, or an interruption.
        """
        gained = self._newcomers.held_back(names)
        ready = sorted(name for name in names if name not in gained)  # of rows: read without copies
        if ready:  # and who is awaited does not wait for several steps
            gained |= self._launch(ready, 1 if gained else steps)
        return Pending([gained[name] for name in names])

    def _launch(self, names: Sequence[int], steps: int) -> dict[int, Step]:
        targets = [self._targets[name] for name in names]
        try:
            return dict(zip(names, self._decode(targets, steps), strict=True))
        except BaseException:
            self._unhealthy.update(names)  # what they wrote may not be finite
            raise

    def _decode(self, targets: Sequence[Target], steps: int) -> list[Step]:
        if steps >= self._machine.least_steps and (rooms := self._rooms(targets, steps)):
            return self._run(targets, rooms)
        return self._step(targets)

    @property
    def encoding(self) -> int:
        """Source tokens that were begun beside the steps and are not encoded yet."""
        return self._newcomers.tokens

    def interrupt(self) -> None:
        """Let the launch of several steps under way, or else the next one, return early.

        Safe from any thread.
        """
        self._machine.interrupt()

    def _rooms(self, targets: Sequence[Target], steps: int) -> list[int]:
        """Return how many tokens each target may gain by itself; nothing if one may not."""
        rooms = []
        for target in targets:
            decoded = self._table.decoded[target.rows[0]]
            room = self._machine.room(target, decoded)
            rooms.append(min(steps, room, self.max_target - decoded))
            if rooms[-1] < 1:
                return []
        return rooms

    def _run(self, targets: Sequence[Target], rooms: Sequence[int]) -> list[Step]:
        gains = self._machine.run(targets, rooms)
        return [self._gained(*pair) for pair in zip(targets, gains, strict=True)]

    def _gained(self, target: Target, gain: Gain) -> Step:
        """Record what a target gained by itself."""
        first = target.rows[0]
        if not gain.is_healthy:
            self._unhealthy.add(first)
            return Step(is_healthy=False)
        if gain.search is None and not gain.tokens:
            return Step(is_awaited=True)
        if gain.search is None:
            known = max(target.prefix - self._table.decoded[first], 0)
            self._table.extend(first, gain.tokens)
            tokens = gain.tokens[known:]
            return Step(tokens, (0.0,) * len(tokens))
        step, lines = searched(target, gain.search, gain.steps, self._table.decoded[first])
        for row, line in zip(target.rows, lines, strict=True):
            self._table.rewrite(row, line)
        target.search = gain.search
        return step

    def _step(self, targets: Sequence[Target]) -> list[Step]:
        rows = [row for target in targets for row in target.rows]
        self._table.verify_room(rows)  # before a machine writes where there is none
        moves = self._chooser.moves(self._machine.step(targets), targets)
        self._record(rows, moves)
        return [move.step for move in moves]

    def _record(self, rows: list[int], moves: Sequence[Move]) -> None:
        """Let every row hold what was chosen for it; only want of memory can prevent it."""
        moved = [
            (row, parent)
            for move in moves
            if move.parents is not move.target.rows
            for row, parent in zip(move.target.rows, move.parents, strict=True)
            if row != parent
        ]
        if moved:
            to, origins = [row for row, _ in moved], [parent for _, parent in moved]
            length = max(self._table.decoded[row] for row in to) + 1
            self._machine.reorder(to, origins, length)
            self._table.reorder(to, origins)
        self._table.append(rows, [token for move in moves for token in move.tokens])
        for move in moves:
            move.target.search, move.target.order = move.search, move.order
            if not move.step.is_healthy:
                self._unhealthy.add(move.target.rows[0])

    def release(self, names: Iterable[int]) -> None:
        """Free the rows of targets; what an unhealthy one held is overwritten."""
        for name in names:
            self._newcomers.leave(name)
            for row in self._targets.pop(name).rows:
                self._table.vacate(row)
                self._machine.release(row, is_clean=name not in self._unhealthy)
            self._unhealthy.discard(name)

    def __repr__(self) -> str:
        return f"<Runner {self._table!r} {self._machine!r} {self.latents!r}>"


def _machine(
    network: EncoderDecoder,
    rows: int,
    max_target: int,
    table: RowTable,
    chooser: Chooser,
    suppressed: torch.Tensor,
    captured: bool | CaptureSettings | None,
) -> Machine:
    """Return the machine for a network of PyTorch; arguments as of `Runner`."""
    own = network, rows, max_target, table, chooser
    is_captured = network.device.type != "cpu" if captured is None else bool(captured)
    settings = captured if isinstance(captured, CaptureSettings) else CaptureSettings()
    machine = captured_machine(*own, suppressed, settings) if is_captured else None
    return machine or EagerMachine(*own)


def _verify_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    """Refuse what a table of `vocabulary` tokens does not hold: not every machine would notice."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < vocabulary:
            raise ValueError(f"token id {token} is outside the vocabulary of {vocabulary}")
