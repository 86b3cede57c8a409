"""Routing: each text of a request to the model that translates its language."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from server.decoding_fields import DecodingFields
from server.preparation import Wishes
from server.reading import Delta, Reading
from server.results import Result
from server.serving import Serving
from server.text.cutting import words
from server.text.languages import Detection
from server.text.rules import PLAIN, TextRules
from server.text.terms import verify_terms
from server.translator import Translator, read_through


@dataclass(frozen=True, slots=True)
class Share:
    """The texts of a request that one model translates; `indices` are their places."""

    translator: Translator
    indices: list[int]
    reading: Reading


class Translation:
    """A request's texts while they are translated; leaving the `async with` cancels the rest."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = shares
        self._stack = AsyncExitStack()

    @property
    def models(self) -> str:
        """The names of the models at work."""
        return ",".join(share.translator.card.name for share in self._shares)

    async def __aenter__(self) -> Self:
        """Submit everything, or nothing: a refusal of one model withdraws from the others."""
        async with AsyncExitStack() as stack:
            for share in self._shares:
                await stack.enter_async_context(share.reading)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is not finished."""
        await self._stack.aclose()

    def deltas(self) -> AsyncIterator[Delta]:
        """Return text in reading order, one model's texts after the other's."""
        if len(self._shares) == 1:  # which has all texts, in their places
            return self._shares[0].reading.deltas()
        return self._deltas()

    async def _deltas(self) -> AsyncIterator[Delta]:
        for share in self._shares:
            async for delta in share.reading.deltas():
                yield replace(delta, text_index=share.indices[delta.text_index])

    async def collect(self) -> list[Result]:
        """Wait for everything, all models at once; returns one result per text, in order."""
        if len(self._shares) == 1:  # as almost always: without a task of its own
            return await self._shares[0].reading.collect()
        readings = [asyncio.ensure_future(share.reading.collect()) for share in self._shares]
        try:
            await asyncio.gather(*readings)
        finally:
            for reading in readings:
                reading.cancel()
            await asyncio.gather(*readings, return_exceptions=True)
        return self.results()

    def results(self) -> list[Result]:
        """Return the results in the order of the texts, once everything has been read."""
        found = {
            index: result
            for share in self._shares
            for index, result in zip(share.indices, share.reading.results(), strict=True)
        }
        return [found[index] for index in sorted(found)]


async def prepare(
    serving: Serving,
    texts: Sequence[str],
    source: str,
    target: str,
    fields: DecodingFields,
    wishes: Wishes,
    *,
    rules: TextRules = PLAIN,
    model: str | None = None,
    timeout_s: float,
) -> Translation:
    """Prepare a translation; entering the returned context submits it.

    Args:
        source: a language code, or `auto`: detected for each text, which goes to the first model
            that translates the detected language.
        model: the only model to consider.

    Raises:
        InvalidRequest, UnsupportedLanguage, TooLarge, and what Serving.for_pair raises: before
            anything is accepted.
    """
    verify_terms(rules)
    detected: list[Detection] = []
    if source.lower() == "auto":
        serving.candidates(model)[0].verify_size(texts)
        detected = await read_through(
            texts, lambda: [serving.detect(words(text, rules), target, model)[0] for text in texts]
        )
    shares: dict[Translator, list[int]] = {}
    for index in range(len(texts)):
        language = detected[index].language if detected else source
        shares.setdefault(serving.for_pair(language, target, model), []).append(index)
    prepared = []
    for translator, indices in shares.items():
        reading = await translator.translate(
            [texts[index] for index in indices],
            [detected[index] for index in indices] if detected else source,
            target,
            fields,
            wishes,
            rules=rules,
            timeout_s=timeout_s,
        )
        prepared.append(Share(translator, indices, reading))
    return Translation(prepared)
