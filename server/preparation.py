"""What a request asks of one model, verified once: from its fields and wishes to readers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from model import Card, DecodingOptions, Prompt, Tokenizer
from server.decoding_fields import DecodingFields, Demand
from server.errors import InvalidRequest, TooLarge
from server.messages import Request
from server.reader import Reader
from server.results import Text
from server.text.masking import Masked, mask
from server.text.segments import Segment

_FORCING_BEAMS = 4  # at least, where something must be in the target
MAX_WEIGHTS = 2**22  # of attention in one answer, by what its targets may grow to


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an answer shall hold besides the text.

    Attributes:
        streams: deltas while the text is generated, rather than all at its end.
        previews: in a stream, what may come next.
        alternatives: other texts for the same source, at most.
    """

    streams: bool = False
    previews: bool = False
    scores: bool = False
    alternatives: int = 0


class Preparation:
    """Makes the readers of one request."""

    def __init__(
        self,
        card: Card,
        tokenizer: Tokenizer,
        fields: DecodingFields,
        wishes: Wishes,
        *,
        max_beams: int,
    ) -> None:
        """Verify everything that does not depend on a source.

        Args:
            max_beams: hypotheses that one sentence may have at once.

        Raises:
            InvalidRequest, TooLarge: says which field.
        """
        fields.verified(card.defaults, card.max_target)
        if wishes.alternatives and fields.stop:
            raise InvalidRequest("stop ends one text: leave out alternatives, or stop")
        self._card, self._fields, self._wishes = card, fields, wishes
        self._tokenizer, self._max_beams = tokenizer, max_beams
        self._verify_ids()
        self._verify_beams()
        self._prefix = _prefix(tokenizer, fields.target_prefix)
        self._forced = self._forced_token(tokenizer)
        self._options = cache(self._options_of)  # sentences of one length share them

    @cached_property
    def _writes(self) -> Callable[[str], bool]:
        """Whether the vocabulary can write a text; most requests do not ask."""
        encode = self._tokenizer.encode_inside
        return cache(lambda text: encode(text) is not None)

    def translation(self, segment: Segment, source: str, target: str) -> Reader:
        """Return what follows the translation of a segment; raises TooLarge for a long one."""
        if not (segment.spans or segment.tags or segment.escapes):
            return self.reader(self._tokenizer.prompt(segment.text, source, target))
        masked = mask(segment, self._writes)
        return self._framed(self._tokenizer.prompt(masked.text, source, target), masked)

    def fits(self, segment: Segment, source: str, target: str) -> bool:
        """Whether a segment is not too long for the model."""
        masked = mask(segment, self._writes)
        prompt = self._tokenizer.prompt(masked.text, source, target)
        return len(prompt.source) <= self._card.max_source

    def _framed(self, prompt: Prompt, masked: Masked) -> Reader:
        """Return a reader of a segment whose target is put together once it is over."""
        reader = self.reader(prompt)
        prefix = self._masked_prefix(masked)
        has_places = bool(masked.stand_ins or masked.tags)
        for each in (reader, reader.others):
            if each is not None:
                each.masked = masked
                each.request = self._begun_with(prefix, each.request)
                if has_places:
                    each.request = _aligned(each.request)
                each.request = replace(each.request, streams=bool(each.request.options.stop))
        if masked.stand_ins:
            reader.forcing = self._forcing(reader, masked)
        return reader

    def _masked_prefix(self, masked: Masked) -> tuple[int, ...]:
        """Return the target's prefix with stand-ins for what it says already, so once each."""
        text = self._fields.target_prefix or ""
        for each in masked.stand_ins:
            text = text.replace(each.text, each.surrogate, 1)
        return (
            self._prefix if text == self._fields.target_prefix else _prefix(self._tokenizer, text)
        )

    def _begun_with(self, prefix: tuple[int, ...], request: Request) -> Request:
        if prefix == self._prefix:
            return request
        before = request.options.target_prefix[: -len(self._prefix)]
        try:
            options = replace(request.options, target_prefix=(*before, *prefix))
        except ValueError:  # it only fits as it was sent
            return request
        return replace(request, options=options)

    def _forcing(self, reader: Reader, masked: Masked) -> Reader | None:
        """Return a reader of the same segment whose search must bring every stand-in."""
        options = reader.request.options
        beams = min(max(options.num_beams, _FORCING_BEAMS), self._max_beams)
        phrases = [
            self._tokenizer.encode_inside(
                each.surrogate, is_spaced=masked.text[: each.start][-1:] in ("", " ")
            )
            for each in masked.stand_ins
        ]
        possible = tuple(dict.fromkeys(phrase for phrase in phrases if phrase))
        if beams == 1 or options.samples or not possible:
            return None
        try:
            forced = replace(options, num_beams=beams, phrases=possible)
        except ValueError:  # more than fits into the target: attention finds the places
            return None
        request = replace(reader.request, options=forced)
        return Reader(request, masked=masked, reports_alignments=reader.reports_alignments)

    def reader(self, prompt: Prompt) -> Reader:
        """Return what follows the generation of a prompt; raises TooLarge for a long source."""
        source, wishes = prompt.source, self._wishes
        if len(source) > self._card.max_source:
            raise TooLarge(
                f"the source has {len(source)} tokens, above the model's limit of "
                f"{self._card.max_source}; send it in parts"
            )
        frame = replace(prompt, source=())
        chosen = self._options(frame, len(source), 0)
        others = None
        if wishes.alternatives:  # one more than wanted: the text itself is likely among them
            branching = self._options(frame, len(source), wishes.alternatives + 1)
            branching = replace(branching, alignments=None, wants_scores=False)
            others = Reader(Request(source, branching, streams=False))
        # A stop string is found in the text, so that the text has to be followed.
        streams = wishes.streams or bool(chosen.stop)
        request = Request(source, chosen, streams, wishes.previews)
        return Reader(request, others, reports_alignments=chosen.alignments is not None)

    def verify(self, texts: Sequence[Text]) -> None:
        """Refuse what only all sources together show.

        Raises:
            InvalidRequest: a prefix for several sentences.
            TooLarge: more attention than an answer may hold.
        """
        if self._prefix and any(len(text.readers) > 1 for text in texts):
            raise InvalidRequest("target_prefix begins one sentence; send sentences singly")
        weights = sum(
            len(reader.request.source) * reader.request.options.max_new_tokens
            for text in texts
            for reader in text.readers
            if reader.reports_alignments
        )
        if weights > MAX_WEIGHTS:
            raise TooLarge(
                f"alignments of up to {weights} weights exceed the limit of {MAX_WEIGHTS}; send "
                "less text, or a smaller max_new_tokens"
            )

    def _options_of(self, prompt: Prompt, source_tokens: int, alternatives: int) -> DecodingOptions:
        first = prompt.forced_bos if self._forced is None else self._forced
        if first is None:
            first = self._card.defaults.get("forced_bos_token_id")
        # What is forced to come first comes before what the text shall begin with, and before
        # alternatives branch.
        prefix = self._prefix
        if first is not None and (prefix or alternatives):
            prefix = (first, *prefix)
        demand = Demand(
            source_tokens=source_tokens,
            start=prompt.start,
            forced_bos=first,
            target_prefix=prefix,
            alternatives=alternatives,
            wants_scores=self._wishes.scores,
        )
        limit, defaults = self._card.max_target, self._card.defaults
        return self._fields.options(demand, limit=limit, defaults=defaults)

    def _verify_beams(self) -> None:
        max_beams = self._max_beams
        own = self._fields.num_beams or 1
        if own > max_beams:
            raise InvalidRequest(f"num_beams must be at most {max_beams} on this server")
        if self._wishes.alternatives >= max_beams:
            raise InvalidRequest(f"alternatives must be at most {max_beams - 1} on this server")

    def _forced_token(self, tokenizer: Tokenizer) -> int | None:
        if self._fields.forced_bos_token is None:
            return None
        token = tokenizer.token_id(self._fields.forced_bos_token)
        if token is None or token >= self._card.vocabulary:
            name = self._fields.forced_bos_token[:100]
            raise InvalidRequest(f"forced_bos_token {name!r} is not in the model's vocabulary")
        return token

    def _verify_ids(self) -> None:
        """Refuse token ids and layers that the model does not have."""
        vocabulary, layers = self._card.vocabulary, self._card.decoder_layers
        if not all(0 <= token < vocabulary for token in self._fields.suppress_tokens or ()):
            raise InvalidRequest(f"suppress_tokens must be ids from 0 to {vocabulary - 1}")
        layer = self._fields.alignments
        if isinstance(layer, int) and not isinstance(layer, bool) and not 0 <= layer < layers:
            raise InvalidRequest(f"alignments must be true, average or a layer below {layers}")


def _aligned(request: Request) -> Request:
    """Ask for attention, by which markup finds its place, unless a layer's is asked for."""
    options = request.options
    if options.alignments is None:
        options = replace(options, alignments="average")
    return replace(request, options=options, previews=False)


def _prefix(tokenizer: Tokenizer, text: str | None) -> tuple[int, ...]:
    """Return the tokens of a target's prefix; raises InvalidRequest if they read otherwise."""
    if not text:
        return ()
    tokens = tokenizer.encode_target(text)
    read = tokenizer.decode(tokens)
    if not tokens or read.split() != text.split():
        raise InvalidRequest(
            f"target_prefix cannot be written in the model's vocabulary: it would read "
            f"{read[:200]!r}; send what it can write"
        )
    return tokens
