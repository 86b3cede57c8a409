"""Every family's network computes what transformers computes from the same files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import Arrival, DecodingOptions, Runner, UnsupportedModel
from model.building import build, default_precision, model_config
from model.checkpoint import Checkpoint, CheckpointError
from tests.model.networks import cached_logits
from tests.model.reference import (
    FAMILIES,
    logit_error,
    padded,
    random_sources,
    reference,
    reference_greedy,
    reference_logits,
    write,
)

EVERY_FAMILY = pytest.mark.parametrize("name", FAMILIES)
LENGTHS = (1, 2, 5, 9, 17, 30, 44, 63)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each family's checkpoint once, when it is first asked for."""
    parent = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        path = parent / name
        return path if path.exists() else write(name, path)

    return folder


@pytest.fixture
def copy(folders: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A family's checkpoint that may be changed."""
    return lambda name: Path(shutil.copytree(folders(name), tmp_path / name))


def change_config(folder: Path, *without: str, **values: Any) -> Path:
    path = folder / "config.json"
    published = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in published.items() if k not in without}))
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def greedy(folder: Path, sources: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Decode all sources in one run."""
    network = build(Checkpoint(folder))
    runner = Runner(network, rows=len(sources), max_target=max_new_tokens, latent_bytes=0)
    options = DecodingOptions(max_new_tokens=max_new_tokens)
    runner.admit([Arrival((row,), tuple(source), options) for row, source in enumerate(sources)])
    generated: list[list[int]] = [[] for _ in sources]
    running = list(range(len(sources)))
    while running:
        for row, step in zip(running, runner.launch(running).result(), strict=True):
            generated[row] += step.tokens
        running = [
            row
            for row in running
            if generated[row][-1] != network.config.eos and len(generated[row]) < max_new_tokens
        ]
    return generated


@EVERY_FAMILY
def test_logits_equal_the_references(name: str, folders: Callable[[str], Path]) -> None:
    assert logit_error(name, folders(name)) < 1e-4


@EVERY_FAMILY
def test_greedy_tokens_of_a_shared_run_equal_the_references(
    name: str, folders: Callable[[str], Path]
) -> None:
    model = reference(folders(name))
    sources = random_sources(79, LENGTHS)

    generated = greedy(folders(name), sources, 40)

    assert generated == reference_greedy(model, sources, 40)
    assert len({token for tokens in generated for token in tokens}) > 12, "too uniform to tell"


@EVERY_FAMILY
def test_logits_through_the_cache_equal_those_without(
    name: str, folders: Callable[[str], Path]
) -> None:
    network = build(Checkpoint(folders(name)))
    sources = random_sources(79, (3, 40, 64))
    target = torch.tensor(random_sources(79, (45,) * 3, seed=2))

    logits = cached_logits(network, [tuple(source) for source in sources], target)

    expected = network(*padded(sources, network.config.pad), target)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@EVERY_FAMILY
def test_cross_attention_on_request_equals_the_references(
    name: str, folders: Callable[[str], Path]
) -> None:
    network, model = build(Checkpoint(folders(name))), reference(folders(name))
    model.set_attn_implementation("eager")
    source, target = random_sources(79, (20, 9))
    tokens, targets = torch.tensor([source]), torch.tensor([target])
    attention: list[Tensor] = []
    memory = network.memory(network.encode(tokens, torch.tensor([20])), torch.tensor([20]))

    network.decode(targets, torch.arange(9)[None], memory, attention)

    with torch.inference_mode():
        theirs = model(input_ids=tokens, decoder_input_ids=targets, output_attentions=True)
    assert len(attention) == network.config.decoder_layers
    for ours, expected in zip(attention, theirs.cross_attentions, strict=True):
        assert ours.shape == (1, network.config.decoder_heads, 9, 20)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shares", "ties"),
    [
        ("marian", True, True),
        ("marian-separate", False, True),
        ("marian-untied", False, False),
        ("nllb", True, True),
        ("t5", True, True),
        ("flan-t5", True, False),
        ("mt5", True, True),
        ("byt5", True, False),
    ],
)
def test_equal_tables_are_one_in_memory(
    name: str, shares: bool, ties: bool, folders: Callable[[str], Path]
) -> None:
    network = build(Checkpoint(folders(name)))

    assert (network.source_embedding is network.embedding) == shares
    assert (network.output.weight is network.embedding.weight) == ties
    assert (network.config.shares_embedding, network.config.ties_output) == (shares, ties)


def test_the_checkpoints_exercise_shards_and_half_precision(
    folders: Callable[[str], Path],
) -> None:
    assert len(set(Checkpoint(folders("nllb")).shards.values())) > 5
    for name, dtype in (("mbart", torch.bfloat16), ("pegasus", torch.float16)):
        assert load_file(folders(name) / "model.safetensors")["model.shared.weight"].dtype == dtype


@pytest.mark.parametrize("name", ["mbart", "t5", "flan-t5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_keep_in_float32_what_the_reference_keeps(
    name: str, dtype: torch.dtype, folders: Callable[[str], Path]
) -> None:
    network = build(Checkpoint(folders(name)), dtype=dtype)
    model = reference(folders(name), dtype)
    stored = model.state_dict()
    kept = {name for name, weight in stored.items() if weight.dtype == torch.float32}
    sources = random_sources(79, (12, 30))
    targets = torch.tensor(random_sources(79, (20,) * 2, seed=2))

    logits = network(*padded(sources, network.config.pad), targets)

    assert {w.dtype for n, w in network.state_dict().items() if ".down." not in n} == {dtype}
    downs = {w.dtype for n, w in network.state_dict().items() if ".down." in n}
    assert downs == ({torch.float32} if kept else {dtype})
    expected = reference_logits(model, sources, targets).float()
    error, spread = (logits - expected).abs().mean(), expected.std()
    assert error < (0.1 if dtype == torch.bfloat16 else 0.02) * spread


@pytest.mark.parametrize("scales", [True, False, None])
@pytest.mark.parametrize("ties", [True, False, None])
@pytest.mark.parametrize("name", ["t5", "flan-t5", "mt5"])
def test_the_output_of_t5_is_scaled_where_the_reference_scales_it(
    name: str, ties: bool | None, scales: bool | None, copy: Callable[[str], Path]
) -> None:
    said = {"tie_word_embeddings": ties, "scale_decoder_outputs": scales}
    values = {key: value for key, value in said.items() if value is not None}
    folder = change_config(copy(name), *(said.keys() - values.keys()), **values)

    assert logit_error(name, folder) < 1e-4


def rename(old: str, *new: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensor = tensors.pop(old)
        tensors.update({name: tensor.clone() for name in new})

    return change


SHARED = "model.shared.weight"
T5_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
SOURCE, TARGET = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("bart", SHARED, (SOURCE,)),
        ("bart", SHARED, (TARGET,)),
        ("bart", SHARED, ("lm_head.weight",)),
        ("bart", SHARED, (SHARED, SOURCE, TARGET, "lm_head.weight")),
        ("marian-separate", TARGET, (TARGET, "lm_head.weight")),
        ("t5", "shared.weight", ("encoder.embed_tokens.weight",)),
        ("t5", "shared.weight", ("decoder.embed_tokens.weight", "lm_head.weight")),
        ("t5", "shared.weight", ("shared.weight", "encoder.embed_tokens.weight")),
        ("madlad", "shared.weight", ("decoder.embed_tokens.weight",)),
        ("madlad", "shared.weight", ("encoder.embed_tokens.weight", "shared.weight")),
    ],
)
def test_every_spelling_of_the_tables_is_read(
    name: str, old: str, new: tuple[str, ...], copy: Callable[[str], Path]
) -> None:
    folder = change_tensors(copy(name), rename(old, *new))

    assert logit_error(name, folder) < 1e-4


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("bart", SHARED, (SHARED, TARGET, "lm_head.weight")),
        ("bart", SHARED, (SHARED, TARGET)),
        ("bart", SHARED, (TARGET, SOURCE)),
        ("marian", SHARED, (SHARED, TARGET, "lm_head.weight")),
        ("marian", SHARED, (SHARED, SOURCE)),
        ("marian-separate", TARGET, (TARGET, "lm_head.weight")),
        ("t5", "shared.weight", ("shared.weight", *T5_TABLES)),
        ("t5", "shared.weight", T5_TABLES[:2]),
        ("t5", "shared.weight", ("shared.weight", T5_TABLES[1])),
    ],
)
def test_different_tables_stay_apart_although_the_config_ties_them(
    name: str, old: str, new: tuple[str, ...], copy: Callable[[str], Path]
) -> None:
    def split(tensors: dict[str, Tensor]) -> None:
        table = tensors.pop(old)
        tensors.update({name: table.roll(step, 0) for step, name in enumerate(new)})

    folder = change_tensors(copy(name), split)

    assert logit_error(name, folder) < 1e-4
    config = build(Checkpoint(folder)).config
    assert not (config.shares_embedding and config.ties_output)


def test_padding_tokens_within_a_source_are_placed_as_by_the_reference(
    folders: Callable[[str], Path],
) -> None:
    network, model = build(Checkpoint(folders("m2m100"))), reference(folders("m2m100"))
    source = torch.tensor([[7, 9, 1, 11, 1, 1, 30, 2]])

    latents = network.encode(source, torch.tensor([8]))

    with torch.inference_mode():
        expected = model.model.encoder(source, attention_mask=torch.ones(1, 8).long())
    torch.testing.assert_close(latents, expected.last_hidden_state, rtol=0, atol=1e-5)


def test_a_bias_that_the_file_lacks_is_zero(copy: Callable[[str], Path]) -> None:
    folder = change_tensors(copy("bart"), lambda tensors: tensors.pop("final_logits_bias"))

    assert logit_error("bart", folder) < 1e-4


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "silu", "swish"])
@pytest.mark.parametrize("gate", ["", "gated-"])
def test_every_activation_of_t5_equals_the_references(
    gate: str, activation: str, copy: Callable[[str], Path]
) -> None:
    folder = copy("madlad" if gate else "t5")
    change_config(folder, "dense_act_fn", "is_gated_act", feed_forward_proj=gate + activation)

    assert logit_error("t5", folder) < 1e-4


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("m2m100", {"model_type": "nllb-moe"}, "model_type 'nllb-moe' is not supported"),
        ("bart", {"activation_function": "tanh"}, "activation 'tanh' is not supported"),
        ("bart", {"normalize_before": True}, "normalize_before True is not supported"),
        ("bart", {"extra_pos_embeddings": 1}, "extra_pos_embeddings 1 is not supported"),
        ("mbart", {"normalize_before": False}, "normalize_before False is not supported"),
        ("pegasus", {"static_position_embeddings": False}, "static_position_embeddings False"),
        ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj 'gated-tanh'"),
        ("t5", {"feed_forward_proj": "linear-relu"}, "feed_forward_proj 'linear-relu'"),
        ("t5", {"relative_attention_num_buckets": 2}, "2 buckets of relative positions"),
        ("t5", {"relative_attention_max_distance": 8}, "for distances up to 8"),
        ("t5", {"d_kv": 0}, "own_head_width is 0, not a positive integer"),
    ],
)
def test_what_is_not_computed_exactly_is_refused_by_name(
    name: str, values: dict[str, Any], words: str, copy: Callable[[str], Path]
) -> None:
    folder = change_config(copy(name), **values)

    with pytest.raises(UnsupportedModel) as refusal:
        model_config(Checkpoint(folder))

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["bart", "mbart", "pegasus"])
def test_names_of_the_bare_network_are_read(name: str, copy: Callable[[str], Path]) -> None:
    """facebook/bart-large is one, and fairseq's version is in files of BART."""
    folder = copy(name)
    expected = build(Checkpoint(folder)).state_dict()

    def strip(tensors: dict[str, Tensor]) -> None:
        for full in [*tensors]:
            tensors[full.removeprefix("model.")] = tensors.pop(full)
        tensors["encoder.version"] = torch.tensor([3.0])

    change_tensors(folder, strip)
    found = build(Checkpoint(folder)).state_dict()

    assert all(torch.equal(found[ours], tensor) for ours, tensor in expected.items())


def test_absurdly_many_layers_are_refused_at_once(copy: Callable[[str], Path]) -> None:
    folder = change_config(copy("bart"), encoder_layers=10**8)
    with pytest.raises(UnsupportedModel, match="100000000 layers are more than"):
        model_config(Checkpoint(folder))


def test_an_output_that_is_not_tied_must_be_there(copy: Callable[[str], Path]) -> None:
    folder = change_config(copy("bart"), tie_word_embeddings=False)

    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        build(Checkpoint(folder))


def test_the_default_precision_of_an_accelerator_keeps_activations_in_range(
    folders: Callable[[str], Path],
) -> None:
    configs = {name: model_config(Checkpoint(folders(name))) for name in FAMILIES}
    chosen = {name: default_precision("meta", c) for name, c in configs.items()}

    careful = {name for name, precision in chosen.items() if precision == "bfloat16"}
    assert careful == {"pegasus", "t5", "flan-t5", "mt5", "madlad", "byt5"}
    assert set(chosen.values()) == {"bfloat16", "float16"}
