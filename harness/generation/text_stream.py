"""Show tokens as text as they come: a character appears when all of its bytes are there."""

from harness.tokenizers import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HELD_AT_MOST = 16
"""Tokens that are decoded again with each new one, where none of them ends a character."""


class TextStream:
    """The text of one row. What `add` and `finish` return, joined, is the text of all the tokens.

    context: tokens before the first one, for tokenizers that write something between two tokens.
    """

    def __init__(self, tokenizer: Tokenizer, context: list[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = context[-1:]
        self._shown = len(tokenizer.decode(self._ids))

    def add(self, token: int) -> str:
        """The characters that this token completes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        # At the end of what was decoded, half a character and a wrong byte look the same.
        whole = not text.endswith(REPLACEMENT)
        new = text[self._shown :] if whole else text[self._shown : -1]
        if whole:
            self._keep(self._ids[-1:])
        else:
            self._shown += len(new)
            if len(self._ids) > HELD_AT_MOST:
                self._let_go(text)
        return new

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        return self._tokenizer.decode(self._ids)[self._shown :]

    def _keep(self, ids: list[int]) -> None:
        self._ids = ids
        self._shown = len(self._tokenizer.decode(ids))

    def _let_go(self, text: str) -> None:
        """Drop tokens whose characters are told, cutting where the parts decode to the whole."""
        decode = self._tokenizer.decode
        for cut in range(len(self._ids) - 1, 0, -1):
            first, rest = decode(self._ids[:cut]), decode(self._ids[cut:])
            if first + rest == text and len(first) <= self._shown:
                self._ids, self._shown = self._ids[cut:], self._shown - len(first)
                return


def printable(text: str) -> str:
    """Text for a terminal: control characters, which could move the cursor, become dots."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)
