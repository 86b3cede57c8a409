"""Stage served: OPUS-MT's dimensions behind `stele serve`, and CTranslate2 called directly."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.bare import is_installed
from benchmarks.gpu.context import Context
from benchmarks.gpu.names import OPUS
from benchmarks.gpu.records import Skipped

_NEEDED = (
    *("cachetools", "fastapi", "h11", "huggingface_hub", "langcodes", "prometheus_client"),
    *("py3langid", "pydantic", "pydantic_settings", "python_multipart", "rich", "safetensors"),
    *("sentencepiece", "sentencex", "starlette", "tokenizers", "typer", "uvicorn"),
)
_LONGEST = 32  # tokens of a target; random weights never end one before


def run(context: Context) -> None:
    """Saturate the server with a closed loop of clients, in single texts.

    Raises:
        Skipped: what the server needs is not installed.
    """
    if missing := [name for name in _NEEDED if not is_installed(name)]:
        raise Skipped(f"the server needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as name:
        checkpoint = _checkpoint(context, Path(name))
        served = _served(context, checkpoint)
        try:
            direct = _ctranslate2(context, checkpoint, Path(name))
        except Skipped as reason:
            context.records.add(
                "served / CTranslate2", None, model=OPUS, rows=64, reason=str(reason)
            )
            return
    context.records.add(
        "served / CTranslate2",
        served / direct,
        model=OPUS,
        rows=64,
        served_tokens_per_s=served,
        ctranslate2_tokens_per_s=direct,
    )


def _checkpoint(context: Context, folder: Path) -> Path:
    """Return OPUS-MT's dimensions with random weights; in toy size, the bundled model."""
    from benchmarks.checkpoints import write_marian_base
    from model import BUNDLED

    if context.is_tiny:
        return BUNDLED
    write_marian_base(folder / "base")
    return folder / "base"


def _texts() -> list[str]:
    from benchmarks.texts import mixture, sentences

    return mixture(sentences(), 256, seed=11)


def _served(context: Context, checkpoint: Path) -> float:
    """Record tokens per second over HTTP, and return them."""
    from benchmarks import servers
    from benchmarks.load import Job, send

    clients, warm_s, seconds = context.pick((64, 3.0, 12.0), (4, 0.2, 0.5))
    fields = {"source": "en", "target": "de", "max_new_tokens": _LONGEST}
    bodies = [json.dumps({"q": text, **fields}) for text in _texts()]
    asking = [json.dumps({"q": text, **fields, "details": True}) for text in _texts()[:8]]
    flags: dict[str, str | int] = {"device": str(context.device), "latent_cache_bytes": 0}
    with servers.stele(checkpoint, **flags).wait(context.pick(60.0, 30.0)) as server:
        told = send(Job(port=server.port, bodies=asking, requests=8, keeps=8))
        outcome = send(
            Job(port=server.port, bodies=bodies, clients=clients, warm_s=warm_s, seconds=seconds)
        )
    if told.failed or outcome.failed or not outcome.latencies:
        raise RuntimeError(f"requests failed: {told.statuses | outcome.statuses}")
    rate = outcome.per_s * _tokens(told.answers.values())
    ordered = sorted(outcome.latencies)
    context.records.add(
        "served",
        ordered[len(ordered) // 2] * 1e3,
        "ms",
        model=OPUS,
        rows=clients,
        case="median latency",
        tokens_per_s=rate,
        requests_per_s=outcome.per_s,
        p99_ms=ordered[int(0.99 * len(ordered))] * 1e3,
        client_cpu_share=outcome.cpu_share,
    )
    return rate


def _tokens(answers: Iterable[str]) -> float:
    """Return how many tokens a target has, the mean; random weights make all equally long."""
    usage = [json.loads(answer)["details"]["usage"]["targetTokens"] for answer in answers]
    return float(statistics.mean(usage))


def _ctranslate2(context: Context, checkpoint: Path, folder: Path) -> float:
    """Record CTranslate2's tokens per second in calls of 64 texts, which no HTTP slows down.

    Raises:
        Skipped: it is not there, or sees no GPU.
    """
    if not (is_installed("ctranslate2") and is_installed("transformers")):
        raise Skipped("ctranslate2, or transformers for its converter, is not installed")
    import ctranslate2
    import sentencepiece

    if not ctranslate2.get_cuda_device_count():
        raise Skipped("CTranslate2 sees no GPU")
    from benchmarks.checkpoints import convert_for_ctranslate2

    convert_for_ctranslate2(checkpoint, folder / "ct2", None)
    device: dict[str, Any] = {"device": "cuda", "compute_type": "float16"}
    translator = ctranslate2.Translator(str(folder / "ct2"), **device)
    spm = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "source.spm"))
    pieces = [[">>de<<", *spm.encode(text, out_type=str), "</s>"] for text in _texts()]
    _translate(translator, pieces)
    until, tokens, began = time.monotonic() + 8, 0, time.perf_counter()
    while time.monotonic() < until:
        tokens += _translate(translator, pieces)
    rate = tokens / (time.perf_counter() - began)
    context.records.add("CTranslate2 directly", rate, "tokens/s", model=OPUS, rows=64)
    return rate


def _translate(translator: Any, pieces: Sequence[list[str]]) -> int:
    """Translate in batches of 64; returns how many tokens came."""
    found = translator.translate_batch(
        pieces, beam_size=1, max_decoding_length=_LONGEST, max_batch_size=64
    )
    return sum(len(each.hypotheses[0]) for each in found)
