from collections.abc import Iterator

import pytest

from model import BUNDLED, Model, load
from tests.server.live import Live, serve


@pytest.fixture(scope="session")
def bundled() -> Model:
    return load(BUNDLED, precision="float32")


@pytest.fixture(scope="module")
def live(bundled: Model) -> Iterator[Live]:
    with serve(bundled) as running:
        yield running
