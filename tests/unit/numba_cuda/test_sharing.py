"""numba_cuda and cupy in one process: one stream, the same memory, one recording, here on the CPU."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda.on_cpu.machine import Cpu
from backends.numba_cuda._compiled import SIMULATED
from harness.device import Recorder, Stream, shared, stream
from harness.errors import ConfigError, PluginError
from harness.plugins import loading as plugins
from tests.unit.cupy_cuda.fake_cupy import fake_cupy

simulated = pytest.mark.skipif(not SIMULATED, reason="held against the simulator, not a GPU")
DTYPES = [np.float32, np.int32, ml_dtypes.bfloat16]


@pytest.fixture
def opened(monkeypatch):
    """No device is open yet."""
    monkeypatch.setattr(stream, "_opened", {})


@pytest.fixture
def both():
    """cupy's machine and numba_cuda's, on one stream, and that stream."""
    from backends.numba_cuda.simulator.machine import Simulator

    recorder = Recorder()
    return Cpu(recorder), Simulator(recorder), recorder


# -- the stream -------------------------------------------------------------------------------


def test_the_first_backend_of_a_device_makes_its_stream_and_the_others_take_it(opened):
    made = []

    def make():
        made.append(Stream(0x57))
        return made[-1]

    first = shared("cuda", "cupy", "A", Stream, make)
    second = shared("cuda", "numba_cuda", "B", Stream, make)
    assert second is first and len(made) == 1
    assert shared("another", "numba_cuda", "B", Stream, make) is not first
    assert first.__cuda_stream__() == (0, 0x57)


@pytest.mark.parametrize("first", [Stream, Recorder])
def test_a_stand_in_beside_a_device_is_refused_whichever_is_first(opened, first):
    make = {Stream: lambda: Stream(0x57), Recorder: Recorder}
    second = Recorder if first is Stream else Stream
    shared("cuda", "cupy", "HARNESS_CUDA_ON_CPU", first, make[first])
    with pytest.raises(ConfigError) as refused:
        shared("cuda", "numba_cuda", "NUMBA_ENABLE_CUDASIM", second, make[second])
    assert refused.value.slug == "stand-in-beside-a-device"
    assert f"'cupy' computes {first.where}, and 'numba_cuda' {second.where}" in (
        refused.value.headline
    )
    assert "HARNESS_CUDA_ON_CPU=1 and NUMBA_ENABLE_CUDASIM=1" in refused.value.facts["do"]


# -- memory -----------------------------------------------------------------------------------


@simulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("owner", [0, 1], ids=["of cupy", "of numba_cuda"])
def test_an_array_of_one_is_the_same_memory_in_the_other(both, owner, dtype):
    home, guest = both[owner], both[1 - owner]
    there = home.view(home.empty(1024), 128, (2, 3), dtype)
    seen = guest.adapt(there)
    assert seen.shape == (2, 3)
    values, found = np.arange(6).reshape(2, 3).astype(dtype), np.zeros((2, 3), dtype)
    guest.from_host(seen, values)
    home.to_host(found, there)
    np.testing.assert_array_equal(found, values)
    again = home.adapt(seen)
    assert again.shape == there.shape and again.dtype == there.dtype
    home.from_host(again, np.zeros_like(values))
    guest.to_host(found, seen)
    assert not found.any()
    assert home.adapt(there) is there


@simulated
@pytest.mark.parametrize("owner", [0, 1], ids=["of cupy", "of numba_cuda"])
def test_scratch_that_one_lends_is_seen_in_part_by_the_other(both, owner):
    home, guest = both[owner], both[1 - owner]
    lent = home.view(home.empty(256), 128, (64,), np.uint8)
    part = guest.view(guest.adapt(lent), 16, (2,), np.float32)
    home.zero(lent)
    guest.from_host(part, np.ones(2, np.float32))
    found = np.zeros(64, np.uint8)
    home.to_host(found, lent)
    assert found.view(np.float32).tolist() == [0] * 4 + [1, 1] + [0] * 10
    again = np.zeros(2, np.float32)
    home.to_host(again, home.view(lent, 16, (2,), np.float32))
    assert again.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cupy_takes_an_array_of_numbas_where_it_lies(dtype):
    from backends.cupy_cuda._gpu import Gpu

    gpu = Gpu(fake_cupy())
    values = np.arange(6).reshape(2, 3).astype(dtype)
    bits = values.view(np.uint16) if dtype == ml_dtypes.bfloat16 else values
    numbas = SimpleNamespace(
        shape=bits.shape,
        dtype=bits.dtype,
        size=6,
        __cuda_array_interface__={"data": (bits.ctypes.data, False)},
    )
    found = gpu.adapt(numbas)
    assert (found.shape, found.dtype) == ((2, 3), np.dtype(dtype))
    assert found.data.ptr == bits.ctypes.data and found.data.memory.owner is numbas
    assert gpu.adapt(found) is found
    part = gpu.view(numbas, 4, (1,), np.dtype(dtype))
    assert part.data.ptr == bits.ctypes.data + 4


# -- recordings -------------------------------------------------------------------------------


@simulated
@pytest.mark.parametrize("owner", [0, 1], ids=["cupy captures", "numba_cuda captures"])
def test_what_either_launches_in_a_capture_is_done_when_it_is_replayed(both, owner):
    home, guest = both[owner], both[1 - owner]
    done = []
    calls = [lambda: guest.call(lambda: done.append("guest")), lambda: home.call(done.clear)]
    replay = home.capture([*calls, calls[0]])
    assert done == []
    replay()
    assert done == ["guest"]
    guest.call(lambda: done.append("after"))
    assert done == ["guest", "after"]


@simulated
@pytest.mark.parametrize("owner", [0, 1], ids=["cupy captures", "numba_cuda captures"])
def test_what_a_graph_cannot_hold_is_refused_in_the_others_capture_too(both, owner):
    home, guest = both[owner], both[1 - owner]
    there = guest.view(guest.empty(8), 0, (2,), np.float32)
    host = np.zeros(2, np.float32)
    for call in (
        lambda: guest.empty(8),
        lambda: guest.from_host(there, host),
        lambda: guest.to_host(host, there),
        lambda: guest.begin_read(there),
        guest.synchronize,
    ):
        with pytest.raises(RuntimeError, match="while a graph is captured: CUDA refuses that"):
            home.capture([call])
    guest.synchronize()


def test_a_capture_that_is_broken_leaves_the_stream_as_it_was():
    recorder, done = Recorder(), []
    with pytest.raises(ZeroDivisionError):
        recorder.capture([lambda: recorder.call(done.clear), lambda: 1 / 0])
    recorder.call(lambda: done.append(1))
    assert done == [1] and not recorder.capturing


# -- files without a device of their own --------------------------------------------------------


FILE = """
from harness import hookimpl
device, arrays = {device!r}, {arrays!r}

@hookimpl
def gelu_forward(out_NF, x_NF): pass
"""


@pytest.mark.parametrize(("arrays", "owner"), [("numba", "numba_cuda"), ("cupy", "cupy")])
def test_a_file_with_one_kernel_is_on_the_device_of_the_backend_with_its_arrays(
    tmp_path, arrays, owner
):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(device="cuda", arrays=arrays))
    ops = plugins.all_ops()
    mine, its = plugins.load(str(path), ops), plugins.load(owner, ops)
    assert mine.open_device().empty is its.functions["empty"]
    assert mine._owner.functions["adapt"] is its.functions["adapt"]


@pytest.mark.parametrize(("device", "arrays"), [("cuda", "numpy"), ("tpu", "numba")])
def test_a_file_that_nobody_has_a_device_for_is_told_what_it_lacks(tmp_path, device, arrays):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(device=device, arrays=arrays))
    mine = plugins.load(str(path), plugins.all_ops())
    with pytest.raises(PluginError) as refused:
        mine.open_device()
    assert refused.value.slug == "device-incomplete"
