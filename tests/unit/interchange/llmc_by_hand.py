"""llm.c's files written by hand from the description of their formats: the referee of the readers.

Nothing of harness/interchange is used, nor its tables of shapes and names.
"""

import struct

import numpy as np

from harness.models.gpt2 import GPT2

MODEL = GPT2(layers=3, heads=2, channels=8, positions=6, vocab_size=131)
PADDED = 256
GPT2_124M = GPT2(layers=12, heads=12, channels=768, positions=1024, vocab_size=50257)


def header(*slots, longs=()):
    """256 int32. longs: (byte, number of eight bytes)."""
    raw = bytearray(struct.pack(f"<{len(slots)}i", *slots).ljust(1024, b"\0"))
    for byte, number in longs:
        struct.pack_into("<Q", raw, byte, number)
    return bytes(raw)


def shapes(model=MODEL, padded=PADDED):
    """Kind -> shape with the layers in front, in the order of the files."""
    L, C, T = model.layers, model.channels, model.positions
    return {
        "wte": (padded, C), "wpe": (T, C),
        "ln1w": (L, C), "ln1b": (L, C),
        "qkvw": (L, 3 * C, C), "qkvb": (L, 3 * C),
        "attprojw": (L, C, C), "attprojb": (L, C),
        "ln2w": (L, C), "ln2b": (L, C),
        "fcw": (L, 4 * C, C), "fcb": (L, 4 * C),
        "fcprojw": (L, C, 4 * C), "fcprojb": (L, C),
        "lnfw": (C,), "lnfb": (C,),
    }  # fmt: skip


def random_kinds(seed, model=MODEL, padded=PADDED):
    """Kind -> float32 numbers; the padding rows are zero."""
    rng = np.random.default_rng(seed)
    kinds = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes(model, padded).items()}
    kinds["wte"][model.vocab_size :] = 0
    return kinds


def tensors(kinds):
    """Name of the harness -> numbers: one tensor of each layer."""
    found = {}
    for kind, values in kinds.items():
        if kind in ("wte", "wpe", "lnfw", "lnfb"):
            found[kind] = values
        else:
            found |= {f"{kind}.{layer}": values[layer] for layer in range(len(values))}
    return found


def float32(kinds):
    return b"".join(values.astype("<f4").tobytes() for values in kinds.values())


def bfloat16(kinds):
    """Rounded to the nearest, ties to even, by the arithmetic of the bits."""
    parts = []
    for values in kinds.values():
        bits = values.astype("<f4").view("<u4").astype(np.uint64)
        parts.append(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes())
    return b"".join(parts)


def model_header(version=3, model=MODEL, padded=PADDED, magic=20240326):
    sizes = (model.positions, model.vocab_size, model.layers, model.heads, model.channels)
    return header(magic, version, *sizes, padded)


def model_file(kinds, version=3):
    return model_header(version) + (float32(kinds) if version == 3 else bfloat16(kinds))


def debug_state(x_BT, y_BT, logits_BTV, loss, gradients):
    ids = [np.asarray(ids, "<i4").tobytes() for ids in (x_BT, y_BT)]
    numbers = [logits_BTV.astype("<f4").tobytes(), struct.pack("<f", loss), float32(gradients)]
    return header(20240327, 2, *np.shape(x_BT)) + b"".join([*ids, *numbers])


def tokenizer(pieces, *slots):
    return header(20240328, *slots) + b"".join(bytes([len(p)]) + p for p in pieces)


def state_header(processes=1, rank=0, master=0, shuffle=0, step=7, longs=()):
    slots = (20240527, 1, processes, rank, master, shuffle, 0, 0, 0, 0, step)
    return header(*slots, longs=longs)


def shuffle_order(shards, samples):
    """The loader's order; the generator's struct is 2,520 bytes of no matter what."""
    parts = [struct.pack(f"<Q{len(o)}i", len(o), *o) for o in (shards, samples)]
    return b"".join([*parts, bytes(i % 251 for i in range(2520))])


def part_of_rank(kinds, rank, processes):
    """The numbers of one rank in ZeRO stage 1: an equal part of every tensor of every layer."""
    parts = []
    for tensor in tensors(kinds).values():
        flat = tensor.reshape(-1)
        n = len(flat) // processes
        parts.append(flat[rank * n : (rank + 1) * n].astype("<f4").tobytes())
    return b"".join(parts)


def changed(data, byte, form, value):
    """data with one number replaced."""
    raw = bytearray(data)
    struct.pack_into(form, raw, byte, value)
    return bytes(raw)


class InMemory:
    """A ModelFile of arrays; it fails at `fails_at` with an error of its own."""

    path, description, tokenizer = None, "in memory", None
    dtype = np.dtype(np.float32)

    def __init__(self, kinds, model=MODEL, fails_at=None):
        self.model, self.values, self.fails_at = model, tensors(kinds), fails_at

    def read_into(self, name, out):
        if name == self.fails_at:
            raise RuntimeError(f"no {name}")
        out[...] = self.values[name]

    def close(self):
        pass
