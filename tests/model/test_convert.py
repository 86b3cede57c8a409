"""Pickled checkpoints become safetensors that give the same tokens; hostile ones are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import MarianMTModel

from model import Arrival, CheckpointError, DecodingOptions, Model, load
from model.building import build, verify_names
from model.checkpoint import Checkpoint
from model.convert import convert, verify
from tests.model.reference import FAMILIES, write
from tests.model.reference import reference as read_reference

TEXT = "How do I get to the station?"


def greedy(model: Model, tokens: int = 12) -> list[int]:
    source = model.tokenizer.prompt(TEXT, "en", "de").source
    model.runner.admit([Arrival((0,), source, DecodingOptions(max_new_tokens=tokens))])
    found = [model.runner.launch([0]).result()[0].tokens[0] for _ in range(tokens)]
    model.runner.release([0])
    return found


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> Any:
    return MarianMTModel.from_pretrained(tiny_folder, dtype=torch.float32)


@pytest.fixture
def pickled(tiny_folder: Path, tmp_path: Path) -> Path:
    """The folder of a checkpoint whose weights are still to be written."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    return folder


def test_a_pickled_marian_gives_the_same_tokens_once_converted(
    tiny_folder: Path, pickled: Path, reference: Any, tmp_path: Path
) -> None:
    torch.save(reference.state_dict(), pickled / "pytorch_model.bin")
    out = tmp_path / "new" / "out"

    convert(pickled, out)
    verify(out)

    assert greedy(load(out, slots=1)) == greedy(load(tiny_folder, slots=1))
    assert {p.name for p in out.iterdir()} == {p.name for p in tiny_folder.iterdir()}
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads_converted_as_it_loads_from_its_own_safetensors(
    name: str, tmp_path: Path
) -> None:
    folder = write(name, tmp_path / "model")
    original = build(Checkpoint(folder)).state_dict()
    state = read_reference(folder).state_dict()
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    torch.save(state, folder / "pytorch_model.bin")

    convert(folder, tmp_path / "out")

    verify_names(Checkpoint(tmp_path / "out"))
    converted = build(Checkpoint(tmp_path / "out")).state_dict()
    assert converted.keys() >= original.keys()  # a state dict may hold computed positions, too
    for tensor in original:
        assert torch.equal(converted[tensor], original[tensor]), tensor


def test_a_tensor_that_is_missing_is_told_after_converting(
    pickled: Path, reference: Any, tmp_path: Path
) -> None:
    state = reference.state_dict()
    del state["final_logits_bias"], state["model.decoder.layers.1.fc1.weight"]
    torch.save(state, pickled / "pytorch_model.bin")
    convert(pickled, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"model\.decoder\.layers\.1\.fc1\.weight is missing"):
        verify(tmp_path / "out")


def test_tied_tensors_are_written_once_and_parts_of_others_whole(
    pickled: Path, reference: Any, tmp_path: Path
) -> None:
    state = reference.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.shared.weight"].data_ptr()
    base = torch.arange(12.0).reshape(3, 4)
    parts = {"first": base[0], "second": base[1], "turned": base.T, "empty": torch.empty(0)}
    torch.save({**state, **parts}, pickled / "pytorch_model.bin")

    convert(pickled, tmp_path / "out")

    written = load_file(tmp_path / "out" / "model.safetensors")
    embeddings = [name for name in written if "embed_tokens" in name or "lm_head" in name]
    assert (embeddings, "model.shared.weight" in written) == ([], True)
    for name, tensor in parts.items():
        assert torch.equal(written[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_names_and_dtypes_are_kept(pickled: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.randn(3, 4).to(dtype), "b": torch.randn(2).to(dtype)}
    torch.save(tensors, pickled / "pytorch_model.bin")
    convert(pickled, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert written[name].dtype == dtype
        assert torch.equal(written[name], tensor)


def test_files_from_before_the_archive_format_are_read(pickled: Path, tmp_path: Path) -> None:
    path = pickled / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    convert(pickled, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["a"].tolist() == [1, 1]


def test_shards_stay_shards_with_an_index(pickled: Path, tmp_path: Path) -> None:
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    torch.save({"a": torch.ones(2)}, pickled / names[0])
    torch.save({"b": torch.ones(3)}, pickled / names[1])
    index = {"metadata": {"total_size": 20}, "weight_map": dict(zip("ab", names, strict=True))}
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    convert(pickled, tmp_path / "out")

    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert written == {
        "metadata": {"total_size": 20},
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        },
    }
    for name, file in written["weight_map"].items():
        with safe_open(tmp_path / "out" / file, framework="pt") as opened:
            assert list(opened.keys()) == [name]
    assert not list((tmp_path / "out").glob("pytorch_model*"))

    (pickled / names[1]).unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin is missing"):
        convert(pickled, tmp_path / "again")


def test_safetensors_are_taken_before_pickles(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(tiny_folder, folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    convert(folder, tmp_path / "out")
    verify(tmp_path / "out")
    same = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert same == (tiny_folder / "model.safetensors").read_bytes()


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_hostile_pickle_is_refused_and_nothing_is_run(
    pickled: Path, tmp_path: Path, is_archive: bool
) -> None:
    torch.save(
        {"a": torch.ones(1), "b": Hostile(tmp_path / "pwned")},
        pickled / "pytorch_model.bin",
        _use_new_zipfile_serialization=is_archive,
    )
    with pytest.raises(CheckpointError, match="is refused, nothing in it was run") as error:
        convert(pickled, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert str(pickled / "pytorch_model.bin") in str(error.value)
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is truncated or damaged"),
        (b"not a pickle at all", "is refused|is truncated or damaged"),
        (b"PK\x03\x04 cut", "is refused|is truncated or damaged"),
    ],
)
def test_a_damaged_file_is_one_line(
    pickled: Path, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (pickled / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as error:
        convert(pickled, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pickled"]


def test_a_truncated_archive_is_one_line(pickled: Path, tmp_path: Path) -> None:
    path = pickled / "pytorch_model.bin"
    torch.save({"a": torch.ones(5000)}, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(CheckpointError, match=r"is refused|is truncated or damaged") as error:
        convert(pickled, tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(1)], "holds list, not tensors by name"),
        ({}, "holds dict, not tensors by name"),
        ({"model": {"a": torch.ones(1)}}, "model is dict, not a tensor"),
        ({1: torch.ones(1)}, "1 is Tensor"),
    ],
)
def test_what_is_not_tensors_by_name_is_refused(
    pickled: Path, tmp_path: Path, content: Any, sentence: str
) -> None:
    torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=sentence):
        convert(pickled, tmp_path / "out")


def test_nothing_is_overwritten(pickled: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, pickled / "pytorch_model.bin")
    full, empty, file = tmp_path / "full", tmp_path / "empty", tmp_path / "file"
    full.mkdir()
    (full / "precious").touch()
    empty.mkdir()
    file.touch()
    for out in (full, file):
        with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
            convert(pickled, out)
    convert(pickled, empty)
    assert (empty / "model.safetensors").exists()
    assert [p.name for p in full.iterdir()] == ["precious"]


def test_a_full_disk_is_told_before_anything_is_written(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(1000)}, pickled / "pytorch_model.bin")
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(CheckpointError, match=r"0\.0 GB free"):
            convert(pickled, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pickled"]


def test_a_disk_that_fills_meanwhile_leaves_nothing_behind(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(1000)}, pickled / "pytorch_model.bin")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("model.convert.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        convert(pickled, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pickled"]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        convert(tmp_path / "empty", tmp_path / "out")
