"""llm.c's debug states."""

import os

import numpy as np
import pytest

from harness.errors import CheckpointError, DataError, HarnessError, NumericsError
from harness.interchange.llmc import debug_state as llmc_debug_state
from harness.interchange.llmc.debug_state import (
    LlmcDebugState,
    debug_state_bytes,
    write_debug_state,
)
from harness.models.gpt2 import GPT2
from tests.unit.interchange import llmc_by_hand as by_hand
from tests.unit.interchange.llmc_by_hand import GPT2_124M, MODEL, changed

B, T, V = 2, 5, 131
RNG = np.random.default_rng(3)
X_BT, Y_BT = RNG.integers(0, V, (2, B, T)).astype(np.int32)
LOGITS_BTV = RNG.standard_normal((B, T, V)).astype(np.float32)
GRADIENTS = by_hand.random_kinds(seed=4)
WHOLE = by_hand.debug_state(X_BT, Y_BT, LOGITS_BTV, 4.875, GRADIENTS)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "state.bin"
        path.write_bytes(data)
        return path

    return write


def test_a_file_written_by_hand_is_read(write):
    with LlmcDebugState(write(WHOLE), MODEL) as found:
        assert (found.B, found.T, found.loss) == (B, T, 4.875)
        assert found.x_BT.dtype == found.y_BT.dtype == np.int32
        assert np.array_equal(found.x_BT, X_BT)
        assert np.array_equal(found.y_BT, Y_BT)
        assert np.array_equal(found.read_logits(), LOGITS_BTV)
        rows_NV = np.empty((3, V), np.float32)
        found.read_logits_into(rows_NV, first=4)
        assert np.array_equal(rows_NV, LOGITS_BTV.reshape(-1, V)[4:7])
        for name, expected in by_hand.tensors(GRADIENTS).items():
            out = np.full(expected.shape, np.nan, np.float32)
            found.read_gradient_into(name, out)
            assert np.array_equal(out, expected), name


@pytest.mark.parametrize("by_blocks", [False, True])
def test_a_round_trip_gives_the_same_bytes(write, tmp_path, by_blocks):
    with LlmcDebugState(write(WHOLE), MODEL) as found:
        logits = found.read_logits()
        if by_blocks:
            logits = iter([logits[0, :3], logits[0, 3:], logits[1:]])

        def gradient(name):
            out = np.empty(by_hand.tensors(GRADIENTS)[name].shape, np.float32)
            found.read_gradient_into(name, out)
            return out

        path = tmp_path / "again.bin"
        write_debug_state(path, MODEL, found.x_BT, found.y_BT, logits, found.loss, gradient)
    assert path.read_bytes() == WHOLE


def test_what_a_float64_referee_found_is_written_as_float32(tmp_path):
    kinds = {kind: values.astype(np.float64) for kind, values in GRADIENTS.items()}
    kinds["wte"][V:] = 9  # what a referee may leave in the padding
    gradient = by_hand.tensors(kinds).__getitem__
    logits_BTV = LOGITS_BTV.astype(np.float64)
    write_debug_state(tmp_path / "s.bin", MODEL, X_BT, Y_BT, logits_BTV, 4.875, gradient)
    assert (tmp_path / "s.bin").read_bytes() == WHOLE
    assert (kinds["wte"][V:] == 9).all(), "the caller's gradient is left as it is"


def test_the_state_of_gpt2_124m_has_its_published_size():
    assert debug_state_bytes(GPT2_124M, 4, 64) == 549_369_860


LONG = by_hand.debug_state(
    np.zeros((1, 7), int), np.zeros((1, 7), int), np.zeros((1, 7, V)), 1.0, GRADIENTS
)
DAMAGED = {
    "empty": (b"", CheckpointError, "llmc-file-unknown"),
    "header cut": (WHOLE[:1000], CheckpointError, "llmc-file-unknown"),
    "a model": (changed(WHOLE, 0, "<i", 20240326), CheckpointError, "llmc-file-unknown"),
    "version": (changed(WHOLE, 4, "<i", 1), CheckpointError, "llmc-version"),
    "a byte less": (WHOLE[:-1], CheckpointError, "llmc-file-size"),
    "a byte more": (WHOLE + b"\0", CheckpointError, "llmc-file-size"),
    "more sequences": (changed(WHOLE, 8, "<i", 2**31 - 1), CheckpointError, "llmc-file-size"),
    "no sequences": (changed(WHOLE, 8, "<i", 0), CheckpointError, "llmc-header-damaged"),
    "negative": (changed(WHOLE, 12, "<i", -5), CheckpointError, "llmc-header-damaged"),
    "too long for the model": (LONG, CheckpointError, "llmc-header-damaged"),
    "unused slot": (changed(WHOLE, 16, "<i", 1), CheckpointError, "llmc-header-damaged"),
    "token": (changed(WHOLE, 1024, "<i", 131), DataError, "token-id-out-of-range"),
    "negative token": (changed(WHOLE, 1024, "<i", -1), DataError, "token-id-out-of-range"),
    "target": (changed(WHOLE, 1064, "<i", 131), DataError, "token-id-out-of-range"),
    "loss": (changed(WHOLE, 1104 + 4 * 1310, "<f", np.nan), NumericsError, "llmc-not-finite"),
}


@pytest.mark.parametrize(("data", "kind", "slug"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(write, data, kind, slug):
    with pytest.raises(kind) as caught:
        LlmcDebugState(write(data), MODEL)
    assert caught.value.slug == slug


def test_the_state_of_another_model_is_refused_by_its_size(write):
    other = GPT2(layers=2, heads=2, channels=8, positions=6, vocab_size=131)
    with pytest.raises(CheckpointError, match="wrong size") as caught:
        LlmcDebugState(write(WHOLE), other)
    assert "2 layers" in caught.value.facts["expected"]


def test_a_number_that_is_not_finite_is_refused_where_it_is_read(write, monkeypatch):
    monkeypatch.setattr(llmc_debug_state, "BLOCK_BYTES", 4 * 3 * V)  # three rows in a block
    byte = 1104 + 4 * (4 * V + 7)
    infinite_logit = changed(WHOLE, byte, "<f", np.inf)
    nan_gradient = changed(WHOLE, len(WHOLE) - 4, "<f", np.nan)
    for data, name in (
        (infinite_logit, r"logits from row 3\[1, 7\]"),
        (nan_gradient, r"gradient of lnfb\[7\]"),
    ):
        with (
            LlmcDebugState(write(data), MODEL) as found,
            pytest.raises(NumericsError, match=name),
        ):
            found.check()
    with LlmcDebugState(write(WHOLE), MODEL) as found:
        found.check()


def test_a_mutant_is_read_or_refused_with_one_typed_error(write):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        byte = int(rng.integers(0, 20 if rng.random() < 0.7 else len(WHOLE) - 4))
        try:
            mutant = changed(WHOLE, byte, "<I", int(rng.integers(0, 2**32)))
            with LlmcDebugState(write(mutant), MODEL) as state:
                state.check()
        except HarnessError:
            refused += 1
    assert refused > 100


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "state.bin"
    gradient = by_hand.tensors(GRADIENTS).__getitem__
    infinite_BTV = LOGITS_BTV.copy()
    infinite_BTV[1, 4, 130] = np.inf
    too_large = {**by_hand.tensors(GRADIENTS), "lnfw": np.full(8, 1e39)}
    with pytest.raises(KeyError):
        write_debug_state(path, MODEL, X_BT, Y_BT, LOGITS_BTV, 1.0, {}.__getitem__)
    with pytest.raises(NumericsError, match="loss"):
        write_debug_state(path, MODEL, X_BT, Y_BT, LOGITS_BTV, float("nan"), gradient)
    with pytest.raises(NumericsError, match=r"logits from row 0\[9, 130\]"):
        write_debug_state(path, MODEL, X_BT, Y_BT, infinite_BTV, 1.0, gradient)
    with pytest.raises(NumericsError, match=r"gradient of lnfw\[0\]"):
        write_debug_state(path, MODEL, X_BT, Y_BT, LOGITS_BTV, 1.0, too_large.__getitem__)
    with pytest.raises(DataError, match="outside the vocabulary"):
        write_debug_state(path, MODEL, X_BT, Y_BT + V, LOGITS_BTV, 1.0, gradient)
    with pytest.raises(AssertionError, match="5 rows of logits, 10 tokens"):
        write_debug_state(path, MODEL, X_BT, Y_BT, [LOGITS_BTV[0]], 1.0, gradient)
    assert os.listdir(tmp_path) == []
