"""Cut the batch of a step into micro-batches, and read the loss of each.

All that a step needs for it is taken once: from the second step on no array is made.
"""

from collections.abc import Callable

import numpy as np

from harness.device import reading
from harness.execution.executor import Executor


class MicroBatches:
    """The micro-batches of a step: `count` of them, of B sequences of T tokens."""

    def __init__(self, executor: Executor, count: int, B: int, T: int) -> None:
        self.count = count
        self._executor, self._B = executor, B
        self._position_B = np.zeros(B, np.int32)
        executor.write("position", self._position_B)
        self._loss_N = executor.read()
        self._wide_N = np.zeros(self._loss_N.shape, np.float64)
        self._counted_BT = np.zeros((B, T), bool)

    def write(self, micro: int, x_BT: np.ndarray, y_BT: np.ndarray) -> None:
        """Give the executor one of the micro-batches of a step."""
        rows = self._rows(micro)
        self._executor.write("tokens", x_BT[rows])
        self._executor.write("targets", y_BT[rows])

    def targets(self, y_BT: np.ndarray) -> int:
        """How many targets of a step are not ignored."""
        counted = 0
        for micro in range(self.count):
            np.greater_equal(y_BT[self._rows(micro)], 0, out=self._counted_BT)
            counted += int(np.count_nonzero(self._counted_BT))
        return counted

    def loss(self) -> Callable[[], float]:
        """A call that gives the sum of the losses that the device holds now; it may wait."""
        device, loss_N = self._executor.result()
        return reading(device, loss_N, self._loss_N, self._summed)

    def first_nonfinite(self, x_BT: np.ndarray, y_BT: np.ndarray) -> str | None:
        """The first op of a step that gives NaN or Inf when the step is run again."""
        culprit = None
        for micro in range(self.count):
            self.write(micro, x_BT, y_BT)
            culprit = culprit or self._executor.first_nonfinite()
        return culprit

    def _rows(self, micro: int) -> slice:
        return slice(micro * self._B, (micro + 1) * self._B)

    def _summed(self, loss_N: np.ndarray) -> float:
        """The sum of the losses of all rows, in double."""
        np.copyto(self._wide_N, loss_N)
        return float(self._wide_N.sum())
