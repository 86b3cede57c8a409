"""Models by hub name: from a cache in the hub's layout, and from a hub on loopback."""

import errno
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from huggingface_hub.utils.tqdm import enable_progress_bars

from model import HubError, Reference, load
from model.hub import resolve
from tests.model.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, fake_hub

NAME = "org/name"
CHECKPOINT = {
    "config.json": b'{"model_type": "marian"}',
    "vocab.json": b"{}",
    "source.spm": b"spm",
    "model.safetensors": b"weights" * 1000,
}
USELESS = {
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"h5",
    "flax_model.msgpack": b"flax",
    "decoder.onnx": b"onnx",
    "onnx/model.safetensors": b"other",
    "modeling.py": b"import os",
    "README.md": b"# card",
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def fetch(hub: FakeHub, tmp_path: Path) -> Callable[..., Path]:
    def fetch(name: str = NAME, **more: Any) -> Path:
        return resolve(name, cache=tmp_path / "cache", **{"endpoint": hub.endpoint, **more})

    return fetch


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused, raising=True)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def into_cache(cache: Path, name: str, files: dict[str, bytes], *, branch: str = "main") -> Path:
    """Lay out a repository as the hub's own clients keep it: blobs, and links to them."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (repository / "refs", repository / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / branch).write_text(COMMIT)
    for number, (file, content) in enumerate(files.items()):
        (repository / "blobs" / f"{number:040x}").write_bytes(content)
        (snapshot / file).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def one_line(error: pytest.ExceptionInfo[HubError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "alias", "revision", "name"),
    [
        ("org/name", "org/name", None, None, "org/name"),
        ("org/name@v1.0", "org/name", None, "v1.0", "org/name"),
        ("org/name@refs/pr/3", "org/name", None, "refs/pr/3", "org/name"),
        ("mine=org/name@main", "org/name", "mine", "main", "mine"),
    ],
)
def test_a_reference_names_a_repository_a_revision_and_an_alias(
    text: str, place: str, alias: str | None, revision: str | None, name: str
) -> None:
    reference = Reference.parse(text)
    assert reference == Reference(place, alias, revision)
    assert reference.name == name


def test_a_folder_that_exists_is_a_folder_whatever_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "a=b@c"
    odd.mkdir()
    assert Reference.parse(str(odd)).name == "a=b@c"
    assert Reference.parse(f"x={odd}") == Reference(str(odd), "x")
    with pytest.raises(HubError, match="is a folder, which has no revision main"):
        Reference.parse(f"{tmp_path}@main")


def test_a_folder_wins_over_a_repository_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sockets: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/name").mkdir(parents=True)
    assert Reference.parse("org/name").locate() == Path("org/name")


@pytest.mark.parametrize("text", ["/nowhere", "nowhere", "a/b/c", "", "../x", "x=", "org/"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(HubError, match="is not a folder, nor a hub name"):
        Reference.parse(text)


# -- the cache -------------------------------------------------------------------------------


def test_a_complete_snapshot_is_used_without_opening_a_socket(
    tmp_path: Path, no_sockets: None
) -> None:
    snapshot = into_cache(tmp_path, NAME, CHECKPOINT)
    assert resolve(NAME, cache=tmp_path) == snapshot
    assert resolve(NAME, cache=tmp_path, offline=True) == snapshot
    assert resolve(NAME, revision="main", cache=tmp_path) == snapshot
    assert resolve(NAME, revision=COMMIT, cache=tmp_path) == snapshot


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "the tokenizer"])
def test_offline_an_incomplete_snapshot_is_refused_without_opening_a_socket(
    tmp_path: Path, no_sockets: None, absent: str
) -> None:
    tokenizer = ("vocab.json", "source.spm")
    gone = tokenizer if absent == "the tokenizer" else (absent,)
    into_cache(tmp_path, NAME, {k: v for k, v in CHECKPOINT.items() if k not in gone})
    with pytest.raises(HubError) as error:
        resolve(NAME, cache=tmp_path, offline=True)
    assert "`stele download org/name` fetches it" in one_line(error)


def test_offline_a_missing_revision_names_the_command_that_would_fetch_it(
    tmp_path: Path, no_sockets: None
) -> None:
    into_cache(tmp_path, NAME, CHECKPOINT)
    with pytest.raises(HubError, match="`stele download org/name@v2` fetches it"):
        resolve(NAME, revision="v2", cache=tmp_path, offline=True)


def test_offline_is_also_what_the_hubs_own_variable_says(
    tmp_path: Path, no_sockets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="the network must not be used"):
        resolve(NAME, cache=tmp_path)


def test_a_snapshot_that_lacks_a_shard_is_not_complete(tmp_path: Path, no_sockets: None) -> None:
    index = b'{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
    files = {**CHECKPOINT, "model.safetensors.index.json": index, "model-1-of-2.safetensors": b"x"}
    del files["model.safetensors"]
    snapshot = into_cache(tmp_path, NAME, files)
    with pytest.raises(HubError, match="is not complete"):
        resolve(NAME, cache=tmp_path, offline=True)
    (snapshot / "model-2-of-2.safetensors").write_bytes(b"y")
    assert resolve(NAME, cache=tmp_path, offline=True) == snapshot


def test_a_cached_repository_that_is_only_pickled_says_what_to_do(
    tmp_path: Path, no_sockets: None
) -> None:
    files = {**CHECKPOINT, "pytorch_model.bin": b"pickle"}
    del files["model.safetensors"]
    snapshot = into_cache(tmp_path, NAME, files)
    with pytest.raises(HubError, match="`stele convert org/name OUT`"):
        resolve(NAME, cache=tmp_path, offline=True)
    assert resolve(NAME, cache=tmp_path, offline=True, pickled=True) == snapshot


def test_a_checkpoint_in_the_cache_loads(tmp_path: Path, tiny_folder: Path) -> None:
    into_cache(tmp_path, NAME, {p.name: p.read_bytes() for p in tiny_folder.iterdir()})
    assert load(resolve(NAME, cache=tmp_path, offline=True), name=NAME, slots=1).card.name == NAME


# -- fetching --------------------------------------------------------------------------------


def test_only_what_is_served_is_fetched_once_and_pinned_to_a_commit(
    hub: FakeHub, fetch: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "model.hub")
    hub.add(NAME, {**CHECKPOINT, **USELESS})
    folder = fetch()
    assert folder.name == COMMIT
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == CHECKPOINT
    assert f"org/name is at commit {COMMIT}" in caplog.text
    assert not [one for one in hub.requests for file in USELESS if one.endswith(f"/{file}")]

    hub.requests.clear()
    hub.branches["main"] = OTHER_COMMIT  # the branch moves on; what was fetched stays
    assert fetch() == folder
    assert hub.requests == []

    hub.add(NAME, {**CHECKPOINT, "config.json": b'{"new": 1}'}, OTHER_COMMIT)
    assert fetch(refresh=True).name == OTHER_COMMIT
    assert fetch().name == OTHER_COMMIT


def test_a_revision_is_fetched_by_its_own_name(hub: FakeHub, fetch: Callable[..., Path]) -> None:
    pickled = {k: v for k, v in CHECKPOINT.items() if k != "model.safetensors"}
    hub.add(NAME, {**pickled, **USELESS})
    hub.add(NAME, CHECKPOINT, OTHER_COMMIT)
    with pytest.raises(HubError) as error:
        fetch()
    assert "`stele convert org/name OUT`" in one_line(error)
    assert "org/name@refs/pr/N" in str(error.value)
    assert fetch(revision="refs/pr/1").name == OTHER_COMMIT
    assert fetch(revision="refs/pr/1", offline=True).name == OTHER_COMMIT


def test_pickled_weights_are_fetched_only_to_be_converted(
    hub: FakeHub, fetch: Callable[..., Path]
) -> None:
    pickled = {k: v for k, v in CHECKPOINT.items() if k != "model.safetensors"}
    hub.add(NAME, {**pickled, **USELESS})
    assert (fetch(pickled=True) / "pytorch_model.bin").read_bytes() == b"pickle"
    hub.add("org/both", {**CHECKPOINT, **USELESS})
    assert not (fetch("org/both", pickled=True) / "pytorch_model.bin").exists()


def test_an_interrupted_download_is_resumed(hub: FakeHub, fetch: Callable[..., Path]) -> None:
    weights = bytes(range(256)) * 80_000
    hub.add(NAME, {**CHECKPOINT, "model.safetensors": weights})
    hub.cut["model.safetensors"] = 15_000_000
    try:
        folder = fetch()  # newer clients resume by themselves
    except HubError:
        folder = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert [one for one in hub.requests if one.startswith("RANGE ")]


@pytest.mark.parametrize(
    ("refusal", "sentences"),
    [
        ((404, "RepoNotFound"), ["is neither a folder nor a repository of", "set HF_TOKEN"]),
        ((401, "RepoNotFound"), ["is neither a folder nor a repository of", "set HF_TOKEN"]),
        ((403, "GatedRepo"), ["org/name is gated", "set HF_TOKEN"]),
        ((500, ""), ["did not give org/name"]),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    hub: FakeHub, fetch: Callable[..., Path], refusal: tuple[int, str], sentences: list[str]
) -> None:
    hub.refusals[NAME] = refusal
    with pytest.raises(HubError) as error:
        fetch()
    for sentence in sentences:
        assert sentence in one_line(error)


def test_an_unknown_revision_and_a_repository_without_weights_are_told(
    hub: FakeHub, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, {"config.json": b"{}", "tokenizer.json": b"{}", "model.onnx": b""})
    with pytest.raises(HubError, match="org/name has no revision v9"):
        fetch(revision="v9")
    with pytest.raises(HubError, match=r"no weights that are read here: no model\.safetensors"):
        fetch()
    hub.add("org/adapter", {"adapter.safetensors": b"", "config.json": b"{}"})
    with pytest.raises(HubError, match="is not a checkpoint"):
        fetch("org/adapter")


def test_without_a_network_the_error_is_one_line(fetch: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(HubError) as error:
        fetch(endpoint=f"http://127.0.0.1:{port}")
    assert f"cannot fetch org/name from http://127.0.0.1:{port}" in one_line(error)


def test_a_full_disk_is_told_in_one_line(
    hub: FakeHub, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, CHECKPOINT)

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(HubError) as error:
        fetch()
    assert "no space left in" in one_line(error)
    assert "set HF_HUB_CACHE" in str(error.value)


def test_without_a_terminal_progress_is_log_lines(
    hub: FakeHub,
    fetch: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enable_progress_bars()  # what another test loads may have disabled them for the process
    monkeypatch.setattr("model.hub._LOG_PERIOD_S", 0.0)
    caplog.set_level(logging.INFO, "model.hub")
    hub.add(NAME, {**CHECKPOINT, "model.safetensors": b"w" * 25_000_000})
    fetch()
    assert "of 25 MB" in caplog.text
    assert "\r" not in capsys.readouterr().err


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loopback be reached directly, whatever the environment's proxies are."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_revision_that_climbs_is_refused() -> None:
    with pytest.raises(HubError, match="is not a revision"):
        Reference.parse("org/name@../../etc")
