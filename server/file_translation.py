"""Translation of files: several at a time, each resumed where it was, none taking others down."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import BinaryIO

from model import BUNDLED, Reference
from server import journal
from server.batch import Batch, Order, loaded
from server.decoding_fields import DecodingFields
from server.errors import ServiceError
from server.files import Job
from server.glossary_file import decoded
from server.journal import Done, Partial, Record
from server.progress import Display
from server.settings import Settings
from server.text import documents
from server.text.documents import Document, Writer
from server.text.rules import TextRules
from server.text.terms import verify_terms

_FILES = 8  # at a time: what one small file leaves free is filled by the next
_CHARACTERS = 4000  # in a text of html: what is lost when work is interrupted


@dataclass(slots=True)
class Outcome:
    """How it went, file by file."""

    translated: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)  # each with why

    @property
    def summary(self) -> str:
        """One line about all files."""
        parts = [f"{self.translated} translated"]
        parts += [f"{self.skipped} done before"] * bool(self.skipped)
        parts += [f"{len(self.failed)} failed"] * bool(self.failed)
        return ", ".join(parts)


def order_of(source: str, target: str, beams: int | None, rules: TextRules) -> Order:
    """Return how texts are translated, as a command line says it.

    Raises:
        ValueError: there are terms that cannot be used, or too many of them.
    """
    try:
        verify_terms(rules)
    except ServiceError as error:
        raise ValueError(str(error)) from error
    fields = DecodingFields(num_beams=beams)
    return Order(source=source, target=target, fields=fields, rules=rules)


async def translate_files(
    settings: Settings, jobs: Sequence[Job], order: Order, display: Display, *, force: bool
) -> Outcome:
    """Translate what is not done yet; the models are loaded only if there is something.

    Args:
        force: whether outputs that are there are overwritten.

    Raises:
        ValueError, OSError: nothing can be translated: a model, or a language.
    """
    try:
        return await _FileTranslation(settings, order, display, force).run(jobs)
    except ServiceError as error:
        raise ValueError(str(error)) from error


class _FileTranslation:
    """Jobs that are translated as an order says."""

    def __init__(self, settings: Settings, order: Order, display: Display, force: bool) -> None:
        self._settings, self._order = settings, order
        self._display, self._force = display, force
        self._records: dict[object, Record] = {}
        self._fingerprints: dict[str, str] = {}
        self._outcome = Outcome()

    async def run(self, jobs: Sequence[Job]) -> Outcome:
        """Translate what is not done yet."""
        open_jobs = [job for job in jobs if self._is_open(job)]
        if not open_jobs:
            return self._outcome
        turns = asyncio.Semaphore(_FILES)
        self._display.loading()
        async with loaded(self._settings) as batch:
            batch.verify(self._order.source, self._order.target)
            self._display.begin([job.source for job in open_jobs])
            async with asyncio.TaskGroup() as group:
                for job in open_jobs:
                    await turns.acquire()
                    task = group.create_task(self._guarded(batch, job))
                    task.add_done_callback(lambda _: turns.release())
        return self._outcome

    # -- what is there already ---------------------------------------------------------------

    def _is_open(self, job: Job) -> bool:
        """Whether there is something to do; a file that cannot be done is noted as failed."""
        if job.source is None and job.out is None:
            return True
        try:
            if job.out is None or not job.out.exists():
                return True
            if not job.out.is_file():
                raise ValueError(f"{job.out} is there already, and no file")
            record = self._record(job)
            if record and job.source and record.is_done(job.out, self._key(job, _content(job))):
                self._outcome.skipped += not self._force
                return self._force
            if self._force or (record and record.is_own(job.out)):
                return True
            raise ValueError(f"{job.out} is there already; --force overwrites it")
        except (ValueError, OSError) as error:
            self._fail(job, error)
            return False

    def _record(self, job: Job) -> Record | None:
        if job.record is None:
            return None
        if job.record not in self._records:
            self._records[job.record] = Record(job.record)
        return self._records[job.record]

    def _key(self, job: Job, content: str) -> str:
        order, settings = self._order, self._settings
        rules = [order.rules.glossary, order.rules.protected]
        options = [order.source, order.target, order.fields.model_dump(), rules]
        models = [[name, self._fingerprint(name)] for name in settings.model or [str(BUNDLED)]]
        network = [models, settings.device, settings.precision]
        return journal.digest(job.format, content, options, network)

    def _fingerprint(self, name: str) -> str:
        """Return what tells a model's files from others, which its name may stand for tomorrow."""
        if name not in self._fingerprints:
            try:
                folder = Reference.parse(name).locate(offline=True)
            except ValueError:  # it is still to be fetched: nothing was made with it
                return ""
            self._fingerprints[name] = journal.fingerprint(folder)
        return self._fingerprints[name]

    # -- one file ----------------------------------------------------------------------------

    async def _guarded(self, batch: Batch, job: Job) -> None:
        try:
            await self._translate(batch, job)
            self._outcome.translated += 1
        except (ValueError, OSError, ServiceError) as error:
            self._fail(job, error)
        self._display.file_done(job.source)

    def _fail(self, job: Job, error: Exception) -> None:
        message = str(error) if job.name in str(error) else f"{job.name}: {error}"
        self._outcome.failed.append(message)

    async def _translate(self, batch: Batch, job: Job) -> None:
        content = await asyncio.to_thread(_content, job)
        document = documents.read(content, job.format, max_characters=_CHARACTERS, by_line=True)
        if job.out is None:
            await self._to_stdout(batch, job, document, content)
            return
        key = self._key(job, content)
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with Partial(job.out, key) as partial:
            done = list(partial.done)
            self._display.advance(job.source, sum(map(len, document.texts[: len(done)])), 0)
            async for new in self._results(batch, job, document, len(done)):
                partial.add(new)
                done += new
            translated = document.written([text for text, _ in done])
            if record := self._record(job):
                record.add(job.out, key, translated)
            partial.finish(translated, job.out)
        self._warn(job, document, done)

    async def _to_stdout(self, batch: Batch, job: Job, document: Document, content: str) -> None:
        writer, out = Writer(document), sys.stdout.buffer
        done: list[Done] = []
        _write(out, writer.add([]))
        async for new in self._results(batch, job, document, 0):
            _write(out, writer.add(text for text, _ in new))
            done += new
        if job.format == "text" and content and not content.endswith(("\n", "\r")):
            _write(out, "\n")
        self._warn(job, document, done)

    async def _results(
        self, batch: Batch, job: Job, document: Document, begin: int
    ) -> AsyncIterator[list[Done]]:
        rules = self._order.rules
        rules = replace(
            document.rules,
            glossary=rules.glossary,
            protected=(*document.rules.protected, *rules.protected),
        )
        order = replace(self._order, rules=rules)
        texts = document.texts[begin:]
        if not texts:
            return
        language = batch.language(document.texts, order)
        async for results in batch.translated(texts, language, order):
            size = len(results)
            self._display.advance(job.source, sum(map(len, texts[:size])), size)
            texts = texts[size:]
            yield [(result.text, result.warnings) for result in results]

    def _warn(self, job: Job, document: Document, done: Sequence[Done]) -> None:
        for line, (_, warnings) in zip(document.lines, done, strict=True):
            for warning in warnings:
                self._display.say(f"{job.name}:{line}: {warning}")


async def translate_texts(
    settings: Settings, texts: Sequence[str], order: Order, display: Display
) -> None:
    """Write the translation of each text to standard output, each with a line end.

    Raises:
        ValueError, OSError: they cannot be translated.
    """
    try:
        await _translate_texts(settings, texts, order, display)
    except ServiceError as error:
        raise ValueError(str(error)) from error


async def _translate_texts(
    settings: Settings, texts: Sequence[str], order: Order, display: Display
) -> None:
    display.loading()
    async with loaded(settings) as batch:
        batch.verify(order.source, order.target)
        display.begin([])
        numbers = count(1)
        async for results in batch.translated(texts, None, order):
            for number, result in zip(numbers, results, strict=False):
                _write(sys.stdout.buffer, f"{result.text}\n")
                for warning in result.warnings:
                    display.say(f"text {number}: {warning}")


def _content(job: Job) -> str:
    content = sys.stdin.buffer.read() if job.source is None else job.source.read_bytes()
    return decoded(content, job.name)


def _write(out: BinaryIO, text: str) -> None:
    try:
        out.write(text.encode("utf-8"))
        out.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        os._exit(0)
