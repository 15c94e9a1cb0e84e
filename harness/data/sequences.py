"""The endless stream of training sequences, as a pure function of its position.

Sequence i covers tokens[i*T : i*T + T + 1]: x is its first T tokens, y the same shifted by one.
Position n of the stream is sequence permutation_e[n mod per_epoch] of epoch e = n div per_epoch,
where permutation_e is drawn from Philox with the key (seed, e). Nothing is carried from one call to
the next, so a resumed run needs one integer.
"""

import numpy as np
import numpy.typing as npt

from harness.data.dataset import require

Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


class Sequences:
    """tokens: 1-D integers, at least T + 1 of them, neither copied nor changed.
    seed: 0 .. 2**64 - 1.
    shuffle: False walks in order, over and over: validation.
    """

    def __init__(
        self, tokens: npt.NDArray[np.integer], T: int, seed: int, shuffle: bool = True
    ) -> None:
        assert tokens.ndim == 1, "tokens are one row"
        assert 0 <= seed < 2**64, "a seed is 64 bits"
        require(tokens, batch_size=1, T=T)
        self.tokens = tokens
        self.T = T
        self.seed = seed
        self.shuffle = shuffle
        self.per_epoch = (len(tokens) - 1) // T
        self._epoch = -1
        self._order: npt.NDArray[np.int64] | None = None

    def take(self, first: int, count: int, out: Batch | None = None) -> Batch:
        """Sequences first .. first + count - 1 of the stream, as x_BT and y_BT with B = count.

        out: two C-contiguous int32 arrays of shape (count, T) to write into, and to return.
        """
        assert first >= 0 and count >= 0, "the stream begins at 0"
        shape = (count, self.T)
        if out is None:
            out = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
        x_BT, y_BT = out
        assert x_BT.shape == y_BT.shape == shape, "buffers must have shape (count, T)"
        for row in range(count):
            start = self._sequence(first + row) * self.T
            x_BT[row] = self.tokens[start : start + self.T]
            y_BT[row] = self.tokens[start + 1 : start + self.T + 1]
        return x_BT, y_BT

    def _sequence(self, position: int) -> int:
        epoch, n = divmod(position, self.per_epoch)
        if not self.shuffle:
            return n
        if epoch != self._epoch or self._order is None:
            key = np.array([self.seed, epoch], dtype=np.uint64)
            self._order = np.random.Generator(np.random.Philox(key=key)).permutation(self.per_epoch)
            self._epoch = epoch
        return int(self._order[n])
