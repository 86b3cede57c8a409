"""A search for targets with phrases finds them, or says which it did not."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from model import Arrival, DecodingOptions, Hypothesis, Model, Runner, Step
from model.decoding.constrained import ConstrainedSearch
from model.decoding.search import Candidates
from model.native.network import NativeNetwork
from model.runner import Network
from model.transformer import EncoderDecoder
from tests.model.captured_runners import CapturedRunner
from tests.model.driver import (
    Request,
    random_beams,
    random_phrases,
    random_source,
    run_alone,
    run_together,
)
from tests.model.native import NEEDS_LIBRARY
from tests.model.networks import BART_LIKE, EOS, PAD, T5_LIKE, tiny_network

SOURCE = (5, 6, 7, 0)


def occurrences(phrase: Sequence[int], tokens: Sequence[int]) -> int:
    size = len(phrase)
    return sum(tuple(tokens[at : at + size]) == tuple(phrase) for at in range(len(tokens)))


def lacking(options: DecodingOptions, tokens: Sequence[int]) -> int:
    wanted = {phrase: options.phrases.count(phrase) for phrase in options.phrases}
    return sum(max(0, count - occurrences(each, tokens)) for each, count in wanted.items())


def verify(options: DecodingOptions, hypotheses: Sequence[Hypothesis]) -> None:
    """Each says what it lacks; they rank by score, and what lacks something stands alone."""
    assert 1 <= len(hypotheses) <= options.num_hypotheses
    assert [len(h.missing) for h in hypotheses] == [lacking(options, h.tokens) for h in hypotheses]
    ranks = [(-len(h.missing), h.score) for h in hypotheses]
    assert ranks == sorted(ranks, reverse=True)
    assert hypotheses[0].missing or not any(h.missing for h in hypotheses)
    assert all(len(h.tokens) <= options.max_new_tokens for h in hypotheses)
    assert not any(EOS in h.tokens for h in hypotheses)


def found(options: DecodingOptions, network: Network | None = None) -> tuple[Hypothesis, ...]:
    runner = Runner(
        network or tiny_network(), rows=options.num_beams, max_target=90, latent_bytes=0
    )
    return run_alone(runner, Request(SOURCE, options)).hypotheses


@pytest.fixture(scope="module", params=["eager", "compiled", "captured"])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "captured":
        return CapturedRunner(tiny_network(), 16, most=4, max_target=60, launches=10**6)
    if request.param == "eager":
        return Runner(tiny_network(), rows=16, max_target=60, latent_bytes=0)
    if not NEEDS_LIBRARY.mark.args[0]:
        return Runner(NativeNetwork(tiny_network(), 1), rows=16, max_target=60, latent_bytes=0)
    pytest.skip(NEEDS_LIBRARY.mark.kwargs["reason"])


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_returned_contains_all_phrases(runner: Runner, seed: int) -> None:
    rng = random.Random(seed)
    requests = []
    for _ in range(20):
        length = rng.randint(4, 24)
        options = DecodingOptions(
            **random_beams(rng, 8),
            max_new_tokens=length,
            phrases=random_phrases(rng, 96, length - 2),
            min_new_tokens=rng.choice([0, 0, length // 2]),
            target_prefix=rng.choice([(), (9, 4, 77)]),
            forced_bos=rng.choice([None, 5]),
            forced_eos=rng.choice([None, EOS]),
            repetition_penalty=rng.choice([1.0, 1.3]),
            wants_scores=rng.random() < 0.5,
        )
        requests.append(Request(random_source(rng, 96, rng.randint(1, 20)), options))

    for request, outcome in zip(requests, run_together(runner, requests, rng), strict=True):
        verify(request.options, outcome.hypotheses)
        assert not outcome.hypotheses[0].missing


@pytest.mark.parametrize("beams", [2, 3, 16])
@pytest.mark.parametrize("room", [1, 2, 9])
def test_many_more_phrases_than_beams_fit_into_hardly_more_tokens(beams: int, room: int) -> None:
    rng = random.Random(beams)
    phrases = tuple(tuple(rng.choices(range(1, 95), k=rng.randint(1, 3))) for _ in range(32))
    length = sum(map(len, phrases)) + room
    options = DecodingOptions(max_new_tokens=length, num_beams=beams, phrases=phrases)

    (best,) = found(options)

    verify(options, [best])
    assert best.missing == ()


def test_a_forced_end_leaves_room_for_the_last_phrase() -> None:
    phrases = ((11, 12, 13), (14, 15))
    options = DecodingOptions(max_new_tokens=6, num_beams=2, phrases=phrases, forced_eos=EOS)

    (best,) = found(options)

    assert (best.missing, best.finish) == ((), "length")
    assert len(best.tokens) == 5


def test_a_phrase_in_the_prefix_does_not_count() -> None:
    options = DecodingOptions(
        max_new_tokens=9, num_beams=3, phrases=((11, 12),), target_prefix=(11, 12, 11)
    )

    (best,) = found(options)

    assert occurrences((11, 12), best.tokens) == 1


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_impossible_phrases_are_told_and_the_text_ends_where_it_ends_without_them(
    early_stopping: Any,
) -> None:
    """No bigram twice: the first phrase cannot be written; the second can."""
    options = DecodingOptions(
        max_new_tokens=24,
        num_beams=3,
        num_hypotheses=3,
        phrases=((11, 12, 11, 12), (13,)),
        no_repeat_ngram_size=2,
        early_stopping=early_stopping,
    )

    hypotheses = found(options)

    verify(options, hypotheses)
    assert [h.missing for h in hypotheses] == [(0,)] * len(hypotheses)


def test_where_nothing_but_the_end_is_possible_the_text_ends_and_says_what_it_lacks() -> None:
    network = tiny_network(suppressed=tuple(range(3, 96)))
    runner = Runner(network, rows=2, max_target=20, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=9, num_beams=2, phrases=((1, 2, 1, 2),))
    options = replace(options, no_repeat_ngram_size=1)

    (best,) = run_alone(runner, Request(SOURCE, options)).hypotheses

    assert best.missing == (0,)
    assert len(best.tokens) <= 2


def log_probs(network: EncoderDecoder, tokens: Sequence[int]) -> torch.Tensor:
    """Return what may follow each prefix of `tokens`, as the network says by itself."""
    target = torch.tensor([[network.config.start, *tokens]])
    logits = network(torch.tensor([SOURCE]), torch.tensor([len(SOURCE)]), target)[0]
    return torch.log_softmax(logits, 1)


def total(network: EncoderDecoder, tokens: Sequence[int]) -> float:
    table = log_probs(network, tokens)
    return sum(float(table[at, token]) for at, token in enumerate(tokens))


FEW = {"suppressed": tuple(range(4, 96))}  # the end, and 1 to 3


@pytest.mark.parametrize(
    "phrases", [((2,),), ((1, 3),), ((3, 3), (2,)), ((1, 2, 1),), ((1,), (1,))], ids=str
)
def test_with_enough_beams_the_best_target_of_all_is_found(
    phrases: tuple[tuple[int, ...], ...],
) -> None:
    """The end comes last here, so that nothing ends too early to compare."""
    network, length = tiny_network(**FEW), 4
    options = DecodingOptions(
        max_new_tokens=length, min_new_tokens=length, num_beams=64, num_hypotheses=3
    )
    options = replace(options, phrases=phrases)
    every = itertools.product((1, 2, 3), repeat=length)
    scores = {each: total(network, each) / length for each in every if not lacking(options, each)}
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)[:3]

    hypotheses = found(options, network)

    assert [h.tokens for h in hypotheses] == ranked
    for hypothesis in hypotheses:
        assert hypothesis.score == pytest.approx(scores[hypothesis.tokens], abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("phrase", [(1,), (2,), (3, 1), (3, 3)], ids=str)
def test_a_target_found_is_never_better_than_the_best_of_all_and_scored_as_the_network_says(
    phrase: tuple[int, ...], penalty: float
) -> None:
    network, length = tiny_network(**FEW), 5
    options = DecodingOptions(
        max_new_tokens=length, num_beams=8, num_hypotheses=8, phrases=(phrase,)
    )
    options = replace(options, length_penalty=penalty)
    scores = {}
    for size in range(1, length + 1):
        for each in itertools.product((1, 2, 3), repeat=size):
            if not lacking(options, each):
                ended = (*each, EOS)[:length]
                scores[each] = total(network, ended) / len(ended) ** penalty

    hypotheses = found(options, network)

    for hypothesis in hypotheses:
        assert hypothesis.score == pytest.approx(scores[hypothesis.tokens], abs=1e-4)
    assert hypotheses[0].score <= max(scores.values()) + 1e-4


def test_a_phrase_that_the_best_target_holds_anyway_does_not_change_it(
    bundled: Model, heldout: list[tuple[str, str]]
) -> None:
    """Not by necessity, for it has fewer beams; but its bank is the fullest, and the first."""
    tokenizer = bundled.tokenizer
    sources = [tokenizer.prompt(english, "en", "de").source for english, _ in heldout[:12]]
    plain = [DecodingOptions(max_new_tokens=60, num_beams=4)] * len(sources)
    before = run_together(bundled.runner, [*map(Request, sources, plain)], random.Random(0))
    best = [outcome.hypotheses[0] for outcome in before]
    held = [replace(plain[0], phrases=(h.tokens[1:3], h.tokens[-2:])) for h in best]

    after = run_together(bundled.runner, [*map(Request, sources, held)], random.Random(0))

    same = [
        outcome.hypotheses[0].tokens == h.tokens for outcome, h in zip(after, best, strict=True)
    ]
    assert all(same)
    assert not any(outcome.hypotheses[0].missing for outcome in after)


def candidates(*pairs: tuple[int, float]) -> Candidates:
    return Candidates([token for token, _ in pairs], [log_prob for _, log_prob in pairs])


def begun(**changes: Any) -> ConstrainedSearch:
    """Return a search for 7 8 in the rows of 5 and of 7."""
    options = DecodingOptions(max_new_tokens=9, num_beams=2, phrases=((7, 8),), **changes)
    search = ConstrainedSearch.begin(options, EOS)
    assert search.asked == [(7,)]
    search = search.advance([candidates((5, -0.1), (6, -0.3), (4, -9.0), (3, -9.0), (7, -9.0))])
    assert [live.tokens for live in search.live] == [(5,), (7,)]
    assert search.asked == [(7,), (8, 7)]
    return search


@pytest.mark.parametrize("early", [False, "never"])
@pytest.mark.parametrize("end", [-0.1, -20.0])
def test_once_an_end_beats_all_that_lives_what_lacks_phrases_goes_on_with_nothing_else(
    end: float, early: Any
) -> None:
    first = candidates((6, -3.0), (4, -9.0), (3, -9.0), (EOS, end), (7, -8.0))
    search = begun(early_stopping=early)
    search = search.advance([first, candidates((8, -1.0), (4, -9.0), (3, -9.0), (2, -9.0))])
    assert [live.tokens for live in search.live] == [(5, 7), (7, 8)]

    search = search.advance(
        [
            candidates((6, -0.1), (8, -4.0), (3, -9.0), (2, -9.0), (7, -9.0)),
            candidates((4, -1.0), (3, -9.0), (2, -9.0), (EOS, -9.0)),
        ]
    )

    other = (5, 7, 8) if end == -0.1 else (5, 7, 7)
    assert {live.tokens for live in search.live} == {(7, 8, 4), other}


@pytest.mark.parametrize(
    ("limit", "forced_eos", "is_time"), [(4, EOS, True), (4, None, False), (3, None, True)]
)
def test_phrases_begin_in_time_before_the_limit_and_a_forced_end(
    limit: int, forced_eos: int | None, is_time: bool
) -> None:
    options = DecodingOptions(
        max_new_tokens=limit, num_beams=3, phrases=((7, 8),), forced_eos=forced_eos
    )
    search = ConstrainedSearch.begin(options, EOS)
    first = candidates((5, -0.1), (6, -0.3), (7, -9.0))
    search = search.advance([first])
    row = candidates((4, -0.1), (3, -0.3), (7, -9.0), (8, -9.0))

    search = search.advance([row, row, row])

    is_begun = [7 in live.tokens for live in search.live]
    assert all(is_begun) == is_time


@pytest.mark.parametrize(("end", "finished"), [(-1.05, 1), (-1.3, 0)])
def test_an_end_counts_among_the_first_of_its_bank_only(end: float, finished: int) -> None:
    first = candidates((6, -1.0), (4, -1.1), (3, -1.2), (EOS, end), (7, -0.5))

    search = begun().advance([first, candidates((8, -9.0), (4, -9.5), (3, -9.6), (2, -9.7))])

    assert len(search.beams.finished) == finished


def test_an_end_without_the_phrase_is_returned_only_where_there_is_no_other() -> None:
    never = float("-inf")
    ending = candidates((EOS, -0.1), (4, never), (3, never), (2, never), (7, never))
    search = begun().advance([ending, ending])
    assert [(h.tokens, h.missing) for h in search.hypotheses] == [((5,), (0,))]

    search = begun().advance([ending, candidates((8, -1.0), (4, -9.0), (3, -9.0), (2, -9.0))])
    assert not search.hypotheses
    search = search.advance([ending])

    assert [(h.tokens, h.missing) for h in search.hypotheses] == [((7, 8), ())]
    assert search.hypotheses[0].score < -3


@pytest.mark.parametrize("kind", [{}, BART_LIKE, T5_LIKE], ids=["marian", "bart", "t5"])
def test_what_is_reported_as_certain_is_never_retracted(kind: dict[str, Any]) -> None:
    runner = Runner(tiny_network(**kind), rows=6, max_target=60, latent_bytes=0)
    rng = random.Random(0)
    early = 0
    for impossible in [False] * 20 + [True] * 4:
        phrases = ((11, 12, 11, 12),) if impossible else random_phrases(rng, 96, 20)
        options = DecodingOptions(max_new_tokens=30, num_beams=rng.randint(2, 6), phrases=phrases)
        options = replace(options, no_repeat_ngram_size=2 * impossible)
        *steps, last = steps_of(runner, random_source(rng, 96, 12), options)
        certain = [token for step in steps for token in step.tokens]
        assert (*certain,) == last.hypotheses[0].tokens[: len(certain)]
        early += len(certain)
    assert early > 20, "hardly anything was certain before the end"


def steps_of(runner: Runner, source: tuple[int, ...], options: DecodingOptions) -> list[Step]:
    runner.admit([Arrival(tuple(range(options.rows)), source, options)])
    steps: list[Step] = []
    while not (steps and steps[-1].hypotheses):
        steps += runner.launch([0]).result()
    runner.release([0])
    return steps


def test_scores_and_alignments_are_those_of_the_tokens() -> None:
    network = tiny_network()
    options = DecodingOptions(
        max_new_tokens=14,
        num_beams=4,
        phrases=((30, 31), (40,)),
        wants_scores=True,
        alignments="average",
    )

    (best,) = found(options, network)

    table = log_probs(network, best.tokens)
    expected = [float(table[at, token]) for at, token in enumerate(best.tokens)]
    assert best.log_probs == pytest.approx(expected, abs=1e-4)
    assert len(best.alignments) == len(best.tokens)
    assert all(math.isclose(sum(line), 1, abs_tol=1e-4) for line in best.alignments)


def test_scores_of_tokens_asked_for_are_filtered_and_reported_as_those_of_others() -> None:
    network, length = tiny_network(), 8
    suppressed = tuple(range(40, 90))
    options = DecodingOptions(
        max_new_tokens=length,
        min_new_tokens=length,
        num_beams=3,
        phrases=((30, 31), (20,)),
        renormalises=True,
        suppressed=suppressed,
        wants_scores=True,
    )

    (best,) = found(options, network)

    table = log_probs(network, best.tokens)[:length]
    never = torch.tensor([EOS, PAD, *suppressed])
    left = torch.log_softmax(table.index_fill(1, never, -math.inf), 1)
    index = torch.tensor(best.tokens)[:, None]
    assert best.log_probs == pytest.approx(table.gather(1, index)[:, 0].tolist(), abs=1e-4)
    assert best.score == pytest.approx(float(left.gather(1, index).mean()), abs=1e-4)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (96, "token id 96 is outside the vocabulary of 96"),
        (-1, "token id -1 is outside the vocabulary of 96"),
        (EOS, "a phrase holds token 0, which no target may contain"),
        (PAD, "a phrase holds token 95, which no target may contain"),
    ],
)
def test_a_token_that_no_target_contains_is_refused(token: int, sentence: str) -> None:
    runner = Runner(tiny_network(), rows=2, max_target=10, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=5, num_beams=2, phrases=((5, token),))

    with pytest.raises(ValueError, match=r"token") as refusal:
        runner.admit([Arrival((0, 1), SOURCE, options)])

    assert str(refusal.value) == sentence
    assert "0/2 rows" in repr(runner)
