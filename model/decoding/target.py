"""Target: what one request decodes, and what each of its steps asks of the logits."""

from dataclasses import dataclass, field

from model.decoding.alternatives import Alternatives
from model.decoding.beam import BeamSearch
from model.decoding.constrained import ConstrainedSearch
from model.decoding.options import DecodingOptions
from model.decoding.rows import forced_tokens
from model.decoding.search import Search

LOGITS = -2  # filters or a draw need all logits of the row
UNREAD = -1  # what comes next is known without them
GREEDY = 0  # the likeliest token; above 0: so many candidates with their log-probabilities


@dataclass(slots=True, eq=False)
class Target:
    """What one request decodes: the rows it holds, and the search they make together, if any.

    Attributes:
        search, order: its state after the steps recorded so far, and which of `rows`, by index,
            each of its live hypotheses holds; all else stays as it is.
        prefix: how many tokens are known at the beginning.
        minimum: how many tokens, prefix included, come before the end may.
        forced: tokens that must come, by how many precede them.
        needs_logits: whether a choice after the prefix takes more than the likeliest tokens.
        wants_scores, wants_alignment: as the options say.
    """

    rows: tuple[int, ...]
    options: DecodingOptions
    source_length: int
    search: Search | None
    order: tuple[int, ...] = field(init=False)
    prefix: int = field(init=False)
    minimum: int = field(init=False)
    forced: dict[int, int] = field(init=False)
    needs_logits: bool = field(init=False)
    wants_scores: bool = field(init=False)
    wants_alignment: bool = field(init=False)

    def __post_init__(self) -> None:
        """Find out what stays the same for every step."""
        options = self.options
        self.order = tuple(range(len(self.rows)))
        self.prefix = len(options.target_prefix)
        self.minimum = self.prefix + options.min_new_tokens
        self.forced = forced_tokens(options)
        self.wants_scores = options.wants_scores
        self.wants_alignment = options.alignments is not None
        self.needs_logits = bool(
            options.samples
            or options.repetition_penalty != 1
            or options.no_repeat_ngram_size
            or options.suppressed
            or options.phrases
            or (options.renormalises and self.search is not None)
        )

    @classmethod
    def begin(
        cls, rows: tuple[int, ...], options: DecodingOptions, source_length: int, eos: int
    ) -> "Target":
        """Hold `rows`, as many as the options ask for."""
        search: Search | None = None
        if options.alternatives:
            search = Alternatives.begin(options, eos)
        elif options.phrases:
            search = ConstrainedSearch.begin(options, eos)
        elif options.num_beams > 1:
            search = BeamSearch.begin(options, eos)
        return cls(rows, options, source_length, search)

    def width(self, decoded: int) -> int:
        """Return what each row needs after `decoded` tokens: LOGITS, UNREAD, GREEDY or a width.

        Where the end may not come yet, one candidate more makes up for it.
        """
        if decoded < self.prefix:
            return UNREAD
        if self.needs_logits:
            return LOGITS
        if decoded in self.forced:
            return LOGITS if self.wants_scores else UNREAD
        is_early = self.is_early(decoded)
        if self.search is not None:
            return self.search.width + is_early
        return 2 if is_early else int(self.wants_scores)

    def is_early(self, decoded: int) -> bool:
        """Whether the end may not come after `decoded` tokens."""
        return decoded < self.minimum and decoded not in self.forced
