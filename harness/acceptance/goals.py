"""The goals for a GPU, beside what a record shows: met, missed by how much, or not run.

MFU is the share that a step reaches of the FLOP/s that a card promises. Two conventions count a token's
FLOPs:

    llm.c      6 N + 6 L C T      N with all parameters, the vocabulary padded to 128s
    nanoGPT    6 N + 12 L C T     N without the positions; every key counted, masked or not
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.models.gpt2 import GPT2

PROMISED = {"bf16": 989e12, "tf32": 494.5e12, "fp32": 66.9e12}
"""FLOP/s of dense products that an H100 SXM and an H200 promise (NVIDIA's data sheets). Of another card
the shares say nothing, except that of the measured rate."""

GOAL_PERCENT = {"cupy": 85.0, "numba_cuda": 60.0}
"""Of the measured copy bandwidth: what a kernel that is bound by memory should reach, by backend."""

VOCABULARY_MULTIPLE = 128

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Goal:
    """met: None where the record does not say. by: how far above (or below) the goal, as a share."""

    what: str
    wanted: float
    found: float | None
    where: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.found is None else self.found >= self.wanted

    def line(self) -> str:
        if self.found is None:
            return f"{self.what}: not run"
        apart = self.found / self.wanted - 1
        verdict = f"met, {apart:+.1%}" if self.met else f"missed by {-apart:.1%}"
        return f"{self.what}: {self.found:,.3g} of {self.wanted:,.3g}, {verdict} ({self.where})"


def flops_per_token(model: GPT2, T: int) -> dict[str, int]:
    """Forward and backward, by each convention."""
    padded = -(-model.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    every = model.parameters + (padded - model.vocab_size) * model.channels
    without_positions = model.parameters - model.positions * model.channels
    attention = model.layers * model.channels * T
    return {
        "llm.c": 6 * every + 6 * attention,
        "nanoGPT": 6 * without_positions + 12 * attention,
    }


def mfu(
    model: GPT2, T: int, tokens_per_s: float, promised: float, measured: float | None
) -> dict[str, float | None]:
    """The shares of the promised FLOP/s by both conventions, and llm.c's of the measured rate."""
    flops = {name: count * tokens_per_s for name, count in flops_per_token(model, T).items()}
    of_measured = flops["llm.c"] / measured if measured else None
    return {**{name: found / promised for name, found in flops.items()}, "measured": of_measured}


def goals(parts: Mapping[str, Results], device: str) -> list[Goal]:
    """Each goal beside the best result that the record has for it."""
    step = parts.get("step", {})
    return [
        _ratio("bf16 times torch.compile's speed", 1.10, step, "bf16", ("torch-bf16-compile",)),
        _ratio("bf16 times llm.c's speed", 1.15, step, "bf16", ("llm.c",)),
        _ratio(
            "TF32 times PyTorch's speed", 1.0, step, "tf32", ("torch-tf32", "torch-tf32-compile")
        ),
        *_rate(step, device),
        _captured(parts.get("capture", {})),
        *(_memory_bound(parts.get("ops", {}), name) for name in GOAL_PERCENT),
    ]


def _ratio(what: str, wanted: float, step: Results, precision: str, peers: tuple[str, ...]) -> Goal:
    """The better of B=32 and 64; of several peers, the fastest."""
    found: list[tuple[float, str]] = []
    for worker, results in step.items():
        name, chosen, batch = worker.split()
        times = [results[p]["median_s"] for p in peers if _right(results.get(p))]
        ours = results.get(name)
        if chosen == precision and batch in ("B=32", "B=64") and times and _right(ours):
            assert ours is not None
            found.append((min(times) / ours["median_s"], worker))
    return Goal(what, wanted, *max(found, default=(None, "")))


def _right(result: Mapping[str, Any] | None) -> bool:
    return bool(result and result["ok"] and "median_s" in result)


def _rate(step: Results, device: str) -> Iterator[Goal]:
    found: list[tuple[float, str]] = []
    shares: list[tuple[float, str]] = []
    for worker, results in step.items():
        name, precision, batch = worker.split()
        ours = results.get(name)
        if precision == "bf16" and batch in ("B=32", "B=64") and _right(ours):
            assert ours is not None
            found.append((ours["tokens_per_s"], worker))
            shares.append((ours["mfu"]["llm.c"], worker))
    if "h200" in device.lower():
        yield Goal("tokens/s in bf16", 670e3, *max(found, default=(None, "")))
        yield Goal("share of 989 TFLOP/s (llm.c's)", 0.54, *max(shares, default=(None, "")))


def _captured(capture: Results) -> Goal:
    found = [
        (r["faster"], f"{worker} {check}")
        for worker, results in capture.items()
        for check, r in results.items()
        if r["ok"] and "faster" in r and "B=4" in check
    ]
    return Goal("captured step at B=4, times as fast", 1.5, *max(found, default=(None, "")))


def _memory_bound(ops: Results, name: str) -> Goal:
    """The slowest kernel of a backend that is bound by memory, without those that a cache helps."""
    found = [
        (call["copy_percent"] / 100, f"{call['hook']}, {worker}")
        for worker, results in ops.items()
        if worker.split()[0] == name
        for r in results.values()
        for call in r.get("calls", ())
        if call["bound"] == "memory" and not call["in_cache"]
    ]
    slowest: tuple[float | None, str] = min(found, default=(None, ""))
    what = f"{name}'s slowest memory-bound kernel, of copy bandwidth"
    return Goal(what, GOAL_PERCENT[name] / 100, *slowest)
