"""The limits against the tables that were worked out by hand, and what is given to a model."""

import pytest

from benchmarks.gpu import limits, protocols, shapes
from benchmarks.gpu.names import BART, MODELS, NLLB, OPUS, T5

LIMITS = [  # model, rows, source, target so far, limit in us
    (OPUS, 1, 30, 16, 34.7),
    (OPUS, 8, 30, 16, 36.1),
    (OPUS, 32, 30, 16, 40.7),
    (OPUS, 64, 30, 16, 46.8),
    (OPUS, 128, 30, 16, 59.2),
    (OPUS, 256, 30, 16, 83.8),
    (OPUS, 256, 128, 64, 236.9),
    (T5, 1, 200, 50, 26.7),
    (T5, 8, 200, 50, 33.9),
    (T5, 64, 200, 50, 91.4),
    (BART, 1, 350, 64, 158.6),
    (BART, 8, 350, 64, 206.1),
    (BART, 32, 350, 64, 369.3),
    (BART, 64, 350, 64, 586.9),
    (BART, 128, 350, 64, 1022),
    (BART, 256, 350, 64, 1892),
    (NLLB, 1, 40, 20, 293.3),
    (NLLB, 64, 40, 20, 356.3),
    (NLLB, 128, 40, 20, 420.3),
]


@pytest.mark.parametrize(("model", "rows", "source", "target", "microseconds"), LIMITS)
def test_a_step_cannot_be_faster_than_the_table_says(
    model: str, rows: int, source: int, target: int, microseconds: float
) -> None:
    found = limits.step_s(shapes.config(model), rows, rows * (source + target))
    assert found * 1e6 == pytest.approx(microseconds, abs=0.06 if microseconds < 1000 else 0.6)


@pytest.mark.parametrize(
    ("model", "megabytes", "a_position"),
    [(OPUS, 103.5, 12_288), (T5, 76.9, 12_288), (BART, 455.3, 49_152), (NLLB, 877.0, 49_152)],
)
def test_a_step_reads_the_decoders_weights_and_the_vocabulary(
    model: str, megabytes: float, a_position: int
) -> None:
    config = shapes.config(model)
    assert limits.weight_bytes(config) / 1e6 == pytest.approx(megabytes, abs=0.06)
    assert limits.position_bytes(config) == a_position


@pytest.mark.parametrize(
    ("model", "rows", "tokens", "milliseconds"),
    [(BART, 32, 350, 5.2), (BART, 64, 350, 10.5), (BART, 128, 350, 21), (NLLB, 64, 40, 1.1)],
)
def test_an_encoder_batch_takes_what_its_operations_take(
    model: str, rows: int, tokens: int, milliseconds: float
) -> None:
    found = limits.encoder_s(shapes.config(model), [tokens] * rows)
    assert found * 1e3 == pytest.approx(milliseconds, abs=0.06)


def test_many_rows_are_bound_by_arithmetic() -> None:
    config = shapes.config(NLLB)
    slow = limits.Chip(bytes_per_s=1e30)
    assert limits.step_s(config, 64, 0, slow) == limits.step_flop(config, 64, 0) / slow.flop_per_s


def test_a_batchs_limit_is_its_encoder_and_the_steps_of_the_rows_still_alive() -> None:
    config = shapes.config(BART)
    steps = [
        limits.step_s(config, 2, 300 + 400),
        limits.step_s(config, 2, 300 + 400 + 2),
        limits.step_s(config, 1, 400 + 2),
    ]
    expected = limits.encoder_s(config, [300, 400]) + sum(steps)
    assert limits.batch_s(config, [300, 400], [2, 3]) == pytest.approx(expected)


def test_a_slot_of_bart_holds_what_the_table_says() -> None:
    config = shapes.config(BART)
    assert limits.slot_bytes(config, 512, 256) / 1e6 == pytest.approx(37.7, abs=0.06)
    assert limits.slot_bytes(config, 1024, 256) / 1e6 == pytest.approx(62.9, abs=0.06)


@pytest.mark.parametrize("rows", [32, 64, 128])
def test_rows_that_stop_by_themselves_have_the_published_mean_and_longest(rows: int) -> None:
    lengths = protocols.stopped(rows)
    assert sum(lengths) / rows == pytest.approx(87, abs=0.1)
    assert max(lengths) == 127
    assert lengths == protocols.stopped(rows)
    assert lengths != sorted(lengths)


def test_sources_are_distinct_and_as_long_as_asked_with_no_special_token() -> None:
    lengths = protocols.spread(*protocols.BART_SOURCES, 64, seed=3)
    assert (min(lengths), max(lengths), sum(lengths) / 64) == (260, 440, 350)
    found = protocols.sources(lengths, 50_264)
    assert [len(source) for source in found] == lengths
    assert len(set(found)) == 64
    assert all(3 <= token < 50_264 for source in found for token in source)


@pytest.mark.parametrize("name", MODELS)
def test_a_toy_model_differs_from_the_real_one_in_sizes_only(name: str) -> None:
    real, toy = shapes.config(name), shapes.config(name, is_tiny=True)
    assert toy.head_dim == real.head_dim == 64
    for field in ("activation", "norm", "norm_kind", "positions", "has_linear_bias", "start"):
        assert getattr(toy, field) == getattr(real, field), field
    assert shapes.precision(toy) == shapes.precision(real)
