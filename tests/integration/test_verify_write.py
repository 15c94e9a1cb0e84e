"""`harness verify write`: what it writes is llm.c's format, and PyTorch finds the same numbers."""

import errno
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.interchange.llmc.model import LlmcModel
from harness.models.kinds import KINDS, OF_THE_MODEL, kind_shapes, tensor_names
from harness.verify import steps_check
from harness.verify.commands import run_verify_write

SIZES = {"layers": 1, "heads": 2, "channels": 8, "positions": 7, "vocab_size": 11}
B, T = 2, 5


@pytest.fixture
def written(workplace):
    """model.bin and debug_state.bin, in the folder that tests run in."""
    run_verify_write("state", [*_sizes(SIZES), f"B={B}", f"T={T}", "seed=3"])
    return "state/model.bin", "state/debug_state.bin"


def test_the_files_are_llmcs_byte_for_byte_where_its_format_says(written):
    model, state = (Path(path).read_bytes() for path in written)
    header = np.frombuffer(model, "<i4", 256)
    assert header[:8].tolist() == [20240326, 3, 7, 11, 1, 2, 8, 128] and not header[8:].any()
    N = (len(model) - 1024) // 4
    assert N == 128 * 8 + 7 * 8 + 12 * 8 * 8 + 13 * 8 + 2 * 8
    header = np.frombuffer(state, "<i4", 256)
    assert header[:4].tolist() == [20240327, 2, B, T] and not header[4:].any()
    assert len(state) == 1028 + 8 * B * T + 4 * B * T * 11 + 4 * N
    x, y = np.frombuffer(state, "<i4", 2 * B * T, 1024).reshape(2, B, T)
    assert x.min() >= 0 and max(x.max(), y.max()) < 11
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    padding = np.frombuffer(
        state, "<f4", (128 - 11) * 8, 1028 + 8 * B * T + 4 * B * T * 11 + 4 * 11 * 8
    )
    assert not padding.any()


def test_a_seed_gives_the_same_files_and_another_seed_others(workplace):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_verify_write(folder, [*_sizes(SIZES), f"seed={seed}"])
    for name in ("model.bin", "debug_state.bin"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
        assert Path("a", name).read_bytes() != Path("c", name).read_bytes()


def test_files_that_are_there_are_not_written_over(written):
    before = [Path(path).read_bytes() for path in written]
    Path(written[0]).unlink()
    with pytest.raises(HarnessError) as refused:
        run_verify_write("state", _sizes(SIZES))
    assert refused.value.slug == "verify-files-there"
    assert not Path(written[0]).exists() and Path(written[1]).read_bytes() == before[1]


@pytest.mark.parametrize(
    ("override", "slug"),
    [
        ("T=8", "verify-too-long"),
        ("B=0", "verify-number"),
        ("model.heads=3", "heads-do-not-divide"),
        ("model=huge", "unknown-option"),
        ("backend=numpy", "verify-key"),
        ("seed=-1", "verify-number"),
        ("model.attention=softmax", "verify-key"),
        ("B=1000000000", "memory-too-small"),
        ("model.layers=1000000000", "memory-too-small"),
        ("model.positions=1000000000", "memory-too-small"),
        (f"model.vocab_size={10**23}", "model-shape"),
        (f"model.layers={10**23}", "model-shape"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_folder(workplace, override, slug):
    with pytest.raises(HarnessError) as refused:
        run_verify_write("state", [*_sizes(SIZES), override])
    assert refused.value.slug == slug
    assert not Path("state").exists()


def test_a_disk_that_is_full_leaves_neither_file_and_the_next_attempt_is_free(
    workplace, monkeypatch
):
    real, opened = os.write, []

    def full(descriptor, data):
        if (
            os.readlink(f"/proc/self/fd/{descriptor}")
            .rpartition("/")[2]
            .startswith((".model", "model"))
        ):
            opened.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(HarnessError) as refused:
            run_verify_write("state", _sizes(SIZES))
    assert opened and refused.value.exit_code == 7
    assert os.listdir("state") == []
    run_verify_write("state", _sizes(SIZES))


def test_pytorch_finds_what_the_written_state_says(workplace):
    torch = pytest.importorskip("torch", reason="the extra [reference] is not installed: no torch")
    pytest.importorskip("transformers", reason="the extra [reference] is not installed")
    sizes = SIZES | {"layers": 2, "channels": 12, "positions": 9, "vocab_size": 31}
    run_verify_write("state", [*_sizes(sizes), "B=3", "T=6"])
    make = _make_module()
    with LlmcModel("state/model.bin") as source:
        model = source.model
        case = _case(make, source, *_tokens("state/debug_state.bin", 3, 6))
    raw = Path("state/debug_state.bin").read_bytes()
    answer = make.ask(case)
    at = 1024 + 8 * 3 * 6
    logits = np.frombuffer(raw, "<f4", 3 * 6 * 31, at).reshape(3, 6, 31)
    assert _relative(logits, answer.logits) < 1e-7  # rounded once to float32
    (loss,) = np.frombuffer(raw, "<f4", 1, at + logits.nbytes)
    assert loss == pytest.approx(answer.losses[0], rel=1e-7)
    at += logits.nbytes + 4
    for kind in KINDS:
        expected = answer.gradients[kind]
        rows = model.padded_vocab if kind == "wte" else len(expected)
        found = np.frombuffer(raw, "<f4", rows * (expected.size // len(expected)), at)
        at += found.nbytes
        assert _relative(found[: expected.size], expected.ravel()) < 1e-7, kind
    assert at == len(raw)

    theirs = make._model(case)
    optimizer = torch.optim.AdamW(
        theirs.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
    )
    tokens, targets = (torch.from_numpy(a.astype(int)) for a in (case.tokens, case.targets))
    with LlmcModel("state/model.bin") as source:
        for ours in steps_check.float64_losses(source, case.tokens, case.targets, 10):
            logits = theirs(tokens).logits.flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
            assert ours == pytest.approx(loss.item(), rel=1e-12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _sizes(sizes):
    return [f"model.{name}={value}" for name, value in sizes.items()]


def _make_module():
    """golden/make.py, whichever folder the tests are run from."""
    path = Path(__file__).parent / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_make", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _case(make, source, tokens_BT, targets_BT):
    """The stored model as the referee of golden/ takes one."""
    model, weights = source.model, {}
    for kind in KINDS:
        parts = []
        for name in tensor_names(model, kind):
            shape = kind_shapes(model)[kind]
            values = np.empty(shape, np.float32)
            source.read_into(name, values)
            parts.append(values)
        weights[kind] = parts[0] if kind in OF_THE_MODEL else np.stack(parts)
    weights["wte"] = weights["wte"][: model.vocab_size]
    shape = make.Shape(
        *(model.layers, model.heads, model.channels, model.positions, model.vocab_size),
        *tokens_BT.shape,
    )
    return make.Case(shape, weights, tokens_BT, targets_BT)


def _tokens(path, B, T):
    return np.frombuffer(Path(path).read_bytes(), "<i4", 2 * B * T, 1024).reshape(2, B, T).copy()


def _relative(found, expected):
    difference = np.asarray(found, np.float64) - np.asarray(expected, np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))
