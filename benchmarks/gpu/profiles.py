"""Stage profile: which kernels a replayed step runs, how many, and which take longest."""

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.context import Context
from benchmarks.gpu.decoders import Decoder, Load
from benchmarks.gpu.names import BART, NLLB, OPUS, T5
from benchmarks.gpu.timing import synchronise

_REPLAYS, _TOLD = 5, 12
CASES = (
    (OPUS, 64, Load((30,), 16)),
    (BART, 128, Load((350,), 64)),
    (NLLB, 64, Load((40,), 20)),
    (T5, 64, Load((200,), 50)),
)
_TINY = ((OPUS, 4, Load((7,), 6)),)


def run(context: Context) -> None:
    """Count what every step launches: copies, fills and casts that nobody wrote show up here."""
    for model, rows, load in context.pick(CASES, _TINY):
        if not context.has_time(4):
            return
        decoder = Decoder(context, model, (rows,), load)
        decoder.capture(rows)
        found = _kernels(context, decoder, rows)
        count = sum(times for times, _ in found.values()) / _REPLAYS
        context.records.add("kernels in a step", count, model=model, rows=rows)
        whole = sum(seconds for _, seconds in found.values())
        longest = sorted(found.items(), key=lambda item: -item[1][1])[:_TOLD]
        for place, (name, (times, seconds)) in enumerate(longest, 1):
            context.records.add(
                "kernel",
                seconds / _REPLAYS * 1e6,
                "us",
                model=model,
                rows=rows,
                case=f"{place}",
                name=name[:120],
                launches=times / _REPLAYS,
                share_of_step=seconds / whole if whole else None,
            )


def _kernels(context: Context, decoder: Decoder, rows: int) -> dict[str, tuple[int, float]]:
    """Return by kernel how often it ran and its seconds; on a CPU, operators instead."""
    wanted = ProfilerActivity.CUDA if context.is_gpu else ProfilerActivity.CPU
    with decoder.decoding():
        decoder.begin(rows)
        replay = decoder.replay(rows)
        synchronise(context.device)
        with profile(activities=[wanted]) as profiled:
            for _ in range(_REPLAYS):
                replay()
            synchronise(context.device)
    found: dict[str, tuple[int, float]] = {}
    kind = DeviceType.CUDA if context.is_gpu else DeviceType.CPU
    for event in profiled.key_averages():
        if event.device_type == kind and not event.key.startswith("cuda"):
            microseconds = (
                event.self_device_time_total if context.is_gpu else event.self_cpu_time_total
            )
            found[event.key] = (event.count, microseconds / 1e6)
    return found
