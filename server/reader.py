"""One generation as its reader sees it: updates in, text that is certain out."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from model import Detokenizer, Hypothesis, Tokenizer
from server.errors import DeadlineExceeded, GenerationFailed, ServiceError
from server.generation import Finish
from server.messages import Request, Timings, Update
from server.text.masking import Masked
from server.text.projection import restore

logger = logging.getLogger(__name__)

_LONG = 20_000  # weights of attention from which on it takes too long for the event loop: 10 ms
_thread = ThreadPoolExecutor(
    1, "text"
)  # more would wait for each other, and the event loop for all


class Token(NamedTuple):
    """One generated token and the text that became certain with it, a prefix with the first."""

    id: int
    text: str
    score: float
    is_special: bool
    alignment: tuple[float, ...] = ()  # over the segment's source tokens


@dataclass(frozen=True, slots=True)
class Variant:
    """Another text for the same source; the score is the sum of its segments'.

    Attributes:
        misplaced: what the model left out of it: it stands where attention points.
    """

    text: str
    score: float
    finish: str
    tokens: int  # how many it has
    misplaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aligned:
    """How one segment's target tokens look at its source tokens, both as the vocabulary has them.

    `weights` has a row for each target token.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


@dataclass(slots=True, eq=False)
class Reader:
    """The translator's side of one generation: what has arrived and how it reads as text.

    A document has many that have not begun: what only a begun one needs is made when it begins.
    """

    request: Request
    others: "Reader | None" = None  # the same source's alternatives
    masked: Masked | None = None  # what its target is put into, whole, once it is over
    forcing: "Reader | None" = None  # the same, with what must be in it forced
    misplaced: tuple[str, ...] = ()  # what the model left out: it stands where attention points
    reports_alignments: bool = False
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None  # stop, length or stop_string
    error: ServiceError | None = None
    timings: Timings | None = None
    variants: tuple[Variant, ...] = ()
    aligned: Aligned | None = None  # where alignments were asked for, at the end
    preview: str | None = None  # new since it was taken; empty takes back the last one
    _detokenizer: Detokenizer | None = None
    _waiter: asyncio.Future[None] | None = None
    _prefix: int = 0  # characters of `text` that the target's prefix gave
    _shown: int = 0  # characters of `text` that were taken
    _shown_preview: str = ""
    _shown_tokens: int = 0
    _is_put_together: bool = True  # False while a thread does it

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be read."""
        return self.has_ended and self._is_put_together

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be received."""
        return self.finish is not None or self.error is not None

    async def news(self) -> None:
        """Wait for the next update, or return at once if there is something to take."""
        has_news = self._shown_tokens < len(self.tokens) or self.preview is not None
        if not self.is_over and not has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def end(self) -> None:
        """Wait until it is over; raises `error`."""
        while not self.is_over:
            await self.news()
            self.take()
        self.take()

    def receive(self, update: Update, tokenizer: Tokenizer) -> None:
        """Read an update; whoever waits is woken. What is long is put together on a thread."""
        detokenizer = self._detokenizer or self._begun(tokenizer)
        aligned = update.alignments or ((),) * len(update.tokens)
        begun = "" if self.tokens else self.text  # the first token tells the prefix as well
        push, is_special, stops = detokenizer.push, tokenizer.is_special, self.request.options.stop
        texts = []  # not joined to `text` yet: nothing has to be found in it
        for token, score, alignment in zip(update.tokens, update.scores, aligned, strict=True):
            text = push(token)
            self.tokens.append(Token(token, begun + text, score, is_special(token), alignment))
            begun = ""
            if not stops:
                texts.append(text)
            elif self._extend(text):
                break
        self.text += "".join(texts)
        if update.finish is not None and not self.has_ended:
            self._extend(detokenizer.finish())
            self._end(update.finish)
        if self.request.previews:
            preview = self._previewed(update.preview, tokenizer)
            self.preview = preview if preview or self._shown_preview else None
        self.timings = update.timings
        if self.finish is not None and self._is_long(update.hypotheses):
            self._is_put_together = False
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(_thread, self._finish, update.hypotheses, tokenizer)
            work.add_done_callback(self._finished)
            return
        if self.finish is not None:
            self._finish(update.hypotheses, tokenizer)
        self._wake()

    def _is_long(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Whether it takes long to put the target together."""
        if self.masked is None:
            return False
        width = len(self.request.source) + len(self.masked.tags)
        height = len(self.tokens) + sum(len(each.tokens) for each in hypotheses)
        return width * height > _LONG

    def _finished(self, work: "asyncio.Future[None]") -> None:
        self._is_put_together = True
        if not work.cancelled() and (error := work.exception()):
            logger.error("a target could not be put together", exc_info=error)
            self.fail()
        self._wake()

    def _finish(self, hypotheses: Sequence[Hypothesis], tokenizer: Tokenizer) -> None:
        """Make of what was generated what is reported."""
        if self._wants_variants:
            self.variants = tuple(self._variant(each, tokenizer) for each in hypotheses)
        if self.masked is not None:
            pieces = [token.text for token in self.tokens]
            weights = [token.alignment for token in self.tokens]
            self.text, self.misplaced = self._restored(self.text, pieces, weights, tokenizer)
        if self.reports_alignments:
            self.aligned = self._aligned(tokenizer)
        elif self.masked is not None:  # megabytes for a long sentence, which nobody reads again
            self.tokens = [token._replace(alignment=()) for token in self.tokens]

    def _restored(
        self,
        text: str,
        pieces: list[str],
        weights: Sequence[Sequence[float]],
        tokenizer: Tokenizer,
    ) -> tuple[str, tuple[str, ...]]:
        """Put the segment's spans and tags into a target's `text`.

        Args:
            pieces: what each of its tokens added to it; a stop string may have taken the last ones
                back, and the end may have added more.
        """
        assert self.masked is not None
        room = len(text)
        for number, piece in enumerate(pieces):
            pieces[number] = piece[:room]
            room -= len(pieces[number])
        source = [tokenizer.source_token(token) for token in self.request.source]
        restored = restore(self.masked, [*pieces, text[len(text) - room :]], source, weights)
        return restored.text, restored.misplaced

    def adopt(self, forced: "Reader") -> None:
        """Take over what was generated with everything forced, if it is better."""
        if forced.finish is not None and len(forced.misplaced) < len(self.misplaced):
            self.text, self.tokens, self.finish = forced.text, forced.tokens, forced.finish
            self.variants, self.aligned = forced.variants, forced.aligned
            self.misplaced = forced.misplaced

    def _begun(self, tokenizer: Tokenizer) -> Detokenizer:
        """Begin the text with the target's prefix."""
        self._detokenizer = tokenizer.detokenizer()
        prefix = self.request.options.target_prefix
        self.text = "".join(map(self._detokenizer.push, prefix))
        self._prefix = len(self.text)
        return self._detokenizer

    def fail(self) -> None:
        """End with an error, whatever has come; whoever waits is woken."""
        self.finish = None  # what could not be put together is no text
        self._end(Finish.ERROR)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def _wants_variants(self) -> bool:
        options = self.request.options
        return options.num_hypotheses > 1 or options.alternatives > 0

    def _previewed(self, tokens: tuple[int, ...], tokenizer: Tokenizer) -> str:
        """Return what `tokens` would add to the text that may be taken; nothing at the end."""
        if self.has_ended or not tokens:
            return ""
        certain = (*self.request.options.target_prefix, *(token.id for token in self.tokens))
        text = tokenizer.decode((*certain, *tokens))
        return text[self._certain : self._first_stop(text, self._prefix)]

    def _aligned(self, tokenizer: Tokenizer) -> Aligned:
        return Aligned(
            tuple(map(tokenizer.source_token, self.request.source)),
            tuple(tokenizer.target_token(token.id) for token in self.tokens),
            tuple(token.alignment for token in self.tokens),
        )

    def _variant(self, hypothesis: Hypothesis, tokenizer: Tokenizer) -> Variant:
        prefix = self.request.options.target_prefix
        text, misplaced = tokenizer.decode((*prefix, *hypothesis.tokens)), tuple[str, ...]()
        if self.masked is not None:
            push = tokenizer.detokenizer().push
            pieces = [push(token) for token in (*prefix, *hypothesis.tokens)]
            weights = [()] * len(prefix) + [*hypothesis.alignments]
            text, misplaced = self._restored(text, pieces, weights, tokenizer)
        size = len(hypothesis.tokens)
        return Variant(text, hypothesis.score, hypothesis.finish, size, misplaced)

    def take(self) -> tuple[str, tuple[Token, ...]]:
        """Return the certain text and the tokens that were not taken before; raises `error`."""
        if self.preview is not None:
            self._shown_preview, self.preview = self.preview, None
        if self.error is not None:
            raise self.error
        certain = self._certain
        text, tokens = self.text[self._shown : certain], self.tokens[self._shown_tokens :]
        self._shown, self._shown_tokens = certain, len(self.tokens)
        return text, tuple(tokens)

    def _extend(self, text: str) -> bool:
        """Add to the text, up to a stop string; returns whether it is over."""
        start = len(self.text)
        self.text += text
        longest = max(map(len, self.request.options.stop), default=1)
        end = self._first_stop(self.text, max(self._prefix, start - longest + 1))
        if end is not None:
            self.text, self.finish = self.text[:end], "stop_string"
        return self.has_ended

    def _first_stop(self, text: str, begin: int) -> int | None:
        """Return where the first stop string from `begin` on appears."""
        found = (text.find(stop, begin) for stop in self.request.options.stop)
        return min((place for place in found if place >= 0), default=None)

    def _end(self, finish: Finish) -> None:
        if self.has_ended:  # the last piece of text brought a stop string
            return
        if finish is Finish.TIMEOUT:
            self.error = DeadlineExceeded("the request did not finish within its time")
        elif finish in (Finish.STOP, Finish.LENGTH):
            self.finish = finish.value
        else:
            self.error = GenerationFailed("the model failed on this request, not on others")

    @property
    def _certain(self) -> int:
        """How many characters may be taken."""
        if self.masked is not None and not self.is_over:
            return 0
        return max(self._shown, len(self.text) - self._may_become_a_stop())

    def _may_become_a_stop(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        if self.finish is not None:
            return 0
        generated = self.text[self._prefix :]
        return max((_overlap(generated, stop) for stop in self.request.options.stop), default=0)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`, all of it excluded."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
