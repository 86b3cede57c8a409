"""What one request asks of its tokens: frozen, verified once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """How to continue one target; impossible values raise ValueError with a sentence.

    Attributes:
        temperature: 0 chooses the likeliest token; above 0 samples.
        top_k, top_p: keep the k likeliest, or the likeliest whose probabilities reach p;
            0 and 1 keep all.
        seed: decides the draws together with the position, whatever shares the batch.
        repetition_penalty: divides positive and multiplies negative logits of tokens already
            generated (Keskar et al. 2019, arXiv:1909.05858, as transformers applies it).
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows all.
        stop: strings that end the text where they would appear.
        wants_scores: whether to compute each token's log-probability, before filters.
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
    wants_scores: bool = False

    def __post_init__(self) -> None:
        """Verify each value, and those that depend on each other."""
        checks = [
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
        for holds, sentence in checks:
            if not holds:
                raise ValueError(sentence)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn rather than the likeliest taken."""
        return self.temperature > 0
