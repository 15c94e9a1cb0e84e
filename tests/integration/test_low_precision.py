"""A bfloat16 run validates the weights it has trained, not the copies of an earlier step."""

import pytest

SETTINGS = ["data=counting", "steps=8", "optimizer.lr=1e-2", "schedule=constant"]


def test_validation_sees_the_weights_of_its_own_step(train):
    outcome = train(*SETTINGS, "precision=bf16", "validate_at_start=true", "validate_every=4")
    before, *between, after = [float(r["loss"]) for r in outcome.records("validation")]
    trained = float(outcome.records()[-1]["loss"])
    assert before > between[-1] > after
    # One sequence is all there is: the next loss of training is that of validation.
    assert after == pytest.approx(trained, rel=0.1)


def test_bfloat16_validates_as_float32_does(train):
    losses = {}
    for precision in ("fp32", "bf16"):
        outcome = train(
            *SETTINGS, f"precision={precision}", f"runs_dir={precision}", runs_dir=precision
        )
        losses[precision] = float(outcome.records("validation")[-1]["loss"])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)  # 2^-8 a rounding
