"""Stage encoder: how an encoder beside it delays a running decode, by stream and by chunk."""

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch

from benchmarks.gpu import limits, protocols
from benchmarks.gpu.context import Context
from benchmarks.gpu.decoders import Decoder, Load
from benchmarks.gpu.machines import device_of
from benchmarks.gpu.names import BART
from benchmarks.gpu.timing import event, median_s, quantile, spin
from model.captured.device import Device
from model.captured.encoder import encode

_SOURCE = 350
_CHUNKS = (8192, 2048, 4096)  # tokens encoded at once


def run(context: Context) -> None:
    """Record the encoder alone, the decode alone, and both on one stream and on two."""
    spin(context.device)
    rows, source = context.pick((64, _SOURCE), (4, 8))
    target, window = context.pick((180, 300), (12, 16))
    decoder = Decoder(context, BART, (rows,), Load((source,), target), window)
    decoder.capture(rows)
    alone = _steps(context, decoder, rows, None, nullcontext)
    _record(context, alone, rows, "alone")
    device = device_of(context)
    for tokens in context.pick(_CHUNKS, (16,)):
        if not context.has_time(5 if context.is_gpu else 0.5):
            return
        encoder = _encoder(context, decoder, tokens, source)
        _encode_alone(context, encoder, tokens, source)
        on_one = _steps(context, decoder, rows, encoder, decoder.decoding)
        _record(context, on_one, rows, f"{tokens} tokens on the same stream")
        beside = _steps(context, decoder, rows, encoder, lambda: _beside(context, device))
        _record(context, beside, rows, f"{tokens} tokens beside")


def _record(context: Context, gaps: list[float], rows: int, case: str) -> None:
    context.records.add(
        "step beside the encoder",
        quantile(gaps, 0.99) * 1e3,
        "ms p99",
        model=BART,
        rows=rows,
        case=case,
        median_ms=statistics.median(gaps) * 1e3,
        longest_ms=max(gaps) * 1e3,
    )


def _encoder(context: Context, decoder: Decoder, tokens: int, source: int) -> Callable[[], object]:
    sources = protocols.sources([source] * max(tokens // source, 1), 500)
    return lambda: encode(decoder.network, sources, tokens, context.device)


def _encode_alone(
    context: Context, encoder: Callable[[], object], tokens: int, source: int
) -> None:
    seconds = median_s(encoder, context.device)
    count = max(tokens // source, 1)
    limit = limits.encoder_s(context.config(BART), [source] * count)
    case = f"{tokens} tokens"
    context.records.add(
        "encoder", seconds * 1e3, "ms", model=BART, rows=count, case=case, share=limit / seconds
    )


def _beside(context: Context, device: Device) -> AbstractContextManager[object]:
    """Give what follows to a stream without priority, which waits for nothing that decodes."""
    if not context.is_gpu:
        return device.encoding()
    return torch.cuda.stream(torch.cuda.Stream(priority=0))  # type: ignore[no-untyped-call]


def _steps(
    context: Context,
    decoder: Decoder,
    rows: int,
    encoder: Callable[[], object] | None,
    where: Callable[[], AbstractContextManager[object]],
) -> list[float]:
    """Return the seconds between steps while another thread encodes without a pause."""
    stop = threading.Event()

    def encode_on() -> None:
        with torch.inference_mode(), where():
            while encoder is not None and not stop.is_set():
                encoder()
                if context.is_gpu:  # no more than one ahead
                    torch.cuda.current_stream().synchronize()

    thread = threading.Thread(target=encode_on)
    with decoder.decoding():
        decoder.begin(rows)
        thread.start()
        try:
            return _gaps(context, decoder.replay(rows), decoder.window)
        finally:
            stop.set()
            thread.join()


def _gaps(context: Context, replay: Callable[[], None], count: int) -> list[float]:
    """Replay; the host runs one step ahead, as a machine does."""
    if not context.is_gpu:
        moments = [time.perf_counter()]
        for _ in range(count):
            replay()
            moments.append(time.perf_counter())
        return [after - before for before, after in pairwise(moments)]
    events = [event() for _ in range(count + 1)]
    events[0].record()
    for number in range(1, count + 1):
        replay()
        events[number].record()
        events[number - 1].synchronize()
    events[-1].synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in pairwise(events)]
