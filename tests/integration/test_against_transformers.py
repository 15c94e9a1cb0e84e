"""Our GPT-2 is transformers' GPT-2: the same logits, loss, gradients and AdamW steps.

The referee is PyTorch in float64, asked in two ways: once and for all, in the committed files of
`golden/`, and anew on other weights where the extra [reference] is installed.
"""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from harness.errors import PluginError
from harness.models.gpt2 import GPT2
from harness.plugins.loading import all_ops, load
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

# Float32 between ops: CONFORMANCE asks this of whole models, and measured is 1e-6 at most.
GRADIENT_TOLERANCE = 1e-4  # relative L2, of each of the sixteen kinds
LOGITS_TOLERANCE = 1e-5  # relative L2
LOSS_TOLERANCE = 1e-5  # relative

EXPANDED = dict.fromkeys(("residual_layernorm", "matmul_gelu", "matmul_cross_entropy"), "expand")
MIXES = {"fused": {}, "expanded": EXPANDED}


def _make_module():
    """golden/make.py, whichever folder the tests are run from."""
    spec = importlib.util.spec_from_file_location(
        "golden_make", Path(__file__).parent / "golden" / "make.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = _make_module()


@cache
def _golden(name):
    return make.read(name)


@cache
def _asked_anew(name):
    case = make.random_case(make.SHAPES[name], seed=1000)
    return case, make.ask(case)


@pytest.fixture(
    params=[("reference", "small"), ("numpy", "small"), ("python", "tiny")],
    ids=lambda param: "-".join(param),
)
def backend_and_size(request):
    """A backend, and the size of model that it can be asked to compute in a test."""
    backend, _ = request.param
    try:
        load(backend, all_ops())
    except PluginError as error:
        pytest.skip(f"backend {backend} is not there: {error.headline}")
    return request.param


@pytest.fixture(params=MIXES)
def choices(request, backend_and_size):
    return {"every_op": backend_and_size[0]} | MIXES[request.param]


@pytest.fixture
def golden(backend_and_size):
    return _golden(backend_and_size[1])


@pytest.fixture
def asked_anew(backend_and_size):
    pytest.importorskip("torch", reason="the extra [reference] is not installed: no torch")
    pytest.importorskip("transformers", reason="the extra [reference] is not installed")
    return _asked_anew(backend_and_size[1])


def test_the_goldens_hold_our_logits_losses_and_gradients(golden, choices, record_property):
    _check_step(*golden, choices, record_property)


def test_five_steps_of_adamw_have_the_losses_of_the_goldens(golden, choices):
    _check_losses(*golden, choices)


def test_transformers_computes_our_logits_losses_and_gradients(
    asked_anew, choices, record_property
):
    _check_step(*asked_anew, choices, record_property)


def test_five_steps_of_torchs_adamw_have_our_losses(asked_anew, choices):
    _check_losses(*asked_anew, choices)


@pytest.mark.parametrize("name", make.SHAPES)
def test_transformers_still_says_what_the_goldens_say(name):
    pytest.importorskip("torch", reason="the extra [reference] is not installed: no torch")
    pytest.importorskip("transformers", reason="the extra [reference] is not installed")
    case, written = _golden(name)
    answer = make.ask(case)
    # Written as float32, computed in float64 with libraries that may sum in another order.
    assert _relative(written.logits, answer.logits) < 1e-6
    for kind in make.KINDS:
        assert _relative(written.gradients[kind], answer.gradients[kind]) < 1e-6, kind
    np.testing.assert_allclose(written.losses, answer.losses, rtol=1e-9)


def test_the_goldens_are_small_and_say_what_made_them():
    nbytes = 0
    for name in make.SHAPES:
        nbytes += sum((make.FOLDER / f"{name}.{ending}").stat().st_size for ending in make.ENDINGS)
        record = (make.FOLDER / f"{name}.json").read_text()
        assert '"torch"' in record and '"transformers"' in record
    assert nbytes < 300_000


def _check_step(case, answer, choices, record_property):
    trainer = _trainer(case, choices)
    logits = _logits(trainer, case)
    loss, gradients = _loss_and_gradients(trainer, case)
    errors = {kind: _relative(gradients[kind], answer.gradients[kind]) for kind in make.KINDS}
    errors["logits"] = _relative(logits, answer.logits)
    errors["loss"] = abs(loss - answer.losses[0]) / answer.losses[0]
    for what, error in errors.items():
        record_property(what, f"{error:.1e}")
    print("  ".join(f"{what} {error:.1e}" for what, error in errors.items()))
    assert errors.pop("logits") <= LOGITS_TOLERANCE
    assert errors.pop("loss") <= LOSS_TOLERANCE
    assert len(errors) == 16
    assert {kind: e for kind, e in errors.items() if not e <= GRADIENT_TOLERANCE} == {}


def _check_losses(case, answer, choices):
    trainer = _trainer(case, choices)
    losses = [
        trainer.step(case.tokens, case.targets, case.adamw.learning_rate).loss
        for _ in answer.losses
    ]
    assert len(losses) == 6
    np.testing.assert_allclose(losses, answer.losses, rtol=LOSS_TOLERANCE)
    assert losses[-1] < losses[0]


def _trainer(case, choices):
    shape = case.shape
    model = GPT2(shape.layers, shape.heads, shape.channels, shape.positions, shape.vocab_size)
    adamw = case.adamw
    settings = TrainerSettings(
        model=model,
        batch_size=shape.B,
        sequence_length=shape.T,
        ops=choices,
        optimizer=OptimizerSettings(
            "adamw", adamw.beta1, adamw.beta2, adamw.eps, adamw.weight_decay, decay="matrices"
        ),
        clip_norm=None,
    )
    trainer = Trainer(settings, all_ops())
    assert set(trainer.plan.calls.expanded) == (set(EXPANDED) & set(choices))
    trainer.parameters.from_host(_unstacked(case.weights, model))
    trainer.executor.refresh()
    return trainer


def _logits(trainer, case):
    """Our logits_BTV, without the padding of the vocabulary."""
    executor = trainer.another(case.shape.B, case.shape.T, head="logits")
    executor.write("tokens", case.tokens)
    executor.forward()
    return executor.read()[..., : case.shape.vocab_size]


def _loss_and_gradients(trainer, case):
    executor = trainer.executor
    counted = case.targets >= 0
    executor.write("tokens", case.tokens)
    executor.write("targets", case.targets)
    executor.seed(np.full(counted.size, 1 / counted.sum(), np.float32))
    executor.forward()
    executor.backward()
    executor.gather()
    loss = executor.read().sum(dtype=np.float64) / counted.sum()
    gradients = _stacked(trainer.parameters.to_host("gradient"), case.shape.layers)
    vocab_size = case.shape.vocab_size
    assert not gradients["wte"][vocab_size:].any(), "the padding of the vocabulary has a gradient"
    gradients["wte"] = gradients["wte"][:vocab_size]
    return loss, gradients


def _unstacked(weights, model):
    """The sixteen kinds as our parameters: one tensor a layer, the vocabulary padded."""
    arrays = {}
    for kind, name in make.KINDS.items():
        if "{}" in name:
            arrays |= {f"{kind}.{layer}": part for layer, part in enumerate(weights[kind])}
        else:
            arrays[kind] = weights[kind]
    padding = ((0, model.padded_vocab - model.vocab_size), (0, 0))
    arrays["wte"] = np.pad(arrays["wte"], padding)
    return arrays


def _stacked(arrays, layers):
    return {
        kind: np.stack([arrays[f"{kind}.{layer}"] for layer in range(layers)])
        if "{}" in name
        else arrays[kind]
        for kind, name in make.KINDS.items()
    }


def _relative(found, expected):
    """Relative L2, in float64."""
    difference = np.asarray(found, np.float64) - np.asarray(expected, np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))
