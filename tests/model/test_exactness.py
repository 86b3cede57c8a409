"""Every family gives the reference's tokens, greedily and by beam search."""

from pathlib import Path

import pytest

from tests.model.exactness import LENGTHS, row
from tests.model.reference import FAMILIES, write


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_the_tokens_of_transformers(name: str, tmp_path: Path) -> None:
    found = row(name, write(name, tmp_path / name))

    assert found.logit_error < 1e-4
    assert found.greedy == (len(LENGTHS), len(LENGTHS))
    assert found.beam == (96, 96)
