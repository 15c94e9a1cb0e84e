"""What the rooms' tests share: made-up modules and distributions, a program's runner, a trainer."""

import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from harness.contract import Acc, Magnitude
from harness.contract.precision import Precision
from harness.contract.signature import merge_leading
from harness.device import HOST
from harness.execution.executor import Executor
from harness.execution.parameters import Parameters
from harness.machine.peaks import Peaks, Rates
from harness.machine.processor import Machine
from harness.models.gpt2 import GPT2, build
from harness.planning.planner import make_plan
from harness.plugins import all_ops
from harness.plugins.dispatch import Dispatch
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

MODEL = GPT2(layers=1, heads=2, channels=16, positions=8, vocab_size=40)
LR = 0.05


@pytest.fixture
def ops():
    return all_ops()


@pytest.fixture
def op_module():
    """An op file made of a test's own functions: op_module("toy", toy_forward, toy_backward)."""

    def make(name, *specifications, **names):
        module = ModuleType(name)
        module.__file__ = f"{name}.py"
        for half in ("forward", "backward"):
            setattr(module, f"reference_{half}", lambda: ())
            setattr(module, f"magnitude_{half}", lambda: (Magnitude(1, 1),))
            setattr(module, f"flops_{half}", lambda: 0)
        for specification in specifications:
            setattr(module, specification.__name__, specification)
        for attribute, value in names.items():
            setattr(module, attribute, value)
        return module

    return make


@pytest.fixture
def backend_file(tmp_path):
    """A backend that is a file: backend_file("mine", source) -> its path, as a string."""

    def write(name, source):
        path = tmp_path / f"{name}.py"
        path.write_text(_source(source))
        return str(path)

    return write


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a made-up distribution with one module and its entry points.

    install("toy", "1.0", source, backends=["toy"]) -> the module's path. Entry points go to the
    module itself unless `target` names an attribute of it.
    """
    folder = tmp_path / "site"
    made = []

    def install(name, version, source, *, backends=(), ops=(), wrappers=(), target=""):
        module = f"{name}_plugin"
        metadata = folder / f"{name}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        lines = []
        groups = {"harness.backends": backends, "harness.ops": ops, "harness.wrappers": wrappers}
        for group, points in groups.items():
            lines += [f"[{group}]", *(f"{point} = {module}{target}" for point in points)]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
        path = folder / f"{module}.py"
        path.write_text(_source(source))
        made.append(module)
        monkeypatch.syspath_prepend(folder)
        return path

    yield install
    for module in made:
        sys.modules.pop(module, None)


def _source(text):
    """A module's text, with the import that a marked function needs as its first line."""
    text = textwrap.dedent(text)
    return "from harness import hookimpl\n" + text if "hookimpl" in text else text.lstrip()


@pytest.fixture
def run_program():
    """Plan a program, fill its parameters and bind it; see `Run`."""
    return Run


class Run:
    """A program on its devices: `step` gives the loss of each row, and every gradient.

    choices: a backend for every op, or a dict of choices. weight: the gradient of each row's loss.
    """

    def __init__(
        self,
        program,
        results,
        choices="reference",
        precision="fp32",
        *,
        parameters=None,
        **planning,
    ):
        choices = choices if isinstance(choices, dict) else {"every_op": choices}
        wrappers = planning.pop("wrappers", ())
        precision = precision if isinstance(precision, Precision) else Precision(precision)
        planning.setdefault("train", True)
        self.dispatch = Dispatch(program.ops, choices)
        self.plan = make_plan(program, results, self.dispatch, precision, **planning)
        home = self.plan.home
        on_home = [b for b in self.dispatch.backends if b.device == home]
        device = HOST if home == "host" else on_home[0].open_device()
        self.parameters = parameters or Parameters(self.plan.program, device)
        if parameters is None:
            self.parameters.initialise(0)
        self.executor = Executor(self.plan, self.parameters, wrappers)

    def step(self, inputs, weight=1.0, first=True):
        self.forward(inputs)
        self.executor.seed(np.full(self.plan.loss.shape, weight, np.float32))
        self.executor.backward(first)
        self.executor.gather()
        return SimpleNamespace(
            loss=self.executor.read(), gradients=self.parameters.to_host("gradient")
        )

    def forward(self, inputs):
        for name, array in inputs.items():
            self.executor.write(name, array)
        self.executor.forward()
        return self.executor.read()


@pytest.fixture
def micro():
    """A GPT-2 that is small enough for float64 in every test."""
    return GPT2(layers=2, heads=2, channels=16, positions=8, vocab_size=20)


@pytest.fixture
def batch():
    """Inputs of B sequences of T tokens, one target ignored: batch(B, T)."""

    def make(B, T, vocab_size=20, seed=0):
        rng = np.random.default_rng(seed)
        sequences = rng.integers(0, vocab_size, (B, T + 1)).astype(np.int32)
        targets = sequences[:, 1:].copy()
        targets[0, -1] = -1
        tokens = np.ascontiguousarray(sequences[:, :-1])
        return {"tokens": tokens, "targets": targets, "position": np.zeros(B, np.int32)}

    return make


@pytest.fixture
def gpt2_run(ops, micro):
    """The micro GPT-2, planned and bound: gpt2_run(choices, B=2, T=5, ...)."""

    def make(choices="reference", precision="fp32", *, B=2, T=5, model=micro, **planning):
        program, loss = build(planning.pop("ops", ops), model, B, T)
        return Run(program, loss, choices, precision, **planning)

    return make


@pytest.fixture
def evaluate():
    """Compute calls in float64 by the formulas of the op files, without plan or executor.

    evaluate(calls, values) fills values, a dict tensor -> array; an `Acc` is added to.
    """

    def evaluate(calls, values):
        for call in calls:
            given = {}
            for argument in call.half.signature.arguments:
                value = call.arguments[argument.name]
                if argument.is_buffer and value is not None and value.root in values:
                    shape = merge_leading(value.shape, len(argument.dims))
                    given[argument.name] = values[value.root].reshape(shape)
                else:
                    given[argument.name] = value
            letters = dict.fromkeys(call.half.signature.letters)
            results = call.half.outputs(given, letters | call.dims)
            for argument, tensor in call.written:
                made = np.reshape(results[argument.name], tensor.root.shape)
                before = values.get(tensor.root, 0) if argument.role is Acc else 0
                values[tensor.root] = before + made
        return values

    return evaluate


@pytest.fixture
def make_trainer():
    """A trainer of a very small GPT-2 on the float64 formulas; `changes` are of its settings.

    chosen: other backends for single ops.
    """

    def make(batch_size=2, backend="reference", optimizer=None, chosen=None, **changes) -> Trainer:
        optimizer = OptimizerSettings(**(optimizer or {"name": "sgd", "weight_decay": 0.0}))
        settings = TrainerSettings(
            MODEL,
            batch_size,
            8,
            {"every_op": backend, **(chosen or {})},
            optimizer,
            **{"clip_norm": None, **changes},
        )
        return Trainer(settings, all_ops())

    return make


@pytest.fixture
def six_sequences():
    """Six sequences of 8 tokens with their targets; some targets are left out."""
    rng = np.random.default_rng(0)
    x_BT = rng.integers(0, 40, (6, 8), dtype=np.int32)
    y_BT = rng.integers(0, 40, (6, 8), dtype=np.int32)
    y_BT[rng.random((6, 8)) < 0.2] = -1
    return x_BT, y_BT


@pytest.fixture
def machine():
    return Machine("a processor", 2, "Linux x86_64", "2.4.6", "openblas 0.3", "Haswell", "", 2)


@pytest.fixture
def peaks(machine):
    """10 GB/s of copies, 100 GFLOP/s of matmul, 1 MiB of cache."""
    one = Rates(8e9, 40e9, 50e9, 40e9)
    every = Rates(10e9, 30e9, 100e9, 60e9)
    return Peaks(machine, 1 << 20, one, every, "2026-01-01T00:00:00+00:00", 0.1)
