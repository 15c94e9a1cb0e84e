"""Logits, loss and the sixteen gradients of one batch, against a debug state."""

from collections.abc import Iterator

import numpy as np

from harness.interchange.llmc.debug_state import LlmcDebugState
from harness.models.kinds import KINDS, kind_shapes, tensor_names
from harness.plugins.op_errors import naming_the_op
from harness.training.trainer import Trainer
from harness.verify.bounds import Bounds
from harness.verify.difference import Difference, Row


def check_state(trainer: Trainer, state: LlmcDebugState, bounds: Bounds) -> Iterator[Row]:
    """A row for the logits, one for the loss, one for each kind of gradient over all layers."""
    with naming_the_op(trainer.plan.dispatch.backends, trainer.plan.wrappers):
        logits_BTV = _logits(trainer, state)
    yield _logits_row(logits_BTV, state, bounds)
    del logits_BTV
    with naming_the_op(trainer.plan.dispatch.backends, trainer.plan.wrappers):
        loss = _loss_and_gradients(trainer, state)
    yield loss_row("loss", loss, state.loss, state.loss, bounds.loss, "state")
    for kind in KINDS:
        yield _gradient_row(trainer, state, kind, bounds)


def loss_row(
    name: str, found: float, expected: float, scale: float, bound: float, source: str
) -> Row:
    """A mean loss beside the one that it should be. The error is relative to scale."""
    error = abs(found - expected) / (abs(scale) or 1)
    return Row(name, error, bound, f"{found:.6f}, {source} {expected:.6f}")


def _logits(trainer: Trainer, state: LlmcDebugState) -> np.ndarray:
    """All logits, with the padding of the vocabulary."""
    executor = trainer.another(state.B, state.T, head="logits")
    executor.write("tokens", state.x_BT)
    executor.forward()
    return executor.read()


def _logits_row(logits_BTV: np.ndarray, state: LlmcDebugState, bounds: Bounds) -> Row:
    T, V = state.T, state.model.vocab_size
    expected_TV = np.empty((T, V), np.float32)
    difference = Difference()
    for b in range(state.B):
        state.read_logits_into(expected_TV, b * T)
        difference.add(f"logits[{b}]", logits_BTV[b, :, :V], expected_TV)
    note = f"largest difference {difference.largest:.1e}"
    return Row("logits", difference.relative, bounds.logits, note, difference.worst)


def _loss_and_gradients(trainer: Trainer, state: LlmcDebugState) -> float:
    """The mean loss; its gradients are in the trainer's parameters."""
    executor, rows = trainer.executor, state.B * state.T
    executor.write("tokens", state.x_BT)
    executor.write("targets", state.y_BT)
    executor.seed(np.full(rows, 1 / rows, np.float32))
    executor.forward()
    executor.backward()
    executor.gather()
    return float(executor.read().sum(dtype=np.float64)) / rows


def _gradient_row(trainer: Trainer, state: LlmcDebugState, kind: str, bounds: Bounds) -> Row:
    parameters = trainer.parameters
    shape = kind_shapes(trainer.settings.model)[kind]
    found, expected = np.empty(shape, np.float32), np.empty(shape, np.float32)
    difference = Difference()
    for name in tensor_names(trainer.settings.model, kind):
        parameters.device.to_host(found, parameters.view("gradient", name))
        state.read_gradient_into(name, expected)
        difference.add(f"d{name}", found, expected)
    return Row(f"d{kind}", difference.relative, bounds.gradients, worst=difference.worst)
