"""Translation of many texts without HTTP: the server's own Translator, fed window by window."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from server import __version__
from server.app import load_into
from server.decoding_fields import DecodingFields
from server.metrics import Metrics
from server.preparation import Wishes
from server.results import Result
from server.routing import Translation, prepare
from server.serving import Serving
from server.settings import Settings
from server.text.cutting import words
from server.text.languages import Detection
from server.text.rules import TextRules

_TEXTS, _CHARACTERS = 256, 40_000  # in a window: they fill the slots, and progress is seen
_WINDOWS = 2  # at a time: one begins while the last sentences of another end
_LONGEST = 2**31  # characters: who translates on their own machine needs no limit
_WARM_UP_S, _POLL_S, _TIMEOUT_S = 60.0, 0.005, 24 * 3600.0
_SAMPLE, _SURE = 4000, 0.9  # characters a document is known by; confidence about a single text


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How texts are translated.

    Attributes:
        source: a language, or auto.
        rules: how they are read.
    """

    source: str
    target: str
    fields: DecodingFields
    rules: TextRules


class Batch:
    """Models that are loaded, and translate."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def verify(self, source: str, target: str) -> None:
        """Raise UnsupportedLanguage if no model translates the pair; names what there is."""
        if source.lower() == "auto":
            self._serving.detect("a", target)
        else:
            self._serving.for_pair(source, target)

    def language(self, texts: Sequence[str], order: Order) -> str:
        """Return the language of a document, by its beginning if it is to be found."""
        if order.source.lower() != "auto":
            return order.source
        sample, size = [], 0
        for text in texts:
            sample.append(text)
            size += len(text)
            if size > _SAMPLE:
                break
        return self._detected("\n".join(sample)[:_SAMPLE], order).language

    async def translated(
        self, texts: Sequence[str], document: str | None, order: Order
    ) -> AsyncIterator[list[Result]]:
        """Yield the results of one window of texts after the other, in order.

        Args:
            document: the language of those that do not tell their own surely.

        Raises:
            ServiceError: of the first window that failed.
        """
        ahead: deque[asyncio.Task[list[Result]]] = deque()
        try:
            for window in _windows(texts):
                work = self._window(window, document, order)
                ahead.append(asyncio.create_task(work))
                if len(ahead) == _WINDOWS:
                    yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _window(
        self, texts: Sequence[str], document: str | None, order: Order
    ) -> list[Result]:
        groups: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            groups.setdefault(self._language(text, document, order), []).append(index)
        found: dict[int, Result] = {}
        async with AsyncExitStack() as stack:
            translations: list[Translation] = []
            for language, indices in groups.items():
                translation = await prepare(
                    self._serving,
                    [texts[index] for index in indices],
                    language,
                    order.target,
                    order.fields,
                    Wishes(),
                    rules=order.rules,
                    timeout_s=_TIMEOUT_S,
                )
                translations.append(await stack.enter_async_context(translation))
            for translation, indices in zip(translations, groups.values(), strict=True):
                found |= zip(indices, await translation.collect(), strict=True)
        return [found[index] for index in range(len(texts))]

    def _language(self, text: str, document: str | None, order: Order) -> str:
        """Return a text's language; a short one in a document has the document's, most likely."""
        if order.source.lower() != "auto":
            return order.source
        own = self._detected(text, order)
        return own.language if document is None or own.confidence >= _SURE else document

    def _detected(self, text: str, order: Order) -> Detection:
        return self._serving.detect(words(text, order.rules), order.target)[0]


def _windows(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = size = 0
    for index, text in enumerate(texts):
        if index > begin and (index - begin == _TEXTS or size + len(text) > _CHARACTERS):
            yield texts[begin:index]
            begin, size = index, 0
        size += len(text)
    if begin < len(texts):
        yield texts[begin:]


@asynccontextmanager
async def loaded(settings: Settings) -> AsyncIterator[Batch]:
    """Load the models that the settings name, and stop them in the end.

    Raises:
        ValueError, OSError: one line that names the model.
    """
    limits = {"max_texts": _TEXTS, "max_characters": _LONGEST, "max_beams": settings.slots}
    serving = Serving(settings.model_copy(update=limits), Metrics(CollectorRegistry(), __version__))
    try:
        await load_into(serving)
        await _warm_up(serving)
        yield Batch(serving)
    finally:
        for translator in serving.translators.values():
            await asyncio.to_thread(translator.engine.stop)


async def _warm_up(serving: Serving) -> None:
    """Wait until every engine has decoded its first token."""
    for _ in range(int(_WARM_UP_S / _POLL_S)):
        if serving.status == "ready":
            return
        await asyncio.sleep(_POLL_S)
    raise ValueError(f"a model fails on its first token: {serving.states}; the log says why")
