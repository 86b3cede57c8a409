"""A backend that makes only what a step demands of it moves every target as all logits do."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from model import DecodingOptions
from model.decoding.picks import Picks
from model.decoding.rows import RowTable
from model.decoding.search import Candidates
from model.decoding.step import Chooser, Move
from model.decoding.target import GREEDY, LOGITS, UNREAD, Target

VOCABULARY, START, EOS, SUPPRESSED = 40, 39, 0, (39, 4)


class Subject:
    """Targets with their rows and a chooser; steps are taken from given moves."""

    def __init__(self, wanted: Sequence[DecodingOptions]) -> None:
        self.table = RowTable(64, 40, START)
        self.chooser = Chooser(self.table, EOS, torch.tensor(SUPPRESSED))
        self.targets: list[Target] = []
        first = 0
        for options in wanted:
            rows = tuple(range(first, first + options.rows))
            first += options.rows
            self.targets.append(Target.begin(rows, options, 3, EOS))
            for row in rows:
                self.table.occupy(row, options)

    def demand(self) -> list[int]:
        return self.chooser.demand(self.targets)

    def take(self, moves: Sequence[Move]) -> None:
        """Record as a runner does, and let go of targets that have ended."""
        for move in moves:
            if move.parents is not move.target.rows:
                pairs = zip(move.target.rows, move.parents, strict=True)
                moved = [(row, parent) for row, parent in pairs if row != parent]
                assert not {row for row, _ in moved} & {parent for _, parent in moved}
                for row, parent in moved:
                    self.table.reorder([row], [parent])
            self.table.append(move.target.rows, move.tokens)
            move.target.search, move.target.order = move.search, move.order
        self.targets = [move.target for move in moves if not has_ended(move)]


def has_ended(move: Move) -> bool:
    step = move.step
    return bool(step.hypotheses) or EOS in step.tokens or not step.is_healthy


def fused(logits: Tensor, widths: Sequence[int]) -> Picks:
    """Make what is demanded and nothing else."""
    tokens, candidates = [-1] * len(widths), {}
    healthy = logits[: len(widths)].isfinite().all(1).tolist()
    log_probs = logits.log_softmax(1)
    for place, width in enumerate(widths):
        allowed = logits[place].clone()
        allowed[list(SUPPRESSED)] = float("-inf")
        ids = allowed.sort(descending=True, stable=True).indices[: max(width, 1)].tolist()
        if width == GREEDY:
            tokens[place] = ids[0]
        elif width > 0:
            candidates[place] = Candidates(ids, log_probs[place, ids].tolist())
    return Picks(tokens, healthy, candidates)


def plain_options(rng: random.Random) -> DecodingOptions:
    """Everything that needs no logits after all."""
    kind: dict[str, Any] = rng.choice([{}, {}, {"num_beams": 3}, {"alternatives": 3}])
    tokens = rng.randint(4, 12)
    scores = rng.random() < 0.5
    return DecodingOptions(
        max_new_tokens=tokens,
        min_new_tokens=rng.choice([0, 0, tokens // 2, tokens]),
        target_prefix=rng.choice([(), (), (5, 6)]),
        forced_bos=None if scores else rng.choice([None, 9]),
        forced_eos=None if scores else rng.choice([None, EOS]),
        wants_scores=scores,
        **kind,
    )


@pytest.mark.parametrize("seed", range(40))
def test_what_is_demanded_moves_targets_as_all_logits_do(seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    wanted = [plain_options(rng) for _ in range(6)]
    eager, backed = Subject(wanted), Subject(wanted)
    for _ in range(14):
        rows = sum(len(target.rows) for target in eager.targets)
        if not rows:
            break
        logits = 3 * torch.randn(rows + -rows % 8, VOCABULARY, generator=generator)
        if rng.random() < 0.1:
            logits[rng.randrange(rows)] = float("nan")
        widths = backed.demand()
        assert LOGITS not in widths
        expected = eager.chooser.moves(
            eager.chooser.read(logits.clone(), eager.targets, {}), eager.targets
        )
        found = backed.chooser.moves(fused(logits, widths), backed.targets)
        assert [move.step for move in found] == [move.step for move in expected]
        assert [list(move.tokens) for move in found] == [list(move.tokens) for move in expected]
        assert [list(move.parents) for move in found] == [list(move.parents) for move in expected]
        eager.take(expected)
        backed.take(found)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, [GREEDY, GREEDY, GREEDY]),
        ({"wants_scores": True}, [1, 1, 1]),
        ({"forced_bos": 9, "forced_eos": EOS}, [UNREAD, GREEDY, UNREAD]),
        ({"forced_bos": 9, "wants_scores": True}, [LOGITS, 1, 1]),
        ({"min_new_tokens": 1}, [2, GREEDY, GREEDY]),
        ({"target_prefix": (7,), "max_new_tokens": 2}, [UNREAD, GREEDY, GREEDY]),
        ({"target_prefix": (7,), "temperature": 1.0, "max_new_tokens": 2}, [UNREAD, LOGITS]),
        ({"temperature": 0.5}, [LOGITS]),
        ({"repetition_penalty": 1.1}, [LOGITS]),
        ({"no_repeat_ngram_size": 3}, [LOGITS]),
        ({"suppressed": (8,)}, [LOGITS]),
        ({"num_beams": 2}, [4, 4, 4]),
        ({"num_beams": 2, "renormalises": True}, [LOGITS]),
        ({"num_beams": 2, "min_new_tokens": 1}, [5, 4, 4]),
        ({"alternatives": 2}, [3, 1, 1]),
    ],
    ids=str,
)
def test_a_row_demands_no_more_than_its_options_need(
    options: dict[str, Any], widths: list[int]
) -> None:
    subject = Subject([DecodingOptions(**{"max_new_tokens": 3} | options)])
    logits = torch.zeros(8, VOCABULARY)
    logits[:, 5:20] = torch.arange(15.0)

    for width in widths:
        assert set(subject.demand()) == {width}
        picks = subject.chooser.read(logits.clone(), subject.targets, {})
        subject.take(subject.chooser.moves(picks, subject.targets))


def test_a_neighbour_changes_nothing_in_what_a_row_demands() -> None:
    plain = DecodingOptions(max_new_tokens=5)
    sampling = DecodingOptions(max_new_tokens=5, temperature=1.0)

    assert Subject([plain, sampling, plain]).demand() == [GREEDY, LOGITS, GREEDY]
