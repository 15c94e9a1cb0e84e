"""What `harness verify` takes of a command line, and what it refuses."""

import pytest

from harness.contract.precision import Precision
from harness.errors import ConfigError
from harness.verify.bounds import BOUNDS, bounds_for
from harness.verify.options import WHO_COMPUTES, composed, report_path, taken


def test_its_own_keys_are_taken_and_the_others_are_left():
    numbers, texts, rest = taken(
        ["backend=numpy", "steps=3", "report=a.json", "steps=0", "odd"], {"steps": 0}, ("report",)
    )
    assert numbers == {"steps": 0}
    assert texts == {"report": "a.json"}
    assert rest == ["backend=numpy", "odd"]


@pytest.mark.parametrize("text", ["", "-1", "2.5", "ten", "1e3", "³", "9" * 30])
def test_a_number_of_steps_is_a_whole_number(text):
    with pytest.raises(ConfigError) as refused:
        taken([f"steps={text}"], {"steps": 0})
    assert refused.value.slug == "verify-number"


def test_a_batch_has_at_least_one_sequence():
    with pytest.raises(ConfigError, match="1 or more"):
        taken(["B=0"], {"B": 1})


def test_who_computes_is_read_as_training_reads_it():
    run = composed(["backend=reference", "precision=bf16", "ops.gelu=numpy"], WHO_COMPUTES, "")
    assert run.backend == "reference" and run.precision == "bf16"
    assert run.ops.gelu == "numpy" and run.ops.every_op == "reference"


@pytest.mark.parametrize("override", ["batch_size=2", "model=tiny", "optimizer.lr=1", "seed=1"])
def test_a_key_that_would_change_nothing_is_refused(override):
    with pytest.raises(ConfigError) as refused:
        composed([override], WHO_COMPUTES, "the state says it")
    assert refused.value.slug == "verify-key"
    assert "the state says it" in str(refused.value)


def test_a_misspelt_key_is_told_the_nearest():
    with pytest.raises(ConfigError) as refused:
        composed(["bakend=numpy"], WHO_COMPUTES, "")
    assert refused.value.slug == "unknown-key"
    assert "backend" in str(refused.value)


def test_a_report_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    assert report_path(None) is None
    assert report_path(str(tmp_path / "r.json")) == tmp_path / "r.json"
    for place in (tmp_path, tmp_path / "no" / "r.json"):
        with pytest.raises(ConfigError) as refused:
            report_path(str(place))
        assert refused.value.slug == "verify-report-place"


def test_the_bounds_are_those_of_the_coarsest_precision_in_use():
    assert bounds_for(Precision("fp32"), "float32") is BOUNDS["fp32"]
    assert bounds_for(Precision("fp32", {"gelu": "bf16"}), "float32") is BOUNDS["bf16"]
    assert bounds_for(Precision("bf16", {"gelu": "fp32"}), "float32") is BOUNDS["bf16"]
    assert bounds_for(Precision("tf32"), "float32") is BOUNDS["tf32"]
    # Rounded weights are other weights than those of the state, whatever then computes.
    assert bounds_for(Precision("fp32"), "bfloat16") is BOUNDS["bf16"]


def test_a_gradient_of_zeros_is_out_of_every_bound():
    assert all(bounds.gradients < 0.5 and bounds.logits < 0.5 for bounds in BOUNDS.values())
