"""Damage a file as disks, networks and attackers do; each mutant is a pure function of its seed."""

import json
import struct

import numpy as np

NUMBERS = (0, 1, -1, 2, 3, 5, 127, 128, 255, 256, 65_535, 65_536, 2**24, 2**31 - 1, -(2**31))
LARGE = (2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1)
HEADER_BYTES = 1024


def mutant(content: bytes, seed: int, number: int) -> bytes:
    """Mutant `number` of a file's bytes: one to three mutations, drawn from (seed, number)."""
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
    for _ in range(int(rng.integers(1, 4))):
        kinds = JSON_KINDS if content[:1] in (b"{", b"[") and rng.random() < 0.6 else BYTE_KINDS
        content = kinds[int(rng.integers(len(kinds)))](content, rng)
    return content


def _cut(content, rng):
    return content[: int(rng.integers(0, len(content) + 1))]


def _cut_at_a_boundary(content, rng):
    places = [p for p in (0, 4, 8, 1023, 1024, 1025, 1028, len(content) - 1) if p >= 0]
    return content[: places[int(rng.integers(len(places)))]]


def _append(content, rng):
    return content + rng.bytes(int(rng.choice([1, 2, 4, 7, 1024])))


def _flip_bits(content, rng):
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if changed:
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set_header_number(content, rng):
    """One of the first 40 four-byte integers, or eight bytes at once."""
    changed = bytearray(content)
    offset = 4 * int(rng.integers(0, 40))
    if rng.random() < 0.7:
        packed = struct.pack("<i", int(rng.choice(NUMBERS)))
    else:
        packed = struct.pack("<q", int(rng.choice(LARGE)))
    if offset + len(packed) <= len(changed):
        changed[offset : offset + len(packed)] = packed
    return bytes(changed)


def _nudge_header_number(content, rng):
    changed = bytearray(content)
    offset = 4 * int(rng.integers(0, 12))
    if offset + 4 <= len(changed):
        (value,) = struct.unpack_from("<i", changed, offset)
        value = (value + int(rng.choice([-2, -1, 1, 2, 64, 128])) + 2**31) % 2**32 - 2**31
        struct.pack_into("<i", changed, offset, value)
    return bytes(changed)


def _overwrite(content, rng):
    """A stretch of zeros, ones or noise: a bad block."""
    changed = bytearray(content)
    if not changed:
        return content
    start = int(rng.integers(len(changed)))
    length = min(int(rng.integers(1, 600)), len(changed) - start)
    fill = [bytes(length), b"\xff" * length, rng.bytes(length)][int(rng.integers(3))]
    changed[start : start + length] = fill
    return bytes(changed)


def _move(content, rng):
    """A stretch is lost, or stands twice."""
    if len(content) < 2:
        return content
    a, b = sorted(int(x) for x in rng.integers(0, len(content), 2))
    return content[:a] + content[b:] if rng.random() < 0.5 else content[:b] + content[a:]


def _not_finite(content, rng):
    """A NaN or an infinity among the payload, as float32 or bfloat16."""
    changed = bytearray(content)
    value = struct.pack("<f", float(rng.choice([np.nan, np.inf, -np.inf, 3e38])))
    value = value if rng.random() < 0.5 else value[2:]
    start = int(rng.integers(0, max(1, len(changed) - 4))) // 4 * 4
    changed[start : start + len(value)] = value
    return bytes(changed)


def _json_value(content, rng):
    """One value of a JSON text becomes another, of any kind."""
    places = []

    def walk(node):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    try:
        tree = json.loads(content)
        if isinstance(tree, dict | list):
            walk(tree)
    except (
        ValueError,
        RecursionError,
    ):  # too deep: for json up to Python 3.12, for us from 3.13 on
        return content
    if not places:
        return content
    node, key = places[int(rng.integers(len(places)))]
    choice = int(rng.integers(10))
    values = (None, True, "", "x" * 300, -1, 1.5, 2**63, [], {}, [[[]]])
    if choice == 9 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = values[choice] if rng.random() < 0.8 else int(rng.choice(LARGE))
    return json.dumps(tree).encode()


def _json_text(content, rng):
    """Deep nesting, a key twice, numbers that are none."""
    parts = (
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        content.replace(b":", b":NaN,", 1),
        content.replace(b"{", b'{"a":1,"a":2,', 1),
        content.replace(b"1", b"1e999", 1),
        content.replace(b"0", b"9" * 5_000, 1),
        b"\xff\xfe" + content,
    )
    return parts[int(rng.integers(len(parts)))]


BYTE_KINDS = (
    _cut,
    _cut_at_a_boundary,
    _append,
    _flip_bits,
    _flip_bits,
    _set_header_number,
    _set_header_number,
    _nudge_header_number,
    _overwrite,
    _move,
    _not_finite,
)
JSON_KINDS = (_json_value, _json_value, _json_value, _json_text)
