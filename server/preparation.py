"""What a request asks of one model, verified once: from its fields and wishes to readers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from model import Card, DecodingOptions, Prompt, Tokenizer
from server.decoding_fields import DecodingFields, Demand
from server.errors import InvalidRequest, TooLarge
from server.messages import Request
from server.reader import Reader
from server.results import Text

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
        self._verify_ids()
        self._verify_beams(max_beams)
        self._prefix = _prefix(tokenizer, fields.target_prefix)
        self._forced = self._forced_token(tokenizer)
        self._options = cache(self._options_of)  # sentences of one length share them

    def reader(self, prompt: Prompt) -> Reader:
        """Return what follows the generation of a prompt; raises TooLarge for a long source."""
        source, wishes = prompt.source, self._wishes
        if len(source) > self._card.max_source:
            raise TooLarge(
                f"one sentence has {len(source)} tokens, above the model's limit of "
                f"{self._card.max_source}; split it with punctuation or line breaks"
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
        return Reader(Request(source, chosen, streams, wishes.previews), others)

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
            if reader.request.options.alignments is not None
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

    def _verify_beams(self, max_beams: int) -> None:
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
