"""`python -m benchmarks.size`: load time, memory and speed at NLLB-600M's dimensions, as a table.

The checkpoint is random, float16, and written to a temporary folder (1.2 GB). Each precision is
measured in a process of its own, so that peaks of memory are its own. Linux only.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from model import Arrival, DecodingOptions, Precision, Runner
from model.backends import cpu
from model.building import build
from model.checkpoint import Checkpoint
from model.native import network as native_network
from model.runner import Network

SOURCE_TOKENS = 30


def config(width: int, layers: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    """Return the config.json of a dense NLLB-200."""
    return {
        "model_type": "m2m_100",
        "architectures": ["M2M100ForConditionalGeneration"],
        "activation_function": "relu",
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_ffn_dim": hidden,
        "decoder_ffn_dim": hidden,
        "encoder_attention_heads": width // 64,
        "decoder_attention_heads": width // 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": 1024,
        "scale_embedding": True,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }


def weights(published: dict[str, Any]) -> dict[str, Tensor]:
    """Return random float16 tensors by the names that M2M100's checkpoints use."""
    torch.manual_seed(0)
    width, tensors = published["d_model"], {}

    def add(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = (torch.randn(shape) * shape[-1] ** -0.5).half()

    def add_layer(name: str, out: int, width: int) -> None:
        add(name, out, width)
        tensors[f"{name}.bias"] = torch.zeros(out).half()

    def add_norm(name: str) -> None:
        tensors[f"{name}.weight"] = torch.ones(width).half()
        tensors[f"{name}.bias"] = torch.zeros(width).half()

    add("model.shared", published["vocab_size"], width)
    for stack, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        add_norm(f"model.{stack}.layer_norm")
        for index in range(published[f"{stack}_layers"]):
            layer, hidden = f"model.{stack}.layers.{index}", published[f"{stack}_ffn_dim"]
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    add_layer(f"{layer}.{attention}.{part}", width, width)
                add_norm(f"{layer}.{attention}_layer_norm")
            add_layer(f"{layer}.fc1", hidden, width)
            add_layer(f"{layer}.fc2", width, hidden)
            add_norm(f"{layer}.final_layer_norm")
    return tensors


def resident_mb() -> float:
    """Return the memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tokens_per_s(runner: Runner, rows: int, tokens: int) -> tuple[float, float]:
    """Return the seconds to admit `rows` new sources, and tokens per second of decoding them."""
    options = DecodingOptions(max_new_tokens=tokens)
    sources = [(*range(10 + row, 9 + row + SOURCE_TOKENS), 2) for row in range(rows)]
    began = time.perf_counter()
    runner.admit([Arrival((row,), source, options) for row, source in enumerate(sources)])
    admitted = time.perf_counter()
    for _ in range(tokens):
        runner.launch(range(rows)).result()
    decoded = time.perf_counter() - admitted
    runner.release(range(rows))
    return admitted - began, rows * tokens / decoded


def measure(folder: Path, precision: Precision, tokens: int, turns: int) -> dict[str, float]:
    """Load the checkpoint as `model.load` does, without its tokenizer, and run it."""
    before = resident_mb()
    began = time.perf_counter()
    dtype = torch.float32 if precision == "int8" else getattr(torch, precision)
    built = build(Checkpoint(folder), dtype=dtype)
    network: Network = built
    if precision == "int8" and native_network.runs(built.config):
        network = native_network.NativeNetwork(built, torch.get_num_threads())
    elif precision == "int8":
        cpu.quantise(built)
    del built
    cpu.return_freed_memory()
    runner = Runner(network, rows=8, max_target=200, latent_bytes=0, end_is_forbidden=True)
    figures = {"load_s": time.perf_counter() - began, "held_mb": resident_mb() - before}
    tokens_per_s(runner, 1, 2)  # warm up
    for rows in (1, 8):
        runs = [tokens_per_s(runner, rows, tokens) for _ in range(turns)]
        figures[f"encode_{rows}_ms"] = statistics.median(run[0] for run in runs) * 1000
        figures[f"tokens_per_s_{rows}"] = statistics.median(run[1] for run in runs)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return figures


def measure_apart(folder: Path, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """Run `measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.size", "--folder", str(folder)]
    command += ["--precisions", precision, "--tokens", str(options.tokens)]
    command += ["--turns", str(options.turns), "--threads", str(options.threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Write the checkpoint, measure each precision and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12, help="of encoder and decoder each")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=256_206)
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "bfloat16", "int8"],
        choices=get_args(Precision),
    )
    parser.add_argument("--tokens", type=int, default=32, help="decoded in each row")
    parser.add_argument("--turns", type=int, default=3, help="medians are taken over them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="measure this checkpoint, print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.folder:
        precision = options.precisions[0]
        print(json.dumps(measure(options.folder, precision, options.tokens, options.turns)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published = config(options.width, options.layers, options.hidden, options.vocabulary)
        (folder / "config.json").write_text(json.dumps(published))
        tensors = weights(published)
        count = sum(tensor.numel() for tensor in tensors.values())
        save_file(tensors, folder / "model.safetensors")
        del tensors
        print_table(count, {p: measure_apart(folder, p, options) for p in options.precisions})


def print_table(parameters: int, results: dict[str, dict[str, float]]) -> None:
    """Print a row for each precision."""
    heads = [
        "load, s",
        "held, MB",
        "peak, MB",
        "tokens/s, 1 row",
        "8 rows",
        "encode 1, ms",
        "8, ms",
    ]
    print(  # noqa: T201 - the command's output
        f"{parameters / 1e6:.0f} M parameters\n\n| precision | {' | '.join(heads)} |\n"
        f"|---|{'--:|' * len(heads)}"
    )
    names = ["load_s", "held_mb", "peak_mb"]
    names += ["tokens_per_s_1", "tokens_per_s_8", "encode_1_ms", "encode_8_ms"]
    for precision, figures in results.items():
        print(f"| {precision} | {' | '.join(f'{figures[n]:.1f}' for n in names)} |")  # noqa: T201


if __name__ == "__main__":
    main()
