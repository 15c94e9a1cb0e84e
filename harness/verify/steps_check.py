"""AdamW steps on the state's one batch, as llm.c's own test makes them, loss by loss.

Learning rate 1e-4, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01 of every tensor, no clipping.
Source: llm.c, test_gpt2.c.
"""

from collections.abc import Iterator

import numpy as np

from harness.errors import NumericsError
from harness.models.gpt2 import GPT2
from harness.models.model_file import ModelFile
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer
from harness.verify.float64 import Float64Model

LEARNING_RATE = 1e-4
RECIPE = OptimizerSettings("adamw", 0.9, 0.999, 1e-8, 0.01, decay="all")
STEPS = 10

# What PyTorch computed in float32 on gpt2_124M_debug_state.bin. Source: llm.c, test_gpt2.c.
PUBLISHED_LOSSES = (
    5.270007133483887,
    4.059706687927246,
    3.3751230239868164,
    2.8007826805114746,
    2.315382242202759,
    1.8490285873413086,
    1.3946564197540283,
    0.9991465210914612,
    0.6240804195404053,
    0.37651097774505615,
)
GPT2_124M = GPT2(layers=12, heads=12, channels=768, positions=1024, vocab_size=50257)


def is_published(model: GPT2, loss: float) -> bool:
    """Whether this is the model and the batch that llm.c published losses of."""
    return model == GPT2_124M and abs(loss - PUBLISHED_LOSSES[0]) < 1e-3


def losses_of(trainer: Trainer, x_BT: np.ndarray, y_BT: np.ndarray, steps: int) -> list[float]:
    """The loss before each update; NaN from the step on that is not finite."""
    losses: list[float] = []
    try:
        while len(losses) < steps:
            losses.append(trainer.step(x_BT, y_BT, LEARNING_RATE).loss)
    except NumericsError:
        losses += [np.nan] * (steps - len(losses))
    return losses


def float64_losses(
    source: ModelFile, x_BT: np.ndarray, y_BT: np.ndarray, steps: int
) -> Iterator[float]:
    """The same in float64, one after another: a step of a large model takes its time."""
    if not steps:
        return
    B, T = x_BT.shape
    referee = Float64Model(source, B, T, ["steps=0   leaves the AdamW steps out"])
    for step in range(steps):
        yield referee.forward(x_BT, y_BT)
        if step + 1 < steps:
            referee.backward()
            referee.adamw(RECIPE, LEARNING_RATE)
