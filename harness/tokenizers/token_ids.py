"""Refuse token ids outside the vocabulary, before any kernel uses one as an address."""

import numpy as np
import numpy.typing as npt

from harness.errors import DataError


def check_token_ids(
    tokens: npt.ArrayLike, vocab_size: int, where: str | None = None
) -> npt.NDArray[np.integer]:
    """tokens as an integer array; the first id that is not in 0 .. vocab_size - 1 is refused.

    tokens: any shape and any integer type; an empty list is allowed.
    where: what the tokens are called in the error, such as their file.
    """
    ids = np.asarray(tokens)
    if ids.size == 0:
        return ids.astype(np.int32)
    if ids.dtype.kind not in "iu":
        raise DataError(
            "token ids must be 64-bit integers",
            slug="token-ids-not-integers",
            where=where,
            found=f"dtype {ids.dtype}",
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        first = int(np.argmax((ids < 0) | (ids >= vocab_size)))
        position = tuple(int(index) for index in np.unravel_index(first, ids.shape))
        raise DataError(
            f"token id {ids[position]} is outside the vocabulary",
            slug="token-id-out-of-range",
            where=where,
            position=f"{position[0]:,}" if len(position) == 1 else position,
            expected=f"0 to {vocab_size - 1:,}",
            do="use the tokenizer that made these ids",
        )
    return ids
