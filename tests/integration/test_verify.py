"""`harness verify`: right backends pass, wrong ones are seen and named, other files are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.errors import HarnessError, PluginError
from harness.interchange.llmc.model import LlmcModel
from harness.models.gpt2 import GPT2
from harness.models.kinds import KINDS
from harness.plugins.loading import all_ops, load
from harness.verify import steps_check
from harness.verify.commands import run_verify, run_verify_write

# One layer, so that a kernel's fault shows in the gradients that it reaches and in no other.
SIZES = {"layers": 1, "heads": 2, "channels": 8, "positions": 7, "vocab_size": 11}
MODEL = GPT2(**SIZES)
B, T = 2, 5
GRADIENTS = {f"d{kind}" for kind in KINDS}
STEPS = {f"step {number}" for number in range(1, 11)}


@pytest.fixture
def written(workplace):
    """model.bin and debug_state.bin of a model of one layer, in the folder that tests run in."""
    run_verify_write("state", [*_sizes(SIZES), f"B={B}", f"T={T}", "seed=3"])
    return "state/model.bin", "state/debug_state.bin"


@pytest.fixture
def verify(written, workplace):
    """Verify with these overrides: the exit code, and the report."""

    def run(*overrides, files=written):
        code = run_verify(*files, [*overrides, "report=report.json"])
        return code, json.loads(Path("report.json").read_text())

    return run


@pytest.mark.parametrize("backend", ["numpy", "reference", "python"])
def test_a_right_backend_has_every_row_within_its_bounds(verify, backend):
    try:
        load(backend, all_ops())
    except PluginError as error:
        pytest.skip(f"backend {backend} is not there: {error.headline}")
    code, report = verify(f"backend={backend}")
    assert code == 0 and report["ok"]
    assert {row["name"] for row in report["rows"]} == {"logits", "loss"} | GRADIENTS | STEPS
    assert report["backends"] == [backend]


def test_two_layers_in_bfloat16_are_within_the_bounds_of_bfloat16(workplace):
    sizes = SIZES | {"layers": 2, "channels": 32, "vocab_size": 100}
    run_verify_write("state", [*_sizes(sizes), "B=4", "T=7"])
    files = "state/model.bin", "state/debug_state.bin"
    assert run_verify(*files, ["precision=bf16"]) == 0
    assert run_verify(*files, ["precision=fp32"]) == 0


def test_the_table_has_a_line_for_each_row(written, capfd):
    assert run_verify(*written, ["steps=2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if line.split()[3:4] == ["ok"]]
    assert rows == ["logits", "loss", *(f"d{kind}" for kind in KINDS)]
    assert [line.split()[:2] for line in lines if line.startswith("step")] == [
        ["step", "1"],
        ["step", "2"],
    ]
    assert lines[-1] == "ok: 20 of 20 within bounds"


# -- wrong kernels ------------------------------------------------------------------------------

BEFORE_GELU = {"wte", "wpe", "ln1w", "ln1b", "qkvw", "qkvb", "attprojw", "attprojb", "ln2w", "ln2b"}
WRONG = {
    "gelu_backward": ("dx_NF *= 1.01", {*BEFORE_GELU, "fcw", "fcb"}),
    "layernorm_backward": ("dbias_C[...] = 0", {"ln1b", "ln2b", "lnfb"}),
    "matmul_backward": (
        "dbias_O is None or dbias_O.fill(0)",
        {"qkvb", "attprojb", "fcb", "fcprojb"},
    ),
    "embedding_backward": ("dwpe_XC[0] = 0", {"wpe"}),
}


@pytest.mark.parametrize("hook", WRONG)
def test_a_wrong_backward_fails_in_the_gradients_that_it_reaches_and_in_no_other(
    hook, verify, faulty, capfd
):
    statement, kinds = WRONG[hook]
    code, report = verify(f"ops.{hook}={faulty(hook, statement, 1)}", "steps=0")
    assert code == 6 and not report["ok"]
    assert _failed(report) == {f"d{kind}" for kind in kinds}
    printed = capfd.readouterr().out
    assert all(f"d{kind} " in printed or f"d{kind}\n" in printed for kind in kinds)
    assert printed.splitlines()[-1].startswith(f"FAIL: {len(kinds)} of 18 are out of bounds: d")


def test_attention_with_another_scale_fails_in_logits_and_loss(verify, faulty):
    statement = (
        "wrong = qkv_BT3HD.copy(); wrong[:, :, 0] *= 2; "
        "plugin.attention_forward(out_BTHD, lse_BHT, wrong)"
    )
    code, report = verify(f"ops.attention_forward={faulty('attention_forward', statement, 1)}")
    assert code == 6
    assert {"logits", "loss", "dqkvw"} | STEPS <= _failed(report)


def test_a_gradient_of_zeros_fails_in_bfloat16_too(verify, faulty):
    path = faulty("matmul_backward", "dweight_OI[...] = 0", 1)
    code, report = verify(f"ops.matmul_backward={path}", "precision=bf16", "steps=0")
    assert code == 6
    assert {"dqkvw", "dattprojw", "dfcw", "dfcprojw"} <= _failed(report)


def test_a_result_that_is_not_a_number_fails_and_does_not_stop_the_table(verify, faulty):
    path = faulty("gelu_forward", "out_NF[0, 0] = float('nan')", 1)
    code, report = verify(f"ops.gelu_forward={path}")
    assert code == 6
    assert {"logits", "loss"} | STEPS <= _failed(report)
    assert len(report["rows"]) == 28


ADAMW = """\
import numpy as np
from backends.numpy_cpu import plugin
from harness import hookimpl

computes = plugin.computes


@hookimpl
def adamw(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    m_P[...] = beta1 * m_P + (1 - beta1) * grad_P
    v_P[...] = beta2 * v_P + (1 - beta2) * grad_P**2
    param_P -= lr_1 * ({step} + {decay} * param_P)
"""
STEP = "m_P / correction_2[0] / (np.sqrt(v_P / correction_2[1]) + eps)"
WRONG_ADAMW = {
    "without decay": (STEP, "0"),
    "decay of the opposite sign": (STEP, "-weight_decay"),
    "without bias correction": ("m_P / (np.sqrt(v_P) + eps)", "0.01"),
}


def test_adamw_written_out_has_the_referees_losses(verify):
    Path("adamw.py").write_text(ADAMW.format(step=STEP, decay="weight_decay"))
    code, report = verify("ops.adamw=./adamw.py")
    assert code == 0, _failed(report)


@pytest.mark.parametrize("mistake", WRONG_ADAMW)
def test_a_wrong_adamw_fails_in_the_losses_of_the_steps_alone(verify, mistake):
    step, decay = WRONG_ADAMW[mistake]
    Path("adamw.py").write_text(ADAMW.format(step=step, decay=decay))
    code, report = verify("ops.adamw=./adamw.py")
    assert code == 6
    failed = _failed(report)
    assert "step 10" in failed and failed <= STEPS - {"step 1"}


def test_a_decay_of_matrices_alone_is_noticed_in_the_losses(verify, monkeypatch):
    # The referee decays every tensor whatever the recipe's rule says.
    recipe = steps_check.RECIPE
    monkeypatch.setattr(
        steps_check, "RECIPE", type(recipe)("adamw", 0.9, 0.999, 1e-8, 0.01, decay="matrices")
    )
    code, report = verify()
    assert code == 6
    assert "step 10" in _failed(report) <= STEPS - {"step 1"}


# -- states that are not the model's ------------------------------------------------------------


def test_a_changed_gradient_in_the_state_is_named_with_its_place(written, verify):
    row, column = 17, 3  # of fcw, (32, 8)
    at = _gradient_offset("fcw") + 4 * (row * 8 + column)
    raw = bytearray(Path(written[1]).read_bytes())
    value = np.frombuffer(raw, "<f4", 1, at)[0]
    raw[at : at + 4] = np.float32(value + 0.5).tobytes()
    Path(written[1]).write_bytes(raw)
    code, report = verify("steps=0")
    assert code == 6 and _failed(report) == {"dfcw"}
    (bad,) = (row for row in report["rows"] if not row["ok"])
    assert bad["worst"].startswith("dfcw.0[17, 3] is ")


def test_a_nan_in_the_state_is_an_error_and_not_a_difference(written, verify):
    at = _gradient_offset("qkvb")
    raw = bytearray(Path(written[1]).read_bytes())
    raw[at : at + 4] = np.float32(np.nan).tobytes()
    Path(written[1]).write_bytes(raw)
    with pytest.raises(HarnessError) as refused:
        verify("steps=0")
    assert refused.value.slug == "llmc-not-finite" and "qkvb" in str(refused.value)
    assert not Path("report.json").exists()


def test_files_in_the_wrong_order_are_told_so(written, verify):
    with pytest.raises(HarnessError) as refused:
        verify(files=written[::-1])
    assert refused.value.slug == "verify-files-swapped"
    assert "harness verify state/model.bin state/debug_state.bin" in str(refused.value)


def test_one_file_given_twice_is_told_what_it_is(written, verify):
    for file, what in zip(written, ("a model", "a debug state"), strict=True):
        with pytest.raises(HarnessError) as refused:
            verify(files=(file, file))
        assert refused.value.slug == "llmc-file-unknown" and what in str(refused.value)


def test_a_state_of_another_model_is_refused(written, verify):
    run_verify_write("other", [*_sizes(SIZES | {"channels": 16}), f"B={B}", f"T={T}"])
    with pytest.raises(HarnessError) as refused:
        verify(files=(written[0], "other/debug_state.bin"))
    assert refused.value.slug == "llmc-file-size" and refused.value.exit_code == 4


def test_a_state_longer_than_the_models_positions_is_refused(written, verify):
    raw = bytearray(Path(written[1]).read_bytes())
    raw[12:16] = np.int32(8).tobytes()
    Path(written[1]).write_bytes(raw)
    with pytest.raises(HarnessError) as refused:
        verify()
    assert refused.value.slug == "llmc-header-damaged" and "positions" in str(refused.value)


def test_the_published_losses_stand_in_for_the_referee_where_they_are_known(verify, monkeypatch):
    code, report = verify()
    losses = [float(row["note"].split()[-1]) for row in report["rows"] if row["name"] in STEPS]
    monkeypatch.setattr(steps_check, "GPT2_124M", MODEL)
    monkeypatch.setattr(steps_check, "PUBLISHED_LOSSES", (*losses[:-1], losses[-1] + 0.02))
    code, report = verify()
    assert code == 6 and _failed(report) == {"step 10"}
    assert "published" in report["rows"][-1]["note"]


def test_what_is_published_is_gpt2_124m_on_one_batch():
    known = GPT2(layers=12, heads=12, channels=768, positions=1024, vocab_size=50257)
    assert steps_check.is_published(known, 5.2700)
    assert not steps_check.is_published(known, 5.2800)
    assert not steps_check.is_published(MODEL, 5.2700)


def test_a_huggingface_folder_of_the_model_is_verified_as_the_file_is(written, verify):
    from harness.interchange.huggingface.writing import write_huggingface

    with LlmcModel(written[0]) as source:
        write_huggingface("folder", source)
    code, report = verify("steps=0", files=("folder", written[1]))
    assert code == 0 and "Hugging Face" in report["description"]


# -- helpers ------------------------------------------------------------------------------------


def _sizes(sizes):
    return [f"model.{name}={value}" for name, value in sizes.items()]


def _failed(report):
    return {row["name"] for row in report["rows"] if not row["ok"]}


def _gradient_offset(kind):
    """Where a kind's gradients begin in the state of MODEL: FORMATS, section 2."""
    sizes = {"wte": 128 * 8, "wpe": 7 * 8, "ln1w": 8, "ln1b": 8, "qkvw": 192, "qkvb": 24}
    sizes |= {"attprojw": 64, "attprojb": 8, "ln2w": 8, "ln2b": 8, "fcw": 256}
    names = list(sizes)
    return 1028 + 8 * B * T + 4 * B * T * 11 + 4 * sum(sizes[n] for n in names[: names.index(kind)])
