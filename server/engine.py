"""The one thread that runs a model. Everything before and after it is asyncio.

What crosses its door is plain values: requests in, updates out; nothing mutable is shared.
"""

import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from model import Arrival, Step
from server.device_lock import DeviceLock
from server.errors import Draining, QueueFull, TooLarge
from server.generation import Finish, Generation
from server.isolation import isolated
from server.messages import Request, Update, begun, news_of
from server.metrics import ModelMetrics
from server.pacing import Pacer, rows_by_step, steps_at_once, wants_first
from server.runner import Runner
from server.scheduler import Scheduler

PROBE_PERIOD_S = 1.0


class _Arrivals:
    """Accepted, on its way to the engine's thread."""

    def __init__(self, generations: Iterable[Generation]) -> None:
        self.generations = list(generations)


class _Cancellations:
    """Given up, on its way to the engine's thread."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(dict.fromkeys(ids))


class Engine:
    """Feeds scheduled generations to the runner and publishes their progress.

    Guarantee: an accepted generation is published with `finish` set exactly once, whatever fails.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        publish: Callable[[Sequence[Update]], None],
        metrics: ModelMetrics,
        *,
        probe: Request,
        max_waiting: int,
        device: DeviceLock | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the thread without starting it.

        Args:
            publish: called on the engine's thread, once a launch at most and once for what was
                cancelled together, with the tokens of the streams that are due and the end of
                everything.
            probe: decoded for one step before the first request, and after a failure of every row
                until it succeeds again; it decides `is_healthy`.
            max_waiting: a submission is refused once this many generations wait for a slot.
            device: shared by all engines whose runners use one device: they take turns, call by
                call. By default the device is this engine's alone.
        """
        self._runner = runner
        self._scheduler = scheduler
        self._publish = publish
        self._metrics = metrics
        self._probe_request = probe
        self._max_waiting = max_waiting
        self._device = device or DeviceLock()
        self._clock = clock
        self._door = (
            threading.Lock()
        )  # guards _held, _held_rows, _closed and the order of the inbox
        self._held = self._held_rows = 0
        self._closed = False
        self._ids = itertools.count(1)
        self._inbox: queue.SimpleQueue[_Arrivals | _Cancellations | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._last_step_at: float | None = None
        self._step_s = math.inf  # what a step took in the last launch; nothing is known yet
        self._pacer = Pacer()
        self._measured: tuple[int, ...] = ()
        self._is_healthy = False
        self._is_suspect = False  # the last step gave nobody a token: to be probed
        metrics.slots.set(scheduler.slots)

    @property
    def is_healthy(self) -> bool:
        """Whether the last probe or a step since succeeded, and the thread runs."""
        return self._is_healthy and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def held(self) -> int:
        """Generations accepted that have not ended."""
        return self._held

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def submit(
        self, requests: Sequence[Request], timeout_s: float, group: int | None = None
    ) -> list[int]:
        """Accept `requests`, all or none; safe from any thread.

        An engine with less than `max_waiting` waiting accepts them however many they are.

        Args:
            group: the first id of a group that was accepted before: these are its continuation,
                and are not refused for a full queue. By default they are a group of their own.

        Returns:
            Their ids, in order.

        Raises:
            TooLarge: one needs more rows than there are.
            QueueFull: too many generations wait already.
            Draining: `stop` was called, or the thread has died.
        """
        now = self._clock()
        rows = max((request.options.rows for request in requests), default=0)
        if rows > self._scheduler.slots:
            raise TooLarge(
                f"{rows} hypotheses at once exceed this server's limit of {self._scheduler.slots}"
            )
        with self._door:
            if self._closed:
                raise Draining("the server is shutting down; retry on another instance", 1.0)
            waiting = self._waiting
            if waiting >= self._max_waiting and group is None:
                raise QueueFull(f"{waiting} segments wait already; retry in 1 s", 1.0)
            ids = [next(self._ids) for _ in requests]
            self._inbox.put(
                _Arrivals(
                    begun(request, identity, ids[0] if group is None else group, now, timeout_s)
                    for identity, request in zip(ids, requests, strict=True)
                )
            )
            self._held += len(ids)
            self._held_rows += sum(request.options.rows for request in requests)
        self._runner.interrupt()
        return ids

    @property
    def _waiting(self) -> int:
        """Estimate how many accepted generations no slot is left for."""
        if self._held_rows <= self._scheduler.slots:
            return 0
        return self._held - self._held * self._scheduler.slots // self._held_rows

    def cancel(self, ids: Sequence[int]) -> None:
        """Give up generations; those that have ended already are not touched."""
        self._inbox.put(_Cancellations(ids))
        self._runner.interrupt()

    def stop(self) -> None:
        """Accept nothing more, end what was accepted, join the thread."""
        with self._door:
            self._closed = True
            self._inbox.put(None)
        self._runner.interrupt()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._probe()
            while self._take_inbox():
                self._tick()
        finally:  # however it ends, nobody is left waiting
            with self._door:
                self._closed = True
            self._is_healthy = False
            self._take_inbox(may_wait=False)
            self._report(self._scheduler.clear(Finish.ERROR))

    def _take_inbox(self, *, may_wait: bool = True) -> bool:
        """Sleep while there is nothing to do; False once closed and drained."""
        while not self._inbox.empty() or (may_wait and self._scheduler.idle and not self._closed):
            if self._scheduler.idle:
                self._last_step_at = None
                self._measure()
            try:
                message = self._inbox.get(timeout=None if self._is_healthy else PROBE_PERIOD_S)
            except queue.Empty:
                self._probe()
                continue
            self._take(message)
        return not self._scheduler.idle

    def _take(self, message: _Arrivals | _Cancellations | None) -> None:
        if isinstance(message, _Arrivals):
            for generation in message.generations:
                self._scheduler.add(generation)
            self._metrics.source_tokens.inc(sum(len(g.source) for g in message.generations))
        elif isinstance(message, _Cancellations):
            self._report(self._scheduler.cancel(message.ids))

    def _probe(self) -> None:
        """Decode one token of the probe, while no row is in use."""
        arrival = Arrival((0,), self._probe_request.source, self._probe_request.options)
        succeeds = False
        if isolated(self._device, self._admit_rows, [arrival])[0]:
            stepped, _ = isolated(self._device, partial(self._launch, steps=1), [0])
            self._release_rows([0])
            succeeds = any(step.is_healthy for _, steps in stepped for step in steps)
        self._is_suspect, self._is_healthy = False, succeeds

    def _tick(self) -> None:
        changed = self._scheduler.expire(self._clock())
        try:
            self._release()
            changed += self._admit()
            if names := self._scheduler.due():
                changed += self._step(names)
        finally:  # what has ended is published, whatever fails after it
            self._report(changed)
        self._release()
        self._measure()
        if self._is_suspect and not self._scheduler.running:
            self._probe()

    def _admit(self) -> list[Generation]:
        """Encode newcomers; returns those that could not be."""
        admitted = self._scheduler.admit(self._clock(), self._runner.encoding)
        if not admitted:
            return []
        misses = self._runner.latents.misses
        arrivals = [Arrival(g.slots, g.source, g.options) for g in admitted.values()]
        _, failed = isolated(self._device, self._admit_rows, arrivals)
        if encoded := self._runner.latents.misses - misses:
            self._metrics.encoder_batch_size.observe(encoded)
        for generation in admitted.values():
            if generation.admitted_at is not None:
                self._metrics.queue_s.observe(generation.admitted_at - generation.accepted_at)
        never_admitted = [arrival.rows[0] for arrival in failed]
        ended = self._scheduler.fail(never_admitted)
        self._release(never_admitted)
        self._is_suspect |= len(failed) == len(arrivals)
        return ended

    def _step(self, names: list[int]) -> list[Generation]:
        """Decode a token or several in every row of what runs; returns what changed."""
        began = self._clock()
        done, failed = isolated(
            self._device, partial(self._launch, steps=self._steps_at_once(began)), names
        )
        now = self._clock()
        steps = [pair for stepped, result in done for pair in zip(stepped, result, strict=True)]
        self._is_suspect = not any(step.is_healthy and not step.is_awaited for _, step in steps)
        self._is_healthy |= not self._is_suspect
        first_at = self._observe_steps(names, steps, began, now)
        generated = self._scheduler.generated
        changed = self._scheduler.commit(steps, first_at)
        self._metrics.target_tokens.inc(self._scheduler.generated - generated)
        for generation in changed:
            if generation.first_token_at == first_at:
                self._metrics.time_to_first_token_s.observe(first_at - generation.accepted_at)
        return changed + self._scheduler.fail(failed)

    def _steps_at_once(self, now: float) -> int:
        scheduler = self._scheduler
        return steps_at_once(
            self._step_s,
            scheduler.first_deadline() - now,
            scheduler.streaming,
            is_awaited=bool(self._device.waiting or not self._inbox.empty())
            or wants_first(scheduler.running.values(), scheduler.streaming),
            is_full=bool(scheduler.waiting),
        )

    def _observe_steps(
        self, names: Sequence[int], steps: Sequence[tuple[int, Step]], began: float, now: float
    ) -> float:
        """Measure the steps of one launch; returns when the first of them ended."""
        sizes = rows_by_step(
            {name: len(self._scheduler.running[name].slots) for name in names}, steps
        )
        step_s = (now - began) / len(sizes)
        if sizes[0]:  # else nobody could be stepped
            self._step_s = step_s
        last, self._last_step_at = self._last_step_at, now
        between_s = step_s if last is None else (now - last) / len(sizes)
        for size in sizes:
            self._metrics.decoder_batch_size.observe(size)
        for _ in sizes[last is None :]:
            self._metrics.inter_token_s.observe(between_s)
        return now - step_s * (len(sizes) - 1)

    def _admit_rows(self, arrivals: Sequence[Arrival]) -> bool:
        self._runner.admit(arrivals)
        return True

    def _launch(self, names: Sequence[int], steps: int) -> list[Step]:
        return self._runner.launch(names, steps).result()

    def _release(self, never_admitted: Sequence[int] = ()) -> None:
        vacated = self._scheduler.reclaim()
        self._release_rows([slot for slot in vacated if slot not in never_admitted])

    def _release_rows(self, rows: Sequence[int]) -> None:
        if rows:
            with self._device:
                self._runner.release(rows)

    def _report(self, changed: Sequence[Generation]) -> None:
        """Publish what is new about `changed` and due, each once."""
        now = self._clock()
        wanted = self._pacer.due(changed, self._scheduler.streaming, now)
        if not wanted:
            return
        updates = [news_of(generation, now) for generation in wanted]
        ended = [generation for generation in wanted if generation.finish is not None]
        with self._door:
            self._held -= len(ended)
            self._held_rows -= sum(generation.options.rows for generation in ended)
        self._publish(updates)

    def _measure(self) -> None:
        """Set what the metrics tell of now; most steps change none of it."""
        metrics, latents, scheduler = self._metrics, self._runner.latents, self._scheduler
        slots = (len(scheduler.running), scheduler.used, scheduler.waiting)
        now = (*slots, latents.hits, latents.misses, latents.bytes)
        if now == self._measured:
            return
        self._measured = now
        metrics.running.set(len(scheduler.running))
        metrics.slots_used.set(scheduler.used)
        metrics.waiting.set(scheduler.waiting)
        metrics.latent_cache_bytes.set(latents.bytes)
        metrics.count_latents(latents.hits, latents.misses)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Engine {state}, {self._held} held, {self._scheduler!r}>"
