"""One array against another: how far off together, and where most.

A kind of gradient is several tensors, and may be hundreds of MiB: they are compared in float64, piece by
piece.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

PIECE = 1 << 20  # numbers; some tens of MiB of temporaries


@dataclass(frozen=True)
class Row:
    """One line of the table. note: what is always said; worst: what is said of a failure."""

    name: str
    error: float
    bound: float
    note: str = ""
    worst: str = ""

    @property
    def ok(self) -> bool:
        return self.error <= self.bound  # NaN is not

    def __str__(self) -> str:
        said = "; ".join(text for text in (self.note, "" if self.ok else self.worst) if text)
        verdict = "ok" if self.ok else "FAIL"
        line = f"{self.name:<12}{self.error:>9.1e}{self.bound:>9.0e}  {verdict:<4}  {said}"
        return line.rstrip()

    def record(self) -> dict[str, Any]:
        """The row as JSON holds it; what is not finite becomes a word."""
        error = self.error if math.isfinite(self.error) else str(self.error)
        return {
            "name": self.name,
            "error": error,
            "bound": self.bound,
            "ok": self.ok,
            "note": self.note,
            "worst": self.worst,
        }


class Difference:
    """What `add` was given, all together: squares of the difference, and its largest element."""

    def __init__(self) -> None:
        self._squares = self._expected_squares = 0.0
        self.largest = -1.0
        self.worst = ""

    def add(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        """Compare two arrays of one shape. name: the tensor's, for the place of the worst element."""
        flat_found, flat_expected = found.reshape(-1), expected.reshape(-1)
        for start in range(0, found.size, PIECE):
            piece = slice(start, start + PIECE)
            ours = flat_found[piece].astype(np.float64)
            theirs = flat_expected[piece].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN are told in the table
                apart = np.abs(ours - theirs)
                self._squares += float(apart @ apart)
                self._expected_squares += float(theirs @ theirs)
            at = int(np.argmax(apart))  # the first NaN, where there is one
            if apart[at] > self.largest or np.isnan(apart[at]) > math.isnan(self.largest):
                self.largest = float(apart[at])
                place = np.unravel_index(start + at, found.shape)
                index = ", ".join(str(int(i)) for i in place)
                self.worst = f"{name}[{index}] is {ours[at]:.6g}, and {theirs[at]:.6g} in the state"

    @property
    def relative(self) -> float:
        """The L2 norm of the difference, by that of what is expected."""
        if self._expected_squares == 0:
            return 0.0 if self._squares == 0 else math.inf
        return math.sqrt(self._squares / self._expected_squares)
