"""What one request asks of its tokens: frozen, verified once."""

from dataclasses import dataclass
from typing import Literal

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """How to continue one target; impossible values raise ValueError with a sentence.

    Attributes:
        max_new_tokens: tokens after the target prefix, the end included.
        temperature: 0 chooses the likeliest token; above 0 samples.
        top_k, top_p: keep the k likeliest, or the likeliest whose probabilities reach p;
            0 and 1 keep all.
        seed: decides the draws together with the position, whatever shares the batch.
        repetition_penalty: divides positive and multiplies negative logits of tokens already
            generated (Keskar et al. 2019, arXiv:1909.05858, as transformers applies it).
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        stop: strings that end the text where they would appear.
        num_beams: hypotheses kept alive; each takes a row.
        length_penalty, early_stopping: as transformers' beam search defines them.
        renormalises: whether beam search adds up log-probabilities of what the filters left
            (transformers' `renormalize_logits`), rather than of all tokens.
        num_hypotheses: how many finished hypotheses are wanted, at most `num_beams`.
        alternatives: instead of a search, that many targets which differ in their first token and
            go on greedily, as CTranslate2's `return_alternatives`; 0 for none.
        start: the decoder's first input token, where it is not the model's own.
        target_prefix: tokens the target begins with; they count neither as new nor as scored.
        forced_bos: the token that must come first where there is no prefix.
        forced_eos: the token that must come at the limit.
        suppressed: tokens never generated, besides the model's own.
        phrases: token sequences that the target must contain behind its prefix, as often as they
            are given; a search that did not manage says so, see `Hypothesis.missing`.
        wants_scores: whether to compute each token's log-probability, before filters.
        alignments: source-target attention to report: the average of all decoder layers, or a
            layer's by its index; None for none.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    renormalises: bool = False
    num_hypotheses: int = 1
    alternatives: int = 0
    start: int | None = None
    target_prefix: tuple[int, ...] = ()
    forced_bos: int | None = None
    forced_eos: int | None = None
    suppressed: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()
    wants_scores: bool = False
    alignments: Literal["average"] | int | None = None

    def __post_init__(self) -> None:
        """Verify each value, and those that depend on each other."""
        checks = [*self._checks(), *self._search_checks()]
        if self.phrases:
            checks += self._phrase_checks()
        for holds, sentence in checks:
            if not holds:
                raise ValueError(sentence)

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (1 <= self.max_new_tokens < 2**31, "max_new_tokens must be at least 1, below 2^31"),
            (self.min_new_tokens >= 0, "min_new_tokens must not be negative"),
            (
                self.min_new_tokens <= self.max_new_tokens,
                f"min_new_tokens {self.min_new_tokens} > max_new_tokens {self.max_new_tokens}",
            ),
            (0 <= self.temperature <= 100, "temperature must be between 0 and 100"),
            (0 <= self.top_k < 2**31, "top_k must not be negative, and below 2^31"),
            (0 < self.top_p <= 1, "top_p must be above 0 and at most 1"),
            (0 <= self.seed < 2**64, "seed must be between 0 and 2^64 - 1"),
            (
                0.01 <= self.repetition_penalty <= 100,
                "repetition_penalty must be between 0.01 and 100",
            ),
            (
                0 <= self.no_repeat_ngram_size < 2**31,
                "no_repeat_ngram_size must not be negative, and below 2^31",
            ),
            (len(self.stop) <= 16, "at most 16 stop strings are allowed"),
            (
                all(0 < len(stop) <= 256 for stop in self.stop),
                "a stop string must not be empty, nor longer than 256 characters",
            ),
        ]

    def _search_checks(self) -> list[tuple[bool, str]]:
        return [
            (1 <= self.num_beams <= 64, "num_beams must be between 1 and 64"),
            (
                -10 <= self.length_penalty <= 10,
                "length_penalty must be between -10 and 10",
            ),
            (
                1 <= self.num_hypotheses <= self.num_beams,
                f"num_return_sequences must be between 1 and num_beams ({self.num_beams})",
            ),
            (
                not (self.samples and self.num_beams > 1),
                "num_beams above 1 searches and a temperature samples: send only one of them",
            ),
            (0 <= self.alternatives <= 64, "alternatives must be between 0 and 64"),
            (
                not (self.alternatives and (self.samples or self.num_beams > 1)),
                "alternatives go on greedily: leave out num_beams and temperature",
            ),
        ]

    def _phrase_checks(self) -> list[tuple[bool, str]]:
        needed = sum(map(len, self.phrases))
        others = (self.forced_bos is not None and not self.target_prefix) + 1  # the end
        never = {token for phrase in self.phrases for token in phrase} & {*self.suppressed}
        return [
            (all(self.phrases), "a phrase must not be empty"),
            (len(self.phrases) <= 32, "at most 32 phrases are allowed"),
            (
                self.num_beams > 1,
                "phrases take a beam search: send num_beams above 1, and neither a temperature nor "
                "alternatives",
            ),
            (
                needed <= self.max_new_tokens - others,
                f"phrases of {needed} tokens do not fit into {self.max_new_tokens} new ones beside "
                "what else must come; send a larger max_new_tokens, or fewer phrases",
            ),
            (
                not never,
                f"a phrase holds token {min(never, default=0)}, which is suppressed: leave it out "
                "of one of them",
            ),
            (
                not self.stop,
                "a stop string could cut a phrase off: leave out stop, or the phrases",
            ),
        ]

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn rather than the likeliest taken."""
        return self.temperature > 0

    @property
    def rows(self) -> int:
        """How many hypotheses are decoded at once."""
        return max(self.num_beams, self.alternatives)
