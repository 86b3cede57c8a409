"""What a search tells while it runs is never taken back."""

import random
import warnings

import ctranslate2
import pytest
from transformers import MarianTokenizer

from model import BUNDLED, Arrival, DecodingOptions, Model, Runner, Step
from model.decoding.alternatives import Alternatives
from model.decoding.beam import BeamSearch
from model.decoding.search import Candidates
from tests.model.driver import Request, random_source, run_together
from tests.model.networks import tiny_network

EOS = 0


def steps_of(runner: Runner, source: tuple[int, ...], options: DecodingOptions) -> list[Step]:
    """Run one target to its end."""
    runner.admit([Arrival(tuple(range(options.rows)), source, options)])
    steps: list[Step] = []
    while not (steps and steps[-1].hypotheses):
        steps += runner.launch([0]).result()
    runner.release([0])
    return steps


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(max_new_tokens=40, num_beams=4),
        DecodingOptions(max_new_tokens=40, num_beams=4, early_stopping=True),
        DecodingOptions(max_new_tokens=40, num_beams=3, length_penalty=3.0),
    ],
    ids=["patient", "early", "long"],
)
def test_what_a_beam_search_reports_as_certain_is_never_retracted(options: DecodingOptions) -> None:
    runner = Runner(tiny_network(), rows=4, max_target=60, latent_bytes=0)
    rng = random.Random(0)
    early, came_late = 0, False
    for _ in range(12):
        *steps, last = steps_of(runner, random_source(rng, 96, 20), options)

        certain = [token for step in steps for token in step.tokens]
        assert (*certain,) == last.hypotheses[0].tokens[: len(certain)]
        early += len(certain)
        came_late |= any(len(step.tokens) > 1 for step in steps)
    assert early > 60, "hardly anything was certain before the end"
    assert came_late, "agreement never came late"


def test_a_preview_goes_on_where_certainty_ends() -> None:
    runner = Runner(tiny_network(), rows=3, max_target=60, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=30, num_beams=3)

    steps = steps_of(runner, random_source(random.Random(7), 96, 20), options)[:-1]

    certain = 0
    for number, step in enumerate(steps, start=1):
        certain += len(step.tokens)
        assert certain + len(step.preview) == number
    assert any(step.preview for step in steps)


def candidates(*pairs: tuple[int, float]) -> Candidates:
    return Candidates([token for token, _ in pairs], [log_prob for _, log_prob in pairs])


def agreed(search: BeamSearch) -> tuple[int, ...]:
    return search.live[0].tokens[: search.certain]


def advanced(search: BeamSearch, *rows: Candidates) -> BeamSearch:
    return search.advance(rows)


def test_a_token_is_certain_as_soon_as_all_live_hypotheses_have_it() -> None:
    options = DecodingOptions(max_new_tokens=9, num_beams=2)
    search = BeamSearch.begin(options, EOS)

    search = advanced(search, candidates((5, -1.0), (6, -2.0), (7, -9.0), (8, -9.0)))
    assert search.certain == 0
    first = candidates((3, -0.1), (4, -0.2), (2, -9.0), (1, -9.0))
    search = advanced(search, first, candidates((3, -5.0), (4, -6.0), (2, -9.0), (1, -9.0)))

    assert agreed(search) == (5,)
    assert [live.tokens[-1] for live in search.live] == [3, 4]


def test_a_finished_hypothesis_that_may_win_keeps_others_from_being_certain() -> None:
    options = DecodingOptions(max_new_tokens=9, num_beams=2)
    search = BeamSearch.begin(options, EOS)
    search = advanced(search, candidates((5, -1.0), (6, -1.1), (7, -9.0), (8, -9.0)))

    ending = candidates((EOS, -0.1), (4, -0.2), (3, -0.3), (1, -9.0))
    search = advanced(search, ending, candidates((4, -9.0), (3, -9.0), (2, -9.5), (1, -9.6)))
    assert agreed(search) == (5,)
    rows = [candidates((4, -0.1), (3, -0.1), (2, -9.0), (1, -9.0))] * 2
    search = search.advance(rows)

    assert agreed(search) == (5,), "5 alone may still win"


def test_alternatives_of_a_forced_end_are_one_empty_target() -> None:
    runner = Runner(tiny_network(), rows=3, max_target=60, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=1, alternatives=3, forced_eos=EOS)

    (last,) = steps_of(runner, random_source(random.Random(7), 96, 20), options)

    assert [hypothesis.tokens for hypothesis in last.hypotheses] == [()]


def test_rows_are_free_for_others_after_a_search() -> None:
    runner = Runner(tiny_network(), rows=4, max_target=60, latent_bytes=0)
    rng = random.Random(3)
    beams = DecodingOptions(max_new_tokens=12, num_beams=4)
    steps_of(runner, random_source(rng, 96, 9), beams)

    greedy = DecodingOptions(max_new_tokens=12)
    requests = [Request(random_source(rng, 96, 9), greedy) for _ in range(4)]
    outcomes = run_together(runner, requests, rng)

    fresh = Runner(tiny_network(), rows=4, max_target=60, latent_bytes=0)
    assert outcomes == run_together(fresh, requests, rng)
    assert "4/4" not in repr(runner)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ctranslate2.Translator:
    folder = tmp_path_factory.mktemp("converted") / "bundled"
    with warnings.catch_warnings():  # MarianTokenizer recommends sacremoses, unused here
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        converter = ctranslate2.converters.TransformersConverter(str(BUNDLED))
        converter.convert(str(folder))
    return ctranslate2.Translator(
        str(folder), compute_type="float32", intra_threads=1, inter_threads=1
    )


@pytest.mark.parametrize("prefix", [[], ["▁Ich"]], ids=["from the start", "after a prefix"])
def test_alternatives_are_those_of_ctranslate2(
    bundled: Model,
    heldout: list[tuple[str, str]],
    reference: ctranslate2.Translator,
    prefix: list[str],
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        pieces = MarianTokenizer.from_pretrained(BUNDLED)
    sources = [bundled.tokenizer.prompt(en, "en", "de").source for en, _ in heldout[:8]]
    options = DecodingOptions(
        max_new_tokens=40, alternatives=4, target_prefix=tuple(pieces.convert_tokens_to_ids(prefix))
    )

    outcomes = run_together(
        bundled.runner, [Request(source, options) for source in sources], random.Random(0)
    )
    expected = reference.translate_batch(
        [pieces.convert_ids_to_tokens(source) for source in sources],
        target_prefix=[prefix] * len(sources),
        beam_size=1,
        num_hypotheses=4,
        return_alternatives=True,
        max_decoding_length=40,
    )

    for outcome, result in zip(outcomes, expected, strict=True):
        ours = [prefix + pieces.convert_ids_to_tokens(h.tokens) for h in outcome.hypotheses]
        assert ours == result.hypotheses


def test_what_filters_made_impossible_neither_lives_nor_ends() -> None:
    options = DecodingOptions(max_new_tokens=9, num_beams=2, early_stopping=True)
    never = float("-inf")

    forced = candidates((5, 0.0), (EOS, never), (1, never), (2, never))
    search = advanced(BeamSearch.begin(options, EOS), forced)

    assert [(live.tokens[-1], live.score) for live in search.live] == [(5, 0.0)]
    assert (search.finished, search.has_ended) == ((), False)
    assert agreed(search) == (5,)


def test_alternatives_need_several_candidates_only_where_they_branch() -> None:
    search = Alternatives.begin(DecodingOptions(max_new_tokens=5, alternatives=3), EOS)
    assert search.width == 4

    search = search.advance([candidates((EOS, -0.1), (5, -0.2), (6, -0.3), (7, -0.4))])

    assert [live.tokens[-1] for live in search.live] == [5, 6, 7]
    assert search.width == 1
    assert search.certain == 0
