"""How much of the phrases a target holds is what reading it anew would count."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.phrases import Phrases, Progress

TOKENS = st.integers(1, 3)
PHRASES = st.lists(st.lists(TOKENS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
TARGETS = st.lists(TOKENS, max_size=14)


def read(phrases: Phrases, tokens: Sequence[int]) -> Progress:
    progress = phrases.begin()
    for token in tokens:
        progress = phrases.after(progress, token)
    return progress


def occurrences(phrase: Sequence[int], tokens: Sequence[int]) -> int:
    ends = range(len(phrase), len(tokens) + 1)
    return sum([*phrase] == [*tokens[end - len(phrase) : end]] for end in ends)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(PHRASES, TARGETS)
def test_a_phrase_is_missing_as_often_as_the_target_lacks_it(
    given_: list[tuple[int, ...]], tokens: list[int]
) -> None:
    phrases = Phrases(given_)

    missing = [given_[index] for index in phrases.missing(read(phrases, tokens))]

    for phrase in {*given_}:
        lacking = max(0, given_.count(phrase) - occurrences(phrase, tokens))
        assert missing.count(phrase) == lacking


@settings(derandomize=True, deadline=None, max_examples=300)
@given(PHRASES, TARGETS, st.randoms(use_true_random=False))
def test_advancing_tokens_fulfil_all_phrases_with_as_many_as_are_needed(
    given_: list[tuple[int, ...]], tokens: list[int], rng: random.Random
) -> None:
    phrases = Phrases(given_)
    progress = read(phrases, tokens)

    for _ in range(progress.needed):
        before = progress.needed
        following = [phrases.after(progress, token) for token in phrases.advancing(progress)]
        progress = rng.choice([each for each in following if each.needed < before])
        if not progress.needed:
            break

    assert progress.needed == 0
    assert phrases.missing(progress) == ()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(PHRASES, TARGETS)
def test_no_other_token_brings_a_target_nearer(
    given_: list[tuple[int, ...]], tokens: list[int]
) -> None:
    phrases = Phrases(given_)
    progress = read(phrases, tokens)

    others = {1, 2, 3, 4} - {*phrases.advancing(progress)}

    assert all(phrases.after(progress, token).needed >= progress.needed for token in others)


@pytest.mark.parametrize(
    ("phrases", "tokens", "needed"),
    [
        ([(1, 1, 2)], [1, 1], 1),
        ([(1, 1, 2)], [1, 1, 1], 1),  # a longer run still ends in its beginning
        ([(1, 2, 1, 3)], [1, 2, 1, 2], 2),  # breaking off falls back to what begins it again
        ([(1, 2, 1, 3)], [1, 2, 4], 4),
        ([(1, 2), (2, 3)], [1, 2, 3], 0),  # phrases may overlap
        ([(1, 2), (2, 3)], [1, 2], 1),
        ([(1,), (1, 2)], [1], 1),
        ([(1,), (1,)], [1], 1),  # twice given is twice wanted
        ([(1, 1), (1, 1)], [1, 1, 1], 0),
    ],
)
def test_needed_counts_what_is_begun(
    phrases: list[tuple[int, ...]], tokens: list[int], needed: int
) -> None:
    subject = Phrases(phrases)

    assert read(subject, tokens).needed == needed


@settings(derandomize=True, deadline=None, max_examples=300)
@given(PHRASES, TARGETS)
def test_as_many_are_missing_as_do_not_occur(
    given_: list[tuple[int, ...]], tokens: list[int]
) -> None:
    phrases = Phrases(given_)

    missing = [given_[index] for index in phrases.missing(read(phrases, tokens))]

    for phrase in {*given_}:
        whole = [
            end
            for end in range(len(phrase), len(tokens) + 1)
            if [*phrase] == tokens[end - len(phrase) : end]
        ]
        assert missing.count(phrase) == max(0, given_.count(phrase) - len(whole))


def test_missing_phrases_are_told_by_their_indices() -> None:
    phrases = Phrases([(1, 2), (3,), (1, 2), (4,)])

    assert phrases.missing(phrases.begin()) == (0, 1, 2, 3)
    assert phrases.missing(read(phrases, [4, 1, 2])) == (1, 2)
