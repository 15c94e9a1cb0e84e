"""Write any bytes as printable characters, one each, as GPT-2's vocabulary files do.

A byte that Latin-1 shows as a mark is that mark; the other 68 (blanks, controls, the soft hyphen)
are the characters from U+0100 on, in order: a space is Ġ, a newline Ċ.
"""

MARKS = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
HIDDEN = tuple(byte for byte in range(256) if byte not in MARKS)

CHARACTER_OF = {byte: chr(byte) for byte in MARKS}
CHARACTER_OF |= {byte: chr(0x100 + place) for place, byte in enumerate(HIDDEN)}
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}


def printable(piece: bytes) -> str:
    return "".join(map(CHARACTER_OF.__getitem__, piece))


def in_bytes(text: str) -> bytes:
    """The bytes that printable made text of. Raises KeyError for any other character."""
    return bytes(map(BYTE_OF.__getitem__, text))
