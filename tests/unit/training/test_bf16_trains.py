"""In bfloat16 a model learns what it learns in float32: from the same weights, on the same batches."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness.contract.precision import Precision
from harness.models.gpt2 import GPT2
from harness.plugins import all_ops
from harness.training.trainer import Trainer, TrainerSettings

MODEL = GPT2(layers=2, heads=2, channels=32, positions=16, vocab_size=128)
B, T, STEPS = 8, 16, 200
SMOOTHED = 20
MAX_DIFFERENCE = 0.02  # of the loss; about ten times what is measured, 2e-3 at most


def made_up_text() -> bytes:
    """20,000 words, drawn from 300 as often as words are in a language; the same on each machine.

    (The source of a module differs from one Python to the next, and 3.12's has a stretch where runs that
    differ in their rounding alone are 3 % apart.)
    """
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    words = [bytes(rng.choice(letters, length)) for length in rng.integers(2, 9, 300)]
    often = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), 20_000, p=often / often.sum())
    return b" ".join(words[i] for i in drawn)


def windows(text: bytes) -> np.ndarray:
    tokens = np.minimum(np.frombuffer(text, np.uint8), 127).astype(np.int32)
    return tokens[: len(tokens) // (T + 1) * (T + 1)].reshape(-1, T + 1)


def curves(precision: Precision) -> tuple[np.ndarray, float]:
    """The smoothed losses of training, and the loss on text that was not trained on."""
    text = made_up_text()
    seen, unseen = windows(text[:-20_000]), windows(text[-20_000:])[: 8 * B]
    settings = TrainerSettings(MODEL, B, T, {"every_op": "numpy"}, precision=precision)
    trainer = Trainer(settings, all_ops())
    rng = np.random.default_rng(0)
    losses = []
    # Products this small gain nothing from a second thread, and lose where it must wait for a core.
    with threadpool_limits(1):
        for _ in range(STEPS):
            rows = seen[rng.integers(0, len(seen), B)]
            losses.append(trainer.step(*halves(rows), 3e-3).loss)
        batches = [halves(rows) for rows in np.split(unseen, 8)]
        validation = trainer.mean_loss(trainer.another(B, T), batches)
    return np.convolve(losses, np.full(SMOOTHED, 1 / SMOOTHED), "valid"), validation


def halves(rows):
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


@pytest.fixture(scope="module")
def exact():
    return curves(Precision("fp32"))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_bfloat16_stays_within_2_per_cent_of_float32(exact, rounding):
    curve, validation = curves(Precision("bf16", rounding=rounding))
    assert curve[0] > 1.3 * curve[-1], "it learns"
    np.testing.assert_allclose(curve, exact[0], rtol=MAX_DIFFERENCE)
    assert validation == pytest.approx(exact[1], rel=MAX_DIFFERENCE)
    assert validation != exact[1], "it is not float32"
