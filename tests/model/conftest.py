from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model import BUNDLED, Model, load
from tests.model.networks import write_tiny_checkpoint

HELDOUT = Path(__file__).parent.parent / "data" / "heldout.en-de.tsv"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def bundled() -> Model:
    """The bundled model; its runner is shared, so a test leaves every row free."""
    return load(BUNDLED, slots=64, precision="float32")


@pytest.fixture(scope="session")
def heldout() -> list[tuple[str, str]]:
    """English and German sentences that no training data holds."""
    lines = HELDOUT.read_text(encoding="utf-8").splitlines()
    return [(english, german) for english, german in (line.split("\t") for line in lines)]


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
