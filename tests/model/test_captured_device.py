"""What a device is given, and in which order, as far as that can be known without one."""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from model import DecodingOptions, Runner
from model.captured import device, machine
from model.captured.device import Cuda, Host, Mark
from model.captured.graph import TapeGraph, _Recorder
from model.captured.network import product_float32
from model.layers import attend, attend_fused
from model.transformer import readable_bias
from tests.model.captured_runners import CapturedRunner, assert_alike, begin, random_runs
from tests.model.driver import run_together
from tests.model.networks import tiny_network


class _Copies:
    """Copies made when they are waited for, and not before."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self._pairs = pairs

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        for source, target in self._pairs:
            target.copy_(source)


class LateHost(Host):
    """A device whose copies to the host are as late as they may be: at the last one's mark."""

    def __init__(self) -> None:
        self._before: list[tuple[Tensor, Tensor]] = []

    def download(self, source: Tensor, target: Tensor) -> Mark:
        self._before.append((source, target))
        if source.dim() == 3:  # candidates, which are not waited for by themselves
            return _Copies([])
        pairs, self._before = self._before, []
        return _Copies(pairs)


@pytest.mark.parametrize("late", [0, 1, 2])
def test_results_wait_unharmed_until_the_host_reads_them(
    monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    network = tiny_network()
    requests = random_runs(random.Random(7), 12)
    eager = Runner(network, rows=14, max_target=40, latent_bytes=0)
    expected = run_together(eager, requests, random.Random(1))
    monkeypatch.setattr(machine, "Host", LateHost)

    found = run_together(CapturedRunner(network, 14, most=6, late=late), requests, random.Random(1))

    assert_alike(found, expected)


class FakeCuda:
    """Streams that note what waits for what; graphs are tapes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str, str]] = []
        self.at = [_Stream(self, "default")]
        names = iter(("decode", "encode", "copy"))
        for name, value in {
            "Stream": lambda priority: _Stream(self, next(names), priority),
            "Event": _Event,
            "CUDAGraph": _Graph,
            "current_stream": lambda: self.at[-1],
            "device": lambda wanted: nullcontext(),
            "graph": self.graph,
            "graph_pool_handle": lambda: "pool",
            "stream": self.stream,
            "synchronize": lambda wanted=None: self.log.append(("host", "waits", "all")),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(machine, "Host", lambda: Cuda(torch.device("cpu")))
        monkeypatch.setattr(Cuda, "pinned", Host.pinned)

    @contextmanager
    def stream(self, stream: "_Stream") -> Iterator[None]:
        self.at.append(stream)
        yield
        self.at.pop()

    @contextmanager
    def graph(
        self, graph: "_Graph", *, pool: str, stream: "_Stream", capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert (pool, stream.name, self.at[-1].name) == ("pool", "decode", "decode")
        with _Recorder() as recorder:
            yield
        graph.calls = recorder.calls


class _Stream:
    def __init__(self, cuda: FakeCuda, name: str, priority: int = 0) -> None:
        self.cuda, self.name, self.priority = cuda, name, priority

    def record_event(self) -> "_Event":
        return _Event(self)

    def wait_event(self, event: "_Event") -> None:
        self.cuda.log.append((self.name, "waits", event.stream.name))

    def wait_stream(self, other: "_Stream") -> None:
        self.cuda.log.append((self.name, "waits", other.name))


class _Event:
    def __init__(self, stream: _Stream) -> None:
        self.stream = stream

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        self.stream.cuda.log.append(("host", "waits", self.stream.name))


class _Graph(TapeGraph):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def replay(self) -> None:
        for call in self.calls:
            call.replay()


def test_a_gpus_streams_order_encoder_decode_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network()
    options = DecodingOptions(max_new_tokens=3, min_new_tokens=3)
    expected = CapturedRunner(network, 2)
    begin(expected, [(5, 6, 0)], options)
    fake = FakeCuda(monkeypatch)
    subject = CapturedRunner(network, 2)
    assert {("host", "waits", "all")} == set(fake.log)
    fake.log.clear()

    begin(subject, [(5, 6, 0)], options)
    # The encoder, then the projection: each after what decodes, and before what its caller does.
    assert fake.log == [("encode", "waits", "decode"), ("default", "waits", "encode")] * 2
    fake.log.clear()
    found = super(CapturedRunner, subject).launch([0], 3).result()

    assert found == super(CapturedRunner, expected).launch([0], 3).result()
    step, read = ("copy", "waits", "decode"), ("host", "waits", "copy")
    said = ("host", "waits", "decode")  # that earlier words of rows have been heard
    assert fake.log == [("decode", "waits", "encode"), said, step, step, read, step, read, read]


def test_capturing_keeps_the_collector_off_and_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeCuda(monkeypatch)
    seen = []
    Cuda(torch.device("cpu")).capture([lambda: seen.append(gc.isenabled())])
    assert seen == [False] * (device.WARM_UPS + 1)
    assert gc.isenabled()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_are_not_rounded_to_the_precision_of_the_product(precision: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(2, 8, 64, generator=generator).to(precision)
    found = product_float32(hidden, weight)
    assert torch.equal(found, hidden.float() @ weight.float().t())
    elsewhere = product_float32(hidden.to("meta"), weight.to("meta"))  # by the devices' own form
    assert (elsewhere.dtype, elsewhere.shape) == (torch.float32, (8, 8))


@pytest.mark.parametrize("is_scaled", [True, False])
def test_attention_in_one_kernel_mixes_what_the_matmul_form_does(is_scaled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = torch.randn(3, 2, 4, 9, 16, generator=generator)
    bias = readable_bias(torch.tensor([9, 4]), 9, torch.float32)
    expected = attend(query, keys, values, bias, is_scaled=is_scaled)
    found = attend_fused(query, keys, values, bias, is_scaled=is_scaled)
    assert torch.allclose(found, expected, atol=1e-6)
