"""cuDNN's attention: what is asked of it, and that the installed frontend knows these names."""

import importlib.util
import inspect

import ml_dtypes
import numpy as np
import pytest

from backends.cupy_cuda import _cudnn, _scratch
from backends.cupy_cuda.on_cpu import cudnn as fake
from backends.cupy_cuda.on_cpu.machine import Cpu
from harness.conformance.cases.case import Case
from harness.conformance.judge import judge
from harness.errors import PluginError
from harness.ops.attention import reference_backward, reference_forward
from harness.plugins.loading import all_ops, load

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPE = 2, 5, 3, 16


@pytest.fixture
def gpu(monkeypatch):
    machine = Cpu()
    for module in (_cudnn, _scratch):
        monkeypatch.setattr(module, "machine", lambda: machine)
    monkeypatch.setattr(_cudnn, "planned", lambda: machine)
    monkeypatch.setattr(_scratch._memory, "_own", None)
    return machine


def on(machine, array):
    buffer = machine.view(machine.empty(array.nbytes), 0, array.shape, array.dtype)
    machine.from_host(buffer, array)
    return buffer


def problem(machine):
    B, T, H, D = SHAPE
    rng = np.random.default_rng(2)
    qkv = rng.normal(size=(B, T, 3, H, D)).astype(BFLOAT16)
    dout = rng.normal(size=SHAPE).astype(BFLOAT16)
    out, lse = reference_forward(qkv.astype(np.float64))
    return qkv, dout, out.astype(BFLOAT16), lse.astype(np.float32)


def test_the_saved_statistics_are_our_lse(gpu):
    qkv, _, out, lse = problem(gpu)
    made = on(gpu, np.zeros_like(out)), on(gpu, np.zeros_like(lse))
    _cudnn.forward(*made, on(gpu, qkv))
    np.testing.assert_allclose(gpu.numpy(made[1]), lse, atol=1e-5)  # float32, sums of 16 terms
    off = gpu.numpy(made[0]).astype(np.float32) - out.astype(np.float32)
    assert np.abs(off).max() < 2.0**-6  # bfloat16 of numbers up to 3


def test_a_captured_call_replays_with_its_own_addresses(gpu):
    qkv, dout, out, lse = problem(gpu)
    dqkv = on(gpu, np.zeros_like(qkv))
    given = [on(gpu, array) for array in (dout, qkv, out, lse)]
    _cudnn.backward(dqkv, *given)  # once before, as a run does: nothing is taken in a capture
    gpu.zero(dqkv)
    replay = gpu.capture([lambda: _cudnn.backward(dqkv, *given)])
    assert not gpu.numpy(dqkv).astype(np.float32).any()
    replay()
    exact = (array.astype(np.float64) for array in (dout, qkv, out, lse))
    (wanted,) = reference_backward(*exact)
    off = gpu.numpy(dqkv).astype(np.float64) - wanted
    assert np.abs(off).max() < 2.0**-5  # bfloat16 of numbers up to 5, probabilities rounded


def test_a_graph_is_built_once_for_a_shape(gpu):
    dims = dict(zip("BTHD", SHAPE, strict=True))
    assert _cudnn.backward_bytes(dims) == _cudnn.backward_bytes(dims) > 0
    assert _cudnn._backward_graph(gpu, *SHAPE) is _cudnn._backward_graph(gpu, *SHAPE)


def test_what_cudnn_refuses_is_one_error_that_names_the_other_way(gpu):
    with pytest.raises(PluginError, match=r"B=1 T=1 H=2 D=16[\s\S]*cupy.attention=flash") as caught:
        _cudnn.forward_bytes({"B": 1, "T": 1, "H": 2, "D": 16})
    assert caught.value.slug == "library-refused"


def test_a_frontend_without_its_library_is_one_error(gpu, monkeypatch):
    def refuse():
        raise RuntimeError("Unable to find symbol cudnnCreate")

    monkeypatch.setattr(fake, "create_handle", refuse)
    with pytest.raises(PluginError, match=r"cudnnCreate[\s\S]*cupy.attention=flash") as caught:
        _cudnn.forward_bytes({"B": 1, "T": 4, "H": 2, "D": 16})
    assert caught.value.slug == "library-missing"


@pytest.mark.parametrize("hook", ["attention_forward", "attention_backward"])
def test_the_cases_of_its_shapes_are_passed(hook):
    ops, before = all_ops(), len(fake.executed)
    shapes = [(2, 7, 3, 8), (1, 33, 2, 64), (3, 2, 5, 16), (8, 8, 8, 8)]
    styles = ["normal", "huge", "offset", "tiny", "zeros", "nan-row", "inf-row"]
    cases = [
        Case(hook, tuple(zip("BTHD", shape, strict=True)), style, precision="bf16")
        for shape in shapes
        for style in styles
    ]
    verdict = judge(load("cupy", ops), hook, ops, precision="bf16", cases=cases)
    assert verdict.status == "passed", str(verdict)
    assert len(fake.executed) >= before + len(cases)


@pytest.mark.parametrize("build", ["_forward_graph", "_backward_graph"])
@pytest.mark.skipif(
    importlib.util.find_spec("cudnn") is None, reason="nvidia-cudnn-frontend is not installed"
)
def test_the_installed_frontend_takes_the_graphs_as_they_are_described(build, monkeypatch):
    import cudnn

    for name in ("create_handle", "set_stream", "data_type", "heur_mode", "pygraph"):
        assert hasattr(cudnn, name)
    assert list(inspect.signature(fake.set_stream).parameters) == ["handle", "stream"]
    monkeypatch.setattr(_cudnn, "_handle", lambda gpu: 1)  # an address, not looked at
    # Building asks the library itself; what can be had without a GPU is the description.
    monkeypatch.setattr(_cudnn, "_built", lambda cudnn, graph, shape: graph)

    class Gpu:
        def library(self, name):
            return cudnn

    for name in ("build", "get_workspace_size", "execute"):
        assert callable(getattr(cudnn.pygraph, name))
    try:
        graph = getattr(_cudnn, build)(Gpu(), *SHAPE)
        graph.validate()
    except RuntimeError as error:  # before 1.24 it asks the library and the driver
        if "Unable to find symbol" in str(error) or "CUDA driver" in str(error):
            pytest.skip(f"not validated: {error}")
        raise
