"""What a compiled step finds in its logits, whose history it reads, and what it never mixes."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from model.native.cache import NativeCache
from model.native.network import NativeNetwork
from model.transformer import EncoderDecoder
from tests.model.native import KINDS, NEEDS_LIBRARY, Rows, random_tokens, smooth_network
from tests.model.networks import T5_LIKE

pytestmark = NEEDS_LIBRARY
SOURCES = random_tokens(5, (9, 1, 17, 4, 30, 8), 70)
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def compiled(threads: int = 1, **kind: Any) -> NativeNetwork:
    return NativeNetwork(smooth_network(**kind), threads, thread_products=1)


def tied_network() -> EncoderDecoder:
    """Every logit comes ten times over, at ids ten apart: in other lanes, tiles and chunks."""
    network = smooth_network(vocabulary=700, ties_output=False, has_logits_bias=False)
    network.output.weight.data = network.output.weight[:10].repeat(70, 1)
    return network


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("vocabulary", [96, 97, 255, 256, 257, 333, 700])
def test_candidates_are_those_of_a_stable_sort_of_the_logits(vocabulary: int, threads: int) -> None:
    network = compiled(threads, vocabulary=vocabulary)
    suppressed = [0, 95, vocabulary - 1]
    network.suppress(suppressed)
    rows, widths = Rows(network, SOURCES), [0, 1, 2, 9, 40, 5]

    for column in torch.tensor(random_tokens(6, [6] * 4, 96)):
        found = rows.feed(dict(enumerate(column.tolist())), widths)
        assert found.logits is not None
        log_probs = found.logits.double().log_softmax(1)
        allowed = found.logits.clone()
        allowed[:, suppressed] = float("-inf")
        order = allowed.sort(dim=1, descending=True, stable=True).indices
        for place, width in enumerate(widths):
            wanted = order[place, : max(width, 1)]
            values = (log_probs if width else found.logits)[place, wanted].float()
            chosen = found.values[place, : max(width, 1)]
            assert found.tokens[place, : max(width, 1)].tolist() == wanted.tolist()
            torch.testing.assert_close(torch.from_numpy(chosen), values, rtol=0, atol=2e-6)
        assert found.healthy.all()


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_those_of_the_rows_asked_for(threads: int) -> None:
    network, sources = compiled(threads, vocabulary=333), SOURCES * 3  # several chunks
    count = len(sources)
    everything, some = Rows(network, sources), Rows(network, sources)
    for position in range(8):  # each way to use threads is tried
        all_logits = everything.feed(dict.fromkeys(range(count), 3)).logits
        wanted = [1, 4, 10, 17]
        tokens, places = [3] * count, [position] * count
        found = some.cache.step(range(count), tokens, places, [0] * count, logits_of=wanted)
        assert all_logits is not None
        assert found.logits is not None
        assert found.logits.equal(all_logits[wanted])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_of_equal_tokens_the_lowest_id_comes_first(threads: int) -> None:
    network = NativeNetwork(tied_network(), threads, thread_products=1)
    network.suppress([3])
    rows = Rows(network, SOURCES)

    for column in torch.tensor(random_tokens(6, [6] * 4, 96)):
        found = rows.feed(dict(enumerate(column.tolist())), widths=150)
        assert found.logits is not None
        allowed = found.logits.index_fill(1, torch.tensor([3]), float("-inf"))
        order = allowed.sort(dim=1, descending=True, stable=True).indices[:, :150]
        assert found.tokens.tolist() == order.tolist()


def test_a_width_beyond_the_vocabulary_ends_in_what_is_impossible() -> None:
    network = compiled(vocabulary=20, start=19, pad=19, suppressed=())
    network.suppress([2, 5])
    found = Rows(network, random_tokens(1, [5], 20)).feed({0: 1}, widths=25)

    assert sorted(found.tokens[0, :18].tolist()) == sorted({*range(20)} - {2, 5})
    assert np.isfinite(found.values[0, :18]).all()
    assert np.isneginf(found.values[0, 18:]).all()
    assert found.healthy.all()


def test_logits_that_are_never_likely_leave_the_others_their_probability() -> None:
    """A checkpoint's bias may rule out whole stretches of a vocabulary."""
    network = smooth_network(vocabulary=900)
    assert network.logits_bias is not None
    network.logits_bias[:300] = float("-inf")
    network.logits_bias[500:800] = float("-inf")
    found = Rows(NativeNetwork(network, 1), SOURCES).feed({0: 1, 3: 2}, widths=10)

    assert found.healthy.all()
    assert found.logits is not None
    wanted = found.logits.double().log_softmax(1).topk(10)
    assert found.tokens.tolist() == wanted.indices.tolist()
    values = torch.from_numpy(found.values)
    torch.testing.assert_close(values, wanted.values.float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_or_infinite_makes_a_row_unhealthy(bad: float) -> None:
    network = smooth_network(vocabulary=400)
    assert network.logits_bias is not None
    network.logits_bias[399] = bad
    rows = Rows(NativeNetwork(network, 1), SOURCES)
    assert not rows.feed({0: 1, 2: 1}, widths=0).healthy.any()
    assert not rows.feed({0: 1, 2: 1}, widths=3).healthy.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_suppressed_counts_only_in_probabilities(bad: float) -> None:
    network = smooth_network(vocabulary=400)
    assert network.logits_bias is not None
    network.logits_bias[399] = bad
    subject = NativeNetwork(network, 1)
    subject.suppress([399])
    assert Rows(subject, SOURCES).feed({0: 1, 2: 1}, widths=[0, 3]).healthy.tolist() == [
        True,
        False,
    ]


def test_a_row_of_which_nothing_is_possible_is_unhealthy() -> None:
    network = compiled()
    network.suppress(range(96))
    assert not Rows(network, SOURCES).feed({0: 1}, widths=3).healthy.any()


@every_kind
def test_a_reordered_row_has_the_bits_of_a_row_with_that_history(kind: dict[str, Any]) -> None:
    network = compiled(**kind)
    beams, source, count = [5, 2, 3], SOURCES[0], 12
    rows = Rows(network, SOURCES)
    for row in beams:
        rows.cache.bind(row, 0)
    tokens = random_tokens(7, [5] * count, 96)
    parents = [tuple(beams[p % 3] for p in line) for line in random_tokens(8, [3] * count, 3)]
    histories: dict[int, tuple[int, ...]] = dict.fromkeys(beams, ())
    for step, line in enumerate(tokens):
        found = rows.feed({row: line[i] for i, row in enumerate([*beams, 1, 4])})
        histories = {row: (*histories[row], line[i]) for i, row in enumerate(beams)}
        fresh = Rows(network, [source] * 3)
        alone = fresh.feed_all(torch.tensor([histories[row] for row in beams]))
        assert found.logits is not None
        assert torch.equal(found.logits[:3], alone[:, -1])
        moved = [(r, p) for r, p in zip(beams, parents[step], strict=True) if r != p]
        if moved:
            rows.cache.reorder([r for r, _ in moved], [p for _, p in moved], step + 1)
            histories = {row: histories[p] for row, p in zip(beams, parents[step], strict=True)}


def test_a_row_begun_anew_after_a_search_reads_nothing_of_it() -> None:
    network = compiled(**T5_LIKE)
    rows = Rows(network, SOURCES)
    for row in range(6):
        rows.cache.bind(row, 4)
    rows.feed_all(torch.tensor(random_tokens(9, [6] * 6, 96)))
    rows.cache.reorder([0, 1, 2], [3, 4, 5], 6)
    rows.cache.bind(1, 2)
    rows.positions[1] = 0
    targets = torch.tensor(random_tokens(10, [8], 96))

    assert torch.equal(fed(rows, 1, targets), alone(network, SOURCES[2], targets))


def fed(rows: Rows, row: int, targets: torch.Tensor) -> torch.Tensor:
    found = [rows.feed({row: int(token)}).logits for token in targets[0]]
    return torch.stack([logits for logits in found if logits is not None], 1)


def alone(network: NativeNetwork, source: tuple[int, ...], targets: torch.Tensor) -> torch.Tensor:
    return Rows(network, [source]).feed_all(targets)


@every_kind
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_harms_no_neighbour_and_nobody_after_it(
    kind: dict[str, Any], bad: float
) -> None:
    network = compiled(**kind)
    targets = torch.tensor(random_tokens(11, [6, 6, 6], 96))
    latents = network.encode(SOURCES[:3])
    poisoned = [latents[0], latents[1].index_fill(0, torch.tensor(0), bad), latents[2]]
    rows = Rows(network, SOURCES[:3])
    rows.cache.add_sources(range(3), poisoned)
    found = [rows.feed(dict(enumerate(tokens)), widths=4) for tokens in targets.T.tolist()]

    assert [step.healthy.tolist() for step in found] == [[True, False, True]] * 6
    for row in (0, 2):
        clean = Rows(network, [SOURCES[row]])
        for step, tokens in zip(found, targets.T.tolist(), strict=True):
            expected = clean.feed({0: tokens[row]}, widths=4)
            assert (step.values[row] == expected.values[0]).all()
            assert (step.tokens[row] == expected.tokens[0]).all()
    rows.cache.close_source(1)
    rows.cache.add_sources([1], [latents[2]])
    rows.cache.bind(1, 1)
    rows.positions[1] = 0
    assert torch.equal(fed(rows, 1, targets[:1]), alone(network, SOURCES[2], targets[:1]))


def test_a_poisoned_source_harms_no_other_that_is_encoded_with_it() -> None:
    network = smooth_network()
    network.embedding.weight.data[90] = float("nan")
    subject = NativeNetwork(network, 1)
    sources = [(1, 2, 3), (5, 90, 7, 9), (4,), (8, 9)]

    found = subject.encode(sources)

    assert [bool(latent.isfinite().all()) for latent in found] == [True, False, True, True]
    for index in (0, 2, 3):
        assert torch.equal(found[index], subject.encode([sources[index]])[0])


def test_rows_of_zeros_pass_through() -> None:
    network = smooth_network(norm="pre")
    for name, parameter in network.named_parameters():
        if "bias" in name or "weight" in name:
            parameter.data.zero_()
    found = Rows(NativeNetwork(network, 1), SOURCES).feed({0: 1, 2: 3}, widths=3)
    assert found.tokens.tolist() == [[0, 1, 2]] * 2
    assert found.healthy.all()


def test_a_row_holds_as_many_tokens_as_it_was_given_and_sources_come_and_go() -> None:
    network = compiled(threads=2)
    rows = Rows(network, SOURCES, max_target=20)
    targets = torch.tensor(random_tokens(12, [20] * 6, 96))
    first = rows.feed_all(targets)
    for before, after in pairwise([0, 4, 1, 2]):  # of other lengths, in the same place
        rows.cache.close_source(before)
        rows.cache.add_sources([before], network.encode([SOURCES[after]]))
        rows.cache.bind(before, before)
        rows.positions[before] = 0
        again = fed(rows, before, targets[after : after + 1])
        assert torch.equal(again[0], first[after])


def test_a_cache_that_no_machine_holds_is_refused() -> None:
    with pytest.raises(MemoryError, match="no memory for"):
        NativeCache(compiled(), 2**31 - 1, 512)
