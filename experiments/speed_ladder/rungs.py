"""The rungs of the ladder, as plain data: each is one `harness bench train`."""

from dataclasses import dataclass

NATIVE = None
"""OPENBLAS_CORETYPE not set: the library chooses its kernels itself."""


@dataclass(frozen=True)
class Rung:
    """title: in README.md's table. overrides: of everyone. backends, variants, peers: who trains.

    llmc: with llm.c's trainer, where one is given. coretype: OPENBLAS_CORETYPE; NATIVE: not set.
    threads: of everyone who says nothing else.
    """

    title: str
    overrides: tuple[str, ...]
    backends: tuple[str, ...]
    variants: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    llmc: bool = False
    coretype: str | None = NATIVE
    threads: int = 2


NO_CLIPPING = "clip_norm=null"
AS_LLMC = ("experiment=llmc_cpu",)  # GPT-2 124M, B=4, T=64, nothing clipped
LONG = ("model=gpt2_124m", "batch_size=1", "sequence_length=1024", NO_CLIPPING)
SMALL = ("model=tiny", "batch_size=12", "sequence_length=64", NO_CLIPPING)
FLOAT32 = ("torch", "torch-compile")


def _growing(batch_size: int, tokens: int, layers: int = 12) -> tuple[str, ...]:
    return (
        "model=gpt2_124m",
        f"model.layers={layers}",
        f"batch_size={batch_size}",
        f"sequence_length={tokens}",
        NO_CLIPPING,
    )


RUNGS: dict[str, Rung] = {
    "gpt2_124m": Rung(
        "GPT-2 124M, B=4, T=64", AS_LLMC, ("numba", "numpy"), peers=FLOAT32, llmc=True
    ),
    "gpt2_124m_haswell": Rung(
        "the same, OPENBLAS_CORETYPE=Haswell",
        AS_LLMC,
        ("numba", "numpy"),
        peers=FLOAT32,
        llmc=True,
        coretype="Haswell",
    ),
    "gpt2_124m_long": Rung("GPT-2 124M, B=1, T=1024", LONG, ("numba",), peers=FLOAT32),
    "tiny": Rung("4 layers, C=128, B=12, T=64", SMALL, ("numba", "numpy"), peers=FLOAT32),
    "gpt2_124m_bf16": Rung(
        "GPT-2 124M, B=4, T=64, bf16",
        AS_LLMC,
        ("numba",),
        variants=("backend=numba ops=cpu_bf16",),
        peers=("torch-bf16", "torch-bf16-compile"),
    ),
    "tiny_bf16": Rung(
        "4 layers, C=128, B=12, T=64, bf16",
        SMALL,
        ("numba",),
        variants=("backend=numba ops=cpu_bf16",),
        peers=("torch-bf16", "torch-bf16-compile"),
    ),
    "threads": Rung(
        "GPT-2 124M, B=4, T=64, one and two threads",
        AS_LLMC,
        ("numba",),
        variants=("backend=numba threads=1",),
        peers=("torch", "torch@1"),
    ),
    "growth_t64": Rung("12 layers, B=1, T=64", _growing(1, 64), ("numba",)),
    "growth_t256": Rung("12 layers, B=1, T=256", _growing(1, 256), ("numba",)),
    "growth_t1024": Rung("12 layers, B=1, T=1024", _growing(1, 1024), ("numba",)),
    "growth_layers3": Rung("3 layers, B=4, T=64", _growing(4, 64, 3), ("numba",)),
    "growth_layers6": Rung("6 layers, B=4, T=64", _growing(4, 64, 6), ("numba",)),
    "growth_layers12": Rung("12 layers, B=4, T=64", _growing(4, 64, 12), ("numba",)),
}
