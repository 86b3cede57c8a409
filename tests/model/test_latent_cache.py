from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from model import Arrival, DecodingOptions, Runner
from model.latent_cache import LatentCache, Source
from tests.model.driver import Request, run_alone
from tests.model.networks import tiny_network

LATENT_BYTES = 3 * 4 * 4  # of a source of three tokens


class Encoder:
    """Latents [length, 4] that hold the source's first token; remembers what it encoded."""

    def __init__(self, not_finite: Sequence[Source] = ()) -> None:
        self.not_finite = not_finite
        self.calls: list[list[Source]] = []

    def __call__(self, sources: Sequence[Source]) -> list[Tensor]:
        self.calls.append(list(sources))
        return [
            torch.full((len(s), 4), float("nan") if s in self.not_finite else float(s[0]))
            for s in sources
        ]


def source(first: int) -> Source:
    return (first, 8, 9)


def test_equal_sources_are_encoded_once_and_come_back_in_order() -> None:
    cache = LatentCache(encoder := Encoder(), max_bytes=1000)

    latents = cache.fetch([source(1), source(2), source(1)])
    again = cache.fetch([source(2), source(3)])

    assert [latent[0, 0] for latent in [*latents, *again]] == [1, 2, 1, 2, 3]
    assert encoder.calls == [[source(1), source(2)], [source(3)]]
    assert (cache.hits, cache.misses) == (2, 3)
    assert cache.bytes == 3 * LATENT_BYTES
    assert repr(cache) == "<LatentCache 3 latents, 144/1000 bytes>"


def test_the_least_recently_used_latents_leave_when_the_bytes_run_out() -> None:
    cache = LatentCache(encoder := Encoder(), max_bytes=2 * LATENT_BYTES)
    cache.fetch([source(1), source(2)])
    cache.fetch([source(1)])

    cache.fetch([source(3)])
    cache.fetch([source(1), source(2)])

    assert encoder.calls == [[source(1), source(2)], [source(3)], [source(2)]]
    assert cache.bytes == 2 * LATENT_BYTES


def test_one_batch_may_exceed_the_bound_and_still_get_every_latent() -> None:
    cache = LatentCache(Encoder(), max_bytes=2 * LATENT_BYTES)
    cache.fetch([source(1)])

    latents = cache.fetch([source(n) for n in range(6)])

    assert [latent[0, 0] for latent in latents] == [0, 1, 2, 3, 4, 5]
    assert cache.bytes <= 2 * LATENT_BYTES


@pytest.mark.parametrize("max_bytes", [0, LATENT_BYTES - 1])
def test_a_latent_larger_than_the_cache_is_handed_out_and_not_kept(max_bytes: int) -> None:
    cache = LatentCache(Encoder(), max_bytes)

    assert cache.fetch([source(1)])[0][0, 0] == 1
    assert cache.bytes == 0


def test_a_latent_that_is_not_finite_is_handed_out_once_and_never_kept() -> None:
    cache = LatentCache(encoder := Encoder(not_finite=[source(1)]), max_bytes=1000)

    bad, good = cache.fetch([source(1), source(2)])
    cache.fetch([source(1), source(2)])

    assert bad.isnan().all()
    assert good.isfinite().all()
    assert encoder.calls == [[source(1), source(2)], [source(1)]]
    assert cache.bytes == LATENT_BYTES


class Elsewhere(Tensor):
    """A tensor that says it is on another device."""

    is_cpu = False


def test_a_latent_on_another_device_is_looked_at_when_it_is_asked_for_again() -> None:
    encoder = Encoder(not_finite=[source(1)])
    looked = []

    def encode(sources: Sequence[Source]) -> list[Tensor]:
        looked.append([*sources])
        return [latent.as_subclass(Elsewhere) for latent in encoder(sources)]

    cache = LatentCache(encode, max_bytes=1000)
    cache.fetch([source(1), source(2)])
    assert cache.bytes == 2 * LATENT_BYTES
    assert all(latent.isfinite().all() for latent in cache.fetch([source(2)]))

    cache.fetch([source(1), source(2)])

    assert looked == [[source(1), source(2)], [source(1)]]
    assert (cache.hits, cache.misses) == (2, 3)


def test_a_latent_on_another_device_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Tensor] = []

    def look(latent: Tensor) -> bool:
        looks.append(latent)
        return True

    monkeypatch.setattr("model.latent_cache._is_finite", look)
    cache = LatentCache(lambda _: [torch.ones(2, 4).as_subclass(Elsewhere)], max_bytes=1000)
    counts = []
    for _ in range(4):
        cache.fetch([source(1)])
        counts.append(len(looks))

    assert counts == [0, 1, 1, 1]


def test_clearing_forgets_latents_and_keeps_counts() -> None:
    cache = LatentCache(Encoder(), max_bytes=1000)
    cache.fetch([source(1)])

    cache.clear()
    cache.fetch([source(1)])

    assert (cache.hits, cache.misses) == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hit_gives_the_bits_of_a_miss(dtype: torch.dtype) -> None:
    runner = Runner(tiny_network().to(dtype), rows=1, max_target=20, latent_bytes=2**20)
    options = DecodingOptions(max_new_tokens=12, temperature=1.0, wants_scores=True)
    request = Request((5, 6, 7, 0), options)

    miss, hit = run_alone(runner, request), run_alone(runner, request)

    assert hit == miss
    assert (runner.latents.hits, runner.latents.misses) == (1, 1)


def test_the_runner_encodes_a_source_once_while_any_row_reads_it() -> None:
    runner = Runner(tiny_network(), rows=4, max_target=9, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=3)
    first, second = (5, 6, 0), (7, 0)

    runner.admit([Arrival((0,), first, options), Arrival((1,), second, options)])
    runner.admit([Arrival((2,), first, options), Arrival((3,), first, options)])

    assert runner.latents.misses == 2
    assert "4/4 rows, 2/4 sources" in repr(runner)
