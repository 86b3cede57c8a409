"""The wheel holds everything it needs to serve, the bundled model included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout has been installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(build, cwd=ROOT, check=True, timeout=120, capture_output=True)
    (wheel,) = folder.glob("stele-*.whl")
    site = folder / "site"
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, timeout=120, capture_output=True)
    return site


def run(site: Path, *command: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STELE_")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=site.parent,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_translates_with_the_bundled_model(site: Path) -> None:
    where = run(site, "-c", "import model, server; print(model.__file__, server.__file__)")
    assert where.split() == [str(site / "model/__init__.py"), str(site / "server/__init__.py")]
    text = ["--from", "en", "--to", "de", "--text", "I am tired."]
    assert "müde" in run(site, "-m", "server", "translate", *text)


def test_the_wheel_has_the_command_and_nothing_of_the_tests(site: Path) -> None:
    (entry_points,) = site.glob("stele-*.dist-info/entry_points.txt")
    assert "stele = server.cli:main" in entry_points.read_text()
    assert not (site / "tests").exists()
    assert not (site / "training").exists()
    assert (site / "model/bundled/en-de/model.safetensors").stat().st_size < 30 * 2**20
