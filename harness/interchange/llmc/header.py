"""Read and write the header of llm.c's files: 256 little-endian int32, of which few are used.

    slot 0      which kind of file it is
    slot 1      the version of that kind
    then        what each kind needs; a number of eight bytes takes two slots
    the rest    zero

A slot that should be zero and is not is refused: what it means is unknown here, and writing the file
again would lose it. Source: llm.c, train_gpt2.py, train_gpt2.c, llmc/dataloader.h.
"""

import struct
from collections.abc import Collection, Mapping
from pathlib import Path

from harness.errors import CheckpointError

SLOTS = 256
HEADER_BYTES = 4 * SLOTS

MODEL = 20240326
DEBUG_STATE = 20240327
TOKENIZER = 20240328
TOKENS = 20240520
MULTIPLE_CHOICE = 20240522
OPTIMIZER_STATE = 20240527
LLAMA3_TOKENS = 20240801
LLAMA3_MODEL = 20240803
KINDS_OF_FILE = {
    MODEL: "a model",
    DEBUG_STATE: "a debug state",
    TOKENIZER: "a tokenizer",
    TOKENS: "a file of token ids",
    MULTIPLE_CHOICE: "a multiple-choice evaluation",
    OPTIMIZER_STATE: "an optimizer state",
    LLAMA3_TOKENS: "a file of Llama 3 token ids",
    LLAMA3_MODEL: "a Llama 3 model",
}


class Header:
    """The 1,024 bytes with which a file began, checked."""

    def __init__(self, raw: bytes) -> None:
        assert len(raw) == HEADER_BYTES
        self._raw = raw
        self._slots = struct.unpack(f"<{SLOTS}i", raw)

    def __getitem__(self, slot: int) -> int:
        return int(self._slots[slot])

    @property
    def version(self) -> int:
        return self[1]

    def uint64(self, slot: int) -> int:
        """The number in slot and the one after it."""
        return int(struct.unpack_from("<Q", self._raw, 4 * slot)[0])


def encode(slots: Mapping[int, int], long_slots: Mapping[int, int] | None = None) -> bytes:
    """The header with these slots, and zero in the others. long_slots: numbers of eight bytes."""
    raw = bytearray(HEADER_BYTES)
    for slot, value in slots.items():
        struct.pack_into("<i", raw, 4 * slot, value)
    for slot, value in (long_slots or {}).items():
        struct.pack_into("<Q", raw, 4 * slot, value)
    return bytes(raw)


def decode(
    raw: bytes, path: Path, magic: int, versions: Collection[int], used: Collection[int]
) -> Header:
    """The header of a file that must be of one kind and of a known version.

    raw: the first 1,024 bytes of the file, or all of it if there are not so many.
    used: the slots that may be other than zero, those of magic and version not counted.
    """
    kind = KINDS_OF_FILE[magic]
    if len(raw) < HEADER_BYTES:
        raise _not_of_this_kind(
            path, kind, f"a header of {HEADER_BYTES:,} bytes", f"{len(raw):,} bytes in all"
        )
    header = Header(raw)
    if header[0] != magic:
        found = KINDS_OF_FILE.get(header[0], "not a number of llm.c's")
        raise _not_of_this_kind(path, kind, f"magic number {magic}", f"{header[0]}: {found}")
    if header.version not in versions:
        raise CheckpointError(
            f"{kind.partition(' ')[2]} of llm.c's has an unknown version: {path}",
            slug="llmc-version",
            expected=" or ".join(f"version {version}" for version in versions),
            found=f"version {header.version}",
            do="write the file again with a current llm.c",
        )
    for slot in range(2, SLOTS):
        if header[slot] and slot not in used:
            raise damaged(path, f"0 in slot {slot} of the header", f"{header[slot]}")
    return header


def require_positive(header: Header, path: Path, names: Mapping[int, str]) -> None:
    """Refuse a header in which one of these slots is not at least 1. names: slot -> what it counts."""
    for slot, name in names.items():
        if header[slot] < 1:
            raise damaged(path, f"{name} of at least 1", f"{header[slot]}")


def damaged(path: Path, expected: str, found: str) -> CheckpointError:
    """The error of a header that says what cannot be."""
    return CheckpointError(
        f"llm.c file has a header that can't be right: {path}",
        slug="llmc-header-damaged",
        where=path,
        expected=expected,
        found=found,
        do="copy or make the file again",
    )


def _not_of_this_kind(path: Path, kind: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"not {kind} of llm.c's: {path}",
        slug="llmc-file-unknown",
        where=path,
        expected=expected,
        found=found,
        do="give the file that llm.c wrote",
    )
