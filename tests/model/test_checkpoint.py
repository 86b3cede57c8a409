"""A checkpoint that cannot be served is refused in one line that names the file and the tensor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import CheckpointError, DecodingOptions, Precision, UnsupportedModel, load
from tests.model.driver import Request, run_alone
from tests.model.networks import eager

WEIGHTS = "model.safetensors"
TENSOR = "model.decoder.layers.1.fc1.weight"
INDEX = "model.safetensors.index.json"
BIAS = "model.encoder.layers.0.fc2.bias"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: str | bytes) -> Callable[[Path], None]:
    def overwrite(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return overwrite


def with_values(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values))

    return change


def with_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return rewrite


def truncated(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: holding(name, (folder / name).read_bytes()[:size])(folder)


def only_pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def label(value: object) -> str:
    """Name a case by the words and values in it."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return " ".join(value)
    return value if isinstance(value, str) else "damage"


def assert_refused(folder: Path, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as refusal:
        load(folder)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert [word for word in words if word not in sentence] == [], sentence


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["model is not a folder"]),
        (without("config.json"), ["config.json is missing"]),
        (holding("config.json", "{"), ["config.json is not valid JSON"]),
        (holding("config.json", b"\xff\xfe"), ["config.json is not valid JSON"]),
        (holding("config.json", "[1]"), ["config.json holds list, not a JSON object"]),
        (holding("config.json", '{"model_type": "marian"}'), ["config.json lacks"]),
        (holding("generation_config.json", "[]"), ["generation_config.json holds list"]),
        (holding("tokenizer_config.json", "[]"), ["tokenizer_config.json holds list"]),
        (without(WEIGHTS), [WEIGHTS, "is missing"]),
        (only_pickled, ["pytorch_model.bin is pickled", "`stele convert ", "model OUT` writes"]),
        (truncated(WEIGHTS, 100_000), [WEIGHTS, "truncated or not safetensors"]),
        (truncated(WEIGHTS, 4), [WEIGHTS, "truncated or not safetensors"]),
        (truncated(WEIGHTS, 0), [WEIGHTS, "truncated or not safetensors"]),
        (holding(WEIGHTS, "not tensors at all, but long enough"), [WEIGHTS, "truncated or not"]),
        (with_tensors(lambda t: t.pop(TENSOR)), [WEIGHTS, TENSOR, "is missing (1 in all)"]),
        (
            with_tensors(lambda t: t.update({"model.extra.weight": torch.ones(2)})),
            [WEIGHTS, "model.extra.weight is unknown (1 in all)"],
        ),
        (
            with_tensors(lambda t: t.update({TENSOR: t[TENSOR][:, :-1].contiguous()})),
            [WEIGHTS, TENSOR, "has shape [64, 31], not [64, 32]"],
        ),
        (
            with_tensors(lambda t: t.update({TENSOR: t[TENSOR].to(torch.int64)})),
            [WEIGHTS, TENSOR, "is torch.int64, not floating point"],
        ),
        (
            with_tensors(lambda t: t[BIAS].__setitem__(3, float("nan"))),
            [WEIGHTS, BIAS, "holds values that are not finite"],
        ),
        (
            with_tensors(lambda t: t[BIAS].__setitem__(3, float("inf"))),
            [WEIGHTS, BIAS, "holds values that are not finite"],
        ),
        (
            with_tensors(lambda t: t.update({BIAS: torch.full((32,), 1e300, dtype=torch.double)})),
            [WEIGHTS, BIAS],
        ),
        (without("vocab.json"), ["vocab.json is missing"]),
        (holding("vocab.json", "{"), ["vocab.json is not valid JSON"]),
        (holding("vocab.json", "[]"), ["vocab.json", "list"]),
        (holding("vocab.json", '{"</s>": "0"}'), ["vocab.json"]),
        (holding("vocab.json", '{"</s>": 0, "<unk>": 1}'), ["vocab.json has 2 ids", "8003"]),
        (with_values("vocab.json", **{"&": 8003}), ["vocab.json"]),
        (without("source.spm"), ["source.spm is missing"]),
        (holding("source.spm", "broken"), ["source.spm is not a SentencePiece model"]),
        (holding("target.spm", "broken"), ["target.spm is not a SentencePiece model"]),
        (truncated("source.spm", 1000), ["source.spm is not a SentencePiece model"]),
    ],
    ids=label,
)
def test_a_damaged_checkpoint_is_refused_by_name(
    folder: Path, damage: Callable[[Path], None], words: list[str]
) -> None:
    damage(folder)

    assert_refused(folder, CheckpointError, *words)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("config.json", {"model_type": "gpt2"}, ["model_type 'gpt2' is not supported"]),
        ("config.json", {"normalize_before": True}, ["normalize_before True"]),
        ("config.json", {"normalize_embedding": True}, ["normalize_embedding True"]),
        ("config.json", {"add_final_layer_norm": True}, ["add_final_layer_norm True"]),
        ("config.json", {"static_position_embeddings": False}, ["static_position_embeddings"]),
        ("config.json", {"activation_function": "tanh"}, ["activation 'tanh' is not supported"]),
        (
            "config.json",
            {"decoder_vocab_size": 9},
            ["one embedding for a source vocabulary of 8003"],
        ),
        ("config.json", {"encoder_attention_heads": 5}, ["not a multiple of 5 heads"]),
        ("generation_config.json", {"eos_token_id": 9999}, ["9999 is outside the vocabulary"]),
        ("generation_config.json", {"bad_words_ids": [[3, 4]]}, ["bad_words_ids of several"]),
        ("generation_config.json", {"num_beam_groups": 2}, ["num_beam_groups 2 is not supported"]),
    ],
    ids=label,
)
def test_what_is_not_served_exactly_is_refused_by_name(
    folder: Path, name: str, values: dict[str, Any], words: list[str]
) -> None:
    with_values(name, **values)(folder)

    assert_refused(folder, UnsupportedModel, name, *words)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"d_model": "32"}),
        ("config.json", {"encoder_layers": None}),
        ("config.json", {"encoder_attention_heads": 0}),
        ("generation_config.json", {"bad_words_ids": [3]}),
        ("generation_config.json", {"eos_token_id": [0, 5]}),
        ("generation_config.json", {"max_length": "512"}),
    ],
    ids=label,
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(
    folder: Path, name: str, values: dict[str, Any]
) -> None:
    with_values(name, **values)(folder)

    assert_refused(folder, ValueError, name)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"tie_word_embeddings": False}, "lm_head.weight is missing (1 in all)"),
        ({"share_encoder_decoder_embeddings": False}, "lm_head.weight is missing (3 in all)"),
    ],
    ids=label,
)
def test_tables_that_the_config_separates_must_be_there(
    folder: Path, values: dict[str, Any], missing: str
) -> None:
    with_values("config.json", **values)(folder)

    assert_refused(folder, CheckpointError, WEIGHTS, missing)


def test_tied_tensors_may_stand_in_the_file_several_times(folder: Path) -> None:
    def copy(tensors: dict[str, Tensor]) -> None:
        shared = tensors["model.shared.weight"]
        for name in ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens"):
            tensors[f"{name}.weight"] = shared.clone()

    expected = load(folder).card.parameters
    with_tensors(copy)(folder)

    assert load(folder).card.parameters == expected


def shard(folder: Path) -> dict[str, Any]:
    """Cut the weights into two files with an index; returns the index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, folder / file)
    weight_map = {name: file for file, half in halves.items() for name in half}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return index


def test_shards_hold_what_one_file_held(folder: Path) -> None:
    expected = eager(load(folder, precision="float32").runner.network).state_dict()
    shard(folder)

    found = eager(load(folder, precision="float32").runner.network).state_dict()

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def naming(tensor: str, file: str) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["weight_map"].update({tensor: file})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index.pop("weight_map"), [INDEX, "lacks a weight_map"]),
        (lambda index: index.update(weight_map=[]), [INDEX, "lacks a weight_map"]),
        (naming(TENSOR, "three.safetensors"), ["three.safetensors is missing"]),
        (naming("model.other.weight", "one.safetensors"), ["lacks model.other.weight", INDEX]),
        (naming(TENSOR, "../one.safetensors"), [INDEX, "'../one.safetensors'", "not a safetens"]),
        (naming(TENSOR, "/etc/passwd"), [INDEX, "'/etc/passwd'", "not a safetensors file"]),
        (naming(TENSOR, "one.bin"), [INDEX, "'one.bin'", "not a safetensors file"]),
        (naming(TENSOR, ""), [INDEX, "''", "not a safetensors file"]),
        (lambda index: index["weight_map"].pop(TENSOR), [TENSOR, "is missing (1 in all)"]),
    ],
    ids=range(9),
)
def test_a_damaged_index_is_refused_by_name(
    folder: Path, change: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    index = shard(folder)
    change(index)
    (folder / INDEX).write_text(json.dumps(index))

    assert_refused(folder, CheckpointError, *words)


def test_a_truncated_shard_is_refused_by_name(folder: Path) -> None:
    shard(folder)
    truncated("two.safetensors", 1000)(folder)

    assert_refused(folder, CheckpointError, "two.safetensors is truncated or not safetensors")


def test_a_device_that_is_not_there_is_refused_in_one_line(folder: Path) -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UnsupportedModel, match=f"device {absent} is not there"):
        load(folder, device=absent)


def test_a_value_beyond_the_precision_is_refused(folder: Path) -> None:
    with_tensors(lambda t: t[BIAS].__setitem__(3, 1e6))(folder)

    with pytest.raises(CheckpointError, match=r"not finite in torch\.float16"):
        load(folder, precision="float16")


def test_half_precision_weights_run_in_the_precision_asked_for(folder: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    with_tensors(halve)(folder)

    precisions: list[Precision] = ["float32", "bfloat16"]
    for precision in precisions:
        weight = eager(load(folder, precision=precision).runner.network).embedding.weight
        assert weight.dtype == getattr(torch, precision)


def test_the_card_says_what_the_files_say(folder: Path) -> None:
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 20, "max_length": 40}
    with_values("generation_config.json", **sampling)(folder)

    card = load(folder, name="mine").card

    assert (card.name, card.architecture) == ("mine", "marian")
    assert (card.max_source, card.max_target) == (512, 511)
    expected = {"do_sample": True, "temperature": 0.7, "top_k": 20, "num_beams": 1}
    assert card.defaults == expected | {"max_length": 40}
    assert card.targets == {"de": ("en",), "en": ("de",)}
    assert load(folder).card.name == "model"


def test_the_tiny_checkpoint_runs_and_never_generates_padding(tiny_folder: Path) -> None:
    model = load(tiny_folder, slots=1, precision="float32")
    source = model.tokenizer.prompt("How do I get to the station?", "en", "de").source
    options = DecodingOptions(max_new_tokens=40, min_new_tokens=40, temperature=100.0)

    outcome = run_alone(model.runner, Request(source, options))

    assert len(set(outcome.tokens)) > 30
    assert model.runner.config.pad not in outcome.tokens
