"""Who runs next. Pure bookkeeping: no torch, no threads, no clock of its own."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from server.generation import Finish, Generation

if TYPE_CHECKING:
    from model import Hypothesis, Step


_LARGE = 4  # a group of more than this part of the slots gives way to smaller ones
_SCALE = 8  # how many times the budget of source tokens there is while hardly anything runs
_LEAST = 3  # rows that large groups may step beside others: a step of few rows costs little more


class Scheduler:
    """Fair turns among groups, first come first served within one, over a fixed number of slots.

    A generation holds as many slots as its options need rows, and is named by the first.
    Slots that are vacated stay out of use until `reclaim` hands them out to be cleaned.

    While others run, large groups are stepped and admitted in as many rows as the others have, or
    in a few: a short text then takes at most about twice as long as alone, and a document about
    half of the time.
    """

    def __init__(self, slots: int, eos: int, source_tokens_per_tick: int) -> None:
        self.slots = slots
        self.running: dict[int, Generation] = {}  # by first slot
        self.streaming = 0  # of those that run
        self.generated = 0  # tokens, since the beginning
        self._eos = eos
        self._source_tokens_per_tick = source_tokens_per_tick
        self._free = list(reversed(range(slots)))
        self._vacated: list[tuple[int, ...]] = []
        self._waiting: OrderedDict[int, deque[Generation]] = OrderedDict()  # by group
        self._alive: dict[int, Generation] = {}  # by id, waiting and running
        self._members: dict[int, int] = {}  # how many are alive, by group
        self._large: set[int] = set()  # groups that have had many at once
        self._small_rows = 0  # of other groups, running
        self._deadlines: list[tuple[float, int]] = []  # heap; ids that ended are skipped

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing runs, and no slot is left to reclaim."""
        return not self._alive and not self._vacated

    @property
    def waiting(self) -> int:
        """How many hold no slot yet."""
        return len(self._alive) - len(self.running)

    @property
    def used(self) -> int:
        """How many slots are not free."""
        return self.slots - len(self._free)

    def first_deadline(self) -> float:
        """Return the first deadline of what is alive; infinity if nothing is."""
        while self._deadlines and self._deadlines[0][1] not in self._alive:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def add(self, generation: Generation) -> None:
        """Queue `generation` behind the others of its group."""
        self._alive[generation.id] = generation
        group = generation.group
        self._waiting.setdefault(group, deque()).append(generation)
        self._members[group] = self._members.get(group, 0) + 1
        if self._members[group] > max(_LEAST, self.slots // _LARGE) and group not in self._large:
            self._large.add(group)
            running = [g for g in self.running.values() if g.group == group]
            self._small_rows -= sum(len(g.slots) for g in running)
        heapq.heappush(self._deadlines, (generation.deadline, generation.id))

    def admit(self, now: float, encoding: int = 0) -> dict[int, Generation]:
        """Give free slots to waiting generations, one of each group in turn.

        Where a slot is free and nothing is being encoded, at least one is admitted; the rest only
        while their source tokens together stay within the budget of a tick, so that encoding never
        stalls those who run.
        One that needs more slots than are free lets nobody pass, or it might wait for ever.

        Args:
            encoding: source tokens admitted before that are not encoded yet: whoever comes next
                would wait for them, so that they count against the budget.
        """
        admitted: dict[int, Generation] = {}
        budget = self._source_tokens() - encoding
        while self._free and (group := self._next_group()) is not None:
            first = self._waiting[group][0]
            budget -= len(first.source)
            if first.options.rows > len(self._free) or (budget < 0 and (admitted or encoding)):
                break
            self._start(first, now)
            admitted[first.slots[0]] = first
        return admitted

    def _source_tokens(self) -> int:
        """Return how many may be encoded now: the fewer rows run, the fewer are kept waiting."""
        return self._source_tokens_per_tick * self.slots // max(self.used, self.slots // _SCALE, 1)

    def _next_group(self) -> int | None:
        """Return the group whose turn it is; none while all that wait are to give way."""
        for group in self._waiting:
            if group not in self._large or self._large_rows < self._allowance:
                return group
        return None

    @property
    def _large_rows(self) -> int:
        """Rows of large groups, running."""
        return self.used - self._small_rows - sum(map(len, self._vacated))

    @property
    def _allowance(self) -> int:
        """How many rows of large groups may be stepped together."""
        return max(_LEAST, self._small_rows) if self._small_rows else self.slots

    def _start(self, generation: Generation, now: float) -> None:
        """Give the first of its group its slots; the group's next turn comes after the others'."""
        group = generation.group
        self._waiting[group].popleft()
        self._forget_ended(group)
        if group in self._waiting:
            self._waiting.move_to_end(group)
        generation.slots = tuple(self._free.pop() for _ in range(generation.options.rows))
        generation.admitted_at = now
        self.streaming += generation.streams
        self._small_rows += len(generation.slots) if group not in self._large else 0
        self.running[generation.slots[0]] = generation

    def due(self) -> list[int]:
        """Return which of those that run are to be stepped now, by first slot.

        All of them, unless a large group runs beside others: of its generations the oldest.
        """
        room = self._allowance
        if self._large_rows <= room:
            return list(self.running)
        names, is_first = [], True
        for name, generation in self.running.items():
            if generation.group not in self._large:
                names.append(name)
            elif len(generation.slots) <= room or is_first:
                names.append(name)
                room, is_first = room - len(generation.slots), False
        return names

    def commit(self, steps: Iterable[tuple[int, Step]], now: float) -> list[Generation]:
        """Record what one launch gave each named slot; returns what changed.

        Args:
            now: when the first token of the launch came.
        """
        changed = []
        for slot, step in steps:
            generation = self.running[slot]
            known = len(generation.target)
            if not step.is_healthy:
                self._end(generation, Finish.ERROR)
            else:
                self._extend(generation, step, now)
            self.generated += len(generation.target) - known
            if generation.finish or step.tokens or generation.preview:
                changed.append(generation)
        return changed

    def _extend(self, generation: Generation, step: Step, now: float) -> None:
        if generation.previews:
            generation.preview = step.preview
        if step.hypotheses:
            self._conclude(generation, step.hypotheses)
        elif step.tokens:
            self._append(generation, step)
        if generation.first_token_at is None and (step.tokens or step.hypotheses):
            generation.first_token_at = now

    def _append(self, generation: Generation, step: Step) -> None:
        """Add tokens, the last of which may be the end; what would exceed the limit is dropped."""
        room = generation.max_new_tokens - len(generation.target)
        tokens = step.tokens[:room]
        has_ended = tokens[-1] == self._eos
        gained = len(tokens) - has_ended
        generation.target += tokens[:gained]
        generation.scores += step.scores[:gained]
        generation.alignments += step.alignments[:gained]
        was_forced = len(tokens) == room and generation.options.forced_eos is not None
        if has_ended and not was_forced:
            self._end(generation, Finish.STOP)
        elif len(tokens) == room:
            self._end(generation, Finish.LENGTH)

    def _conclude(self, generation: Generation, hypotheses: tuple[Hypothesis, ...]) -> None:
        """End a search; its best hypothesis begins with what is certain already."""
        best = hypotheses[0]
        generation.hypotheses, generation.preview = hypotheses, ()
        generation.target, generation.scores = [*best.tokens], [*best.log_probs]
        generation.alignments = [*best.alignments]
        self._end(generation, Finish(best.finish))

    def cancel(self, ids: Iterable[int]) -> list[Generation]:
        """End what its client gave up, running or waiting; returns what was ended now."""
        alive = [self._alive[i] for i in dict.fromkeys(ids) if i in self._alive]
        return self._end_all(alive, Finish.CANCELLED)

    def fail(self, slots: Sequence[int]) -> list[Generation]:
        """End what is named by `slots` because the model raised."""
        return self._end_all((self.running[slot] for slot in slots), Finish.ERROR)

    def expire(self, now: float) -> list[Generation]:
        """End everything whose deadline has come, running or waiting."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, identity = heapq.heappop(self._deadlines)
            if identity in self._alive:
                expired.append(self._alive[identity])
        return self._end_all(expired, Finish.TIMEOUT)

    def clear(self, finish: Finish) -> list[Generation]:
        """End everything with `finish`."""
        return self._end_all(list(self._alive.values()), finish)

    def reclaim(self) -> list[int]:
        """Return the first slots of what ended since the last call; from now on all are free."""
        vacated, self._vacated = self._vacated, []
        for slots in vacated:
            self._free += slots
        return [slots[0] for slots in vacated]

    def _end_all(self, generations: Iterable[Generation], finish: Finish) -> list[Generation]:
        ended = list(generations)
        for generation in ended:
            self._end(generation, finish)
        return ended

    def _end(self, generation: Generation, finish: Finish) -> None:
        generation.finish = finish
        group = generation.group
        del self._alive[generation.id]
        if generation.slots:
            del self.running[generation.slots[0]]
            self.streaming -= generation.streams
            self._small_rows -= len(generation.slots) if group not in self._large else 0
            self._vacated.append(generation.slots)
        else:
            self._forget_ended(group)
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group]
            self._large.discard(group)

    def _forget_ended(self, group: int) -> None:
        """Drop what has ended from a group's head, so that its first is alive, or it is gone."""
        queue = self._waiting[group]
        while queue and queue[0].finish is not None:
            queue.popleft()
        if not queue:
            del self._waiting[group]

    def __repr__(self) -> str:
        running, free = len(self.running), len(self._free)
        return f"<Scheduler {running} running, {self.waiting} waiting, {free} free>"
