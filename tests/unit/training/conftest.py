import numpy as np
import pytest

from harness.models.gpt2 import GPT2
from harness.plugins.loading import all_ops
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

MODEL = GPT2(layers=1, heads=2, channels=16, positions=8, vocab_size=40)
LR = 0.05


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
def batch():
    """Six sequences of 8 tokens with their targets; some targets are left out."""
    rng = np.random.default_rng(0)
    x_BT = rng.integers(0, 40, (6, 8), dtype=np.int32)
    y_BT = rng.integers(0, 40, (6, 8), dtype=np.int32)
    y_BT[rng.random((6, 8)) < 0.2] = -1
    return x_BT, y_BT
