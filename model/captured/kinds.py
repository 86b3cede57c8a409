"""Which targets go on without the host, how far, and what their steps must be able to do."""

from collections.abc import Sequence

from model.captured.steps import Variant
from model.decoding.beam import BeamSearch
from model.decoding.target import Target


def room(target: Target, decoded: int, end: int, max_beams: int) -> int:
    """Return how many tokens a target that has `decoded` can gain by itself; 0 if the host chooses.

    Filters, phrases, alternatives, alignments, and scores outside of a search are the host's.

    Args:
        end: the end token.
        max_beams: of one search.
    """
    options, is_beams = target.options, isinstance(target.search, BeamSearch)
    if (
        options.repetition_penalty != 1
        or options.no_repeat_ngram_size
        or options.suppressed
        or options.phrases
        or options.alternatives
        or target.wants_alignment
        or (target.wants_scores and (options.renormalises or not is_beams))
        or options.num_beams > max_beams
        or options.forced_bos == end  # it would end a row that the host goes on with
    ):
        return 0
    limit = target.prefix + options.max_new_tokens
    if target.wants_scores:  # that of a forced token takes its logits
        limit = min([limit, *(at for at in target.forced if at >= decoded)])
    return limit - decoded


def variant(targets: Sequence[Target]) -> Variant:
    """Return what steps of these targets do, and no more."""
    draws = any(target.options.samples for target in targets)
    if any(target.search is not None for target in targets):
        return "mixed" if draws else "beams"
    return "draws" if draws else "greedy"
