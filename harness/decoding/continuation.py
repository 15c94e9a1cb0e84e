"""Continue the rows of a batch, token by token; a row that has ended stands still while others go on.

    rows = [Row(prompt, row_stream(seed, i)) for i, prompt in enumerate(prompts)]
    for advanced in continuations(decoder, rows, settings, length=128, stop=50256):
        ...                                        # the rows that have a token more, or have ended

What a row becomes depends on its prompt and its stream alone, not on the rows beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.decoding.sampling import Sampling, draw

if TYPE_CHECKING:
    from harness.decoding.decoder import NextToken

LENGTH, END_OF_TEXT, INTERRUPTED = "length", "end_of_text", "interrupted"


@dataclass
class Row:
    """A prompt and what continues it. ended: why it did, None while it goes on.

    prompt: at least one token. The token that ends a text is not among `tokens`.
    """

    prompt: Sequence[int]
    rng: np.random.Generator
    tokens: list[int] = field(default_factory=list)
    ended: str | None = None

    @property
    def context(self) -> list[int]:
        return [*self.prompt, *self.tokens]


def continuations(
    decoder: "NextToken",
    rows: list[Row],
    settings: Sampling,
    length: int,
    stop: int | None = None,
    vocab_size: int | None = None,
) -> Iterator[list[Row]]:
    """Draw up to `length` tokens for each row; after each, the rows that have advanced.

    stop: the token that ends a row, None for none. vocab_size: only lower ids are drawn.
    Each step draws for every row that goes on; the streams of those that ended are left alone.
    """
    logits_BV = decoder.start([list(row.prompt) for row in rows])
    fed_B = np.zeros(len(rows), np.int32)
    while True:
        advanced = [row for row in rows if row.ended is None]
        for i, row in enumerate(rows):
            if row.ended is None:
                fed_B[i] = _advance(row, logits_BV[i, :vocab_size], settings, length, stop)
        yield advanced
        if all(row.ended is not None for row in rows):
            return
        # A row that has ended is fed its last token again: what it computes is not looked at.
        logits_BV = decoder.step(fed_B)


def _advance(
    row: Row, logits_V: np.ndarray, settings: Sampling, length: int, stop: int | None
) -> int:
    token = draw(logits_V, row.rng, settings, row.context)
    if token == stop:
        row.ended = END_OF_TEXT
        return token
    row.tokens.append(token)
    if len(row.tokens) == length:
        row.ended = LENGTH
    return token
