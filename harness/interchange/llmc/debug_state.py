"""llm.c's debug states: one batch, and what a right model makes of it, to verify another one against.

    slot 2 = B, slot 3 = T; the model's shape is not repeated, it is that of the model file beside it
    x, y        (B, T) int32: tokens and targets
    logits      (B, T, V): V without padding
    loss        the mean over the batch
    gradients   of that loss: the sixteen kinds, that of the token embedding padded with zero rows

All numbers are float32, also beside a model in bfloat16. File: `gpt2_124M_debug_state.bin`, version 2.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.interchange.closable import Closable
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.file import (
    BLOCK_BYTES,
    LlmcFile,
    finite_bytes,
    require_finite,
    write_llmc_file,
)
from harness.interchange.llmc.header import HEADER_BYTES
from harness.interchange.llmc.layout import Run, clear_padding, largest
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.tokenizers import check_token_ids

VERSION = 2
SIZES = {2: "sequences", 3: "tokens"}
FLOAT32 = np.dtype(np.float32)


class LlmcDebugState(Closable):
    """A debug state of llm.c's, open. model: the one that the file belongs to.

    The tokens are read and checked when it opens; logits and gradients when they are asked for.
    """

    def __init__(self, path: Path | str, model: GPT2) -> None:
        self.path, self.model = Path(path), model
        self._file = LlmcFile(self.path, llmc_header.DEBUG_STATE, (VERSION,), SIZES)
        try:
            self.B, self.T = self._checked_sizes()
            self.x_BT = self._ids("tokens", HEADER_BYTES)
            self.y_BT = self._ids("targets", HEADER_BYTES + 4 * self.B * self.T)
            loss = np.empty(1, np.float32)
            self._file.read_floats(self._loss_offset, loss, FLOAT32)
            require_finite(loss, "loss", self.path)
        except BaseException:
            self.close()
            raise
        self.loss = float(loss[0])

    def read_logits(self) -> np.ndarray:
        """All logits, (B, T, V): 51 MB for B = 4, T = 64 and GPT-2's vocabulary."""
        logits_BTV = np.empty((self.B, self.T, self.model.vocab_size), np.float32)
        self.read_logits_into(logits_BTV.reshape(self.B * self.T, -1))
        return logits_BTV

    def read_logits_into(self, out_NV: np.ndarray, first: int = 0) -> None:
        """Fill out, float32 with V columns, with the rows from `first` on; the file has B T of them."""
        rows, V = out_NV.shape
        assert self.model.vocab_size == V, f"{V} columns"
        assert first + rows <= self.B * self.T, "rows beyond the last"
        offset = HEADER_BYTES + 8 * self.B * self.T + 4 * first * V
        self._file.read_floats(offset, out_NV, FLOAT32)
        require_finite(out_NV, f"logits from row {first}", self.path)

    def read_gradient_into(self, name: str, out: np.ndarray) -> None:
        """Fill out, float32 of the tensor's shape, with the loss's gradient in it."""
        run = Run(self.model)
        assert out.shape == run.shape(name), f"{name}: {out.shape}"
        self._file.read_floats(self._loss_offset + 4 + 4 * run.offset(name), out, FLOAT32)
        clear_padding(self.model, name, out)
        require_finite(out, f"gradient of {name}", self.path)

    def check(self) -> None:
        """Read everything once, and raise what is wrong with the first."""
        N, V = self.B * self.T, self.model.vocab_size
        rows = min(N, max(1, BLOCK_BYTES // (4 * V)))
        block_NV = np.empty((rows, V), np.float32)
        for first in range(0, N, rows):
            self.read_logits_into(block_NV[: min(rows, N - first)], first)
        space = np.empty(largest(self.model), np.float32)
        run = Run(self.model)
        for name, shape in tensor_shapes(self.model).items():
            self.read_gradient_into(name, space[: run.length(name)].reshape(shape))

    def close(self) -> None:
        self._file.close()

    @property
    def _loss_offset(self) -> int:
        N = self.B * self.T
        return HEADER_BYTES + 8 * N + 4 * N * self.model.vocab_size

    def _checked_sizes(self) -> tuple[int, int]:
        header, model = self._file.header, self.model
        llmc_header.require_positive(header, self.path, SIZES)
        B, T = header[2], header[3]
        if model.positions < T:
            expected = f"at most {model.positions:,} tokens, the model's positions"
            raise llmc_header.damaged(self.path, expected, f"{T:,}")
        self._file.require_size(
            debug_state_bytes(model, B, T),
            f"{B:,} x {T:,} tokens of a model of {model.layers:,} layers, {model.channels:,} "
            f"channels, vocabulary {model.vocab_size:,}",
        )
        return B, T

    def _ids(self, what: str, offset: int) -> npt.NDArray[np.int32]:
        raw = self._file.read(offset, 4 * self.B * self.T)
        ids_BT = np.frombuffer(raw, "<i4").astype(np.int32).reshape(self.B, self.T)
        check_token_ids(ids_BT, self.model.vocab_size, where=f"{what} of {self.path}")
        return ids_BT


def debug_state_bytes(model: GPT2, B: int, T: int) -> int:
    """The size of the file: 549,369,860 for GPT-2 124M, B = 4, T = 64."""
    return HEADER_BYTES + 4 + 8 * B * T + 4 * B * T * model.vocab_size + 4 * Run(model).size


def write_debug_state(
    path: Path | str,
    model: GPT2,
    x_BT: npt.ArrayLike,
    y_BT: npt.ArrayLike,
    logits: np.ndarray | Iterable[np.ndarray],
    loss: float,
    gradient: Callable[[str], np.ndarray],
) -> None:
    """Write what a referee found for one batch; whole or not at all.

    logits: (B, T, V), or blocks of rows with V columns, which are B T rows together.
    gradient: of the mean loss, by the name of the tensor; that of wte has the padding rows.
    """
    x, y = (check_token_ids(ids, model.vocab_size, where=str(path)) for ids in (x_BT, y_BT))
    assert x.ndim == 2 and x.shape == y.shape, f"tokens {x.shape}, targets {y.shape}"
    assert x.shape[1] <= model.positions, f"{x.shape[1]} tokens, {model.positions} positions"
    pieces = _pieces(Path(path), model, x, y, logits, loss, gradient)
    write_llmc_file(Path(path), pieces, debug_state_bytes(model, *x.shape))


def _pieces(
    path: Path,
    model: GPT2,
    x_BT: np.ndarray,
    y_BT: np.ndarray,
    logits: np.ndarray | Iterable[np.ndarray],
    loss: float,
    gradient: Callable[[str], np.ndarray],
) -> Iterator[bytes | memoryview]:
    (B, T), rows = x_BT.shape, 0
    yield llmc_header.encode({0: llmc_header.DEBUG_STATE, 1: VERSION, 2: B, 3: T})
    yield x_BT.astype("<i4").tobytes()
    yield y_BT.astype("<i4").tobytes()
    for block in [logits] if isinstance(logits, np.ndarray) else logits:
        assert block.shape[-1] == model.vocab_size, f"logits {block.shape}: V without padding"
        yield finite_bytes(block.reshape(-1, model.vocab_size), f"logits from row {rows}", path)
        rows += block.size // model.vocab_size
    assert rows == B * T, f"{rows} rows of logits, {B * T} tokens"
    yield finite_bytes(np.asarray([loss]), "loss", path)
    for name, shape in tensor_shapes(model).items():
        values = gradient(name)
        assert values.shape == shape, f"gradient of {name}: {values.shape}"
        if name == "wte":
            values = values.copy()
            clear_padding(model, name, values)
        yield finite_bytes(values, f"gradient of {name}", path)
