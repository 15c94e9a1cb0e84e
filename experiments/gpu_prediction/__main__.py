"""Predict a training step of `backend=cupy` on an H200, op by op; measure nothing.

    HARNESS_CUDA_ON_CPU=1 python -m experiments.gpu_prediction [key=value ...]

The plan says which half-ops a step has, and of what sizes; the rules here, what each puts on the stream:
kernels and calls of libraries, the bytes that each moves, its arithmetic. A launch takes the longer of
the two at the rates below.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from harness.config import command_line
from harness.config.config import model_of, trainer_settings
from harness.planning.plan import Step, View
from harness.plugins.loading import all_ops
from harness.run.data import load_data
from harness.training.training_plan import TrainingPlan

GPT2 = [
    "backend=cupy",
    "model=gpt2_124m",
    "precision=bf16",
    "batch_size=32",
    "sequence_length=1024",
]
GOAL = 670_000  # tokens per second


@dataclass(frozen=True)
class Rates:
    """Of the whole machine. gap_s: between one launch and the next in a replayed graph."""

    copy_bytes_per_s: float
    product_flops_per_s: float
    attention_flops_per_s: float
    gap_s: float


BEST = Rates(4.3e12, 790e12, 250e12, 0.0)
"""An H200's copy and bf16 product, as measured on such a card; attention at D=64 forward and backward
together, causal half counted, as cuDNN is reported to reach. The gap left out: nothing is faster."""

LIKELY = Rates(0.88 * 4.3e12, 0.85 * 790e12, 0.9 * 250e12, 1e-6)
"""What kernels of these shapes reach of it: guesses, for the first record to correct."""


@dataclass(frozen=True)
class Launch:
    """kind: `product`, `attention` or `pass` (over memory)."""

    name: str
    kind: str
    nbytes: float
    flops: float = 0.0

    def seconds(self, rates: Rates) -> float:
        peak = (
            rates.attention_flops_per_s if self.kind == "attention" else rates.product_flops_per_s
        )
        arithmetic = 0.0 if self.kind == "pass" else self.flops / peak
        return max(self.nbytes / rates.copy_bytes_per_s, arithmetic) + rates.gap_s


def launches(step: Step) -> Iterator[Launch]:
    """What a step of the plan puts on the stream; the rules follow backends/cupy_cuda."""
    dims = step.call.dims if step.call else {}
    if step.hook in ("matmul_backward", "matmul_gelu_backward"):
        yield from _product_backward(step, dims["N"], dims["I"], dims["O"])
    elif step.hook.startswith("matmul"):
        yield Launch(step.hook, "product", step.moved_bytes, step.flops)
    elif step.hook.startswith("attention"):
        yield Launch(step.hook, "attention", step.moved_bytes, step.flops)
    else:
        yield Launch(step.hook, "pass", step.moved_bytes)
        if step.hook.endswith("layernorm_backward"):
            yield Launch("layernorm_add_sums", "pass", 0)
        if step.hook == "embedding_backward":
            for name in ("merge_chunks", "sum_tiles", "join_tiles", "sum_positions"):
                yield Launch(name, "pass", 0)


def _product_backward(step: Step, N: int, I: int, O: int) -> Iterator[Launch]:
    views = {name: a for name, a in step.arguments.items() if isinstance(a, View)}
    item = views["x_NI"].version.dtype.itemsize
    if step.hook == "matmul_gelu_backward":
        yield Launch("gelu_backward_columns", "pass", 3 * N * O * item)
    if "dx_NI" in views:
        yield Launch("dx", "product", item * (N * O + O * I + N * I), 2 * N * I * O)
    if "dweight_OI" in views:
        yield Launch("dweight", "product", item * (N * O + N * I) + 4 * O * I, 2 * N * I * O)
    if "dbias_O" in views:
        if step.hook == "matmul_backward":
            yield Launch("sum_columns", "pass", N * O * item)
        yield Launch("add_sums", "pass", 0)


def update(training: TrainingPlan) -> Iterator[Launch]:
    """The optimizer's part: the norm, the clip, the update with its bfloat16 weights."""
    P = training.layout.trained
    yield Launch("guard", "pass", 0)
    yield Launch("squared_norm", "pass", 4 * P)
    yield Launch("add_parts", "pass", 0)
    yield Launch("clip_scale", "pass", 0)
    yield Launch("adamw_master", "pass", 4 * 7 * P + 2 * P)


def report(training: TrainingPlan) -> Iterator[str]:
    rows: dict[str, list[Launch]] = defaultdict(list)
    calls: dict[str, int] = defaultdict(int)
    for step in training.calls.forward + training.calls.backward:
        rows[step.hook] += launches(step)
        calls[step.hook] += 1
    rows["update"], calls["update"] = list(update(training)), 1

    yield "| half-op | calls | launches | GB | TFLOP | ms at best | ms likely | % |"
    yield "|---|---|---|---|---|---|---|---|"
    every = [launch for found in rows.values() for launch in found]
    whole_s = _total(every, LIKELY)
    for hook, found in sorted(rows.items(), key=lambda row: -_total(row[1], LIKELY)):
        yield _row(hook, calls[hook], found, whole_s)
    yield _row("**step**", sum(calls.values()), every, whole_s)
    yield ""
    for name, rates in (("at best", BEST), ("likely", LIKELY)):
        rate = training.tokens_per_step / _total(every, rates)
        yield f"{name}: {rate:,.0f} tokens/s predicted, {100 * rate / GOAL:.0f} % of the goal"
    columns = [launch for launch in every if launch.name == "sum_columns"]
    yield (
        f"of it, gradients of biases as passes of their own: {1e3 * _total(columns, LIKELY):.2f} ms, "
        f"{sum(launch.nbytes for launch in columns) / 1e9:.1f} GB"
    )


def _row(name: str, calls: int, found: list[Launch], whole_s: float) -> str:
    seconds = _total(found, LIKELY)
    return (
        f"| {name} | {calls} | {len(found)} | {sum(f.nbytes for f in found) / 1e9:.2f} | "
        f"{sum(f.flops for f in found) / 1e12:.2f} | {1e3 * _total(found, BEST):.2f} | "
        f"{1e3 * seconds:.2f} | {100 * seconds / whole_s:.1f} |"
    )


def _total(found: list[Launch], rates: Rates) -> float:
    return sum(launch.seconds(rates) for launch in found)


def main() -> int:
    (config,) = command_line.check([*GPT2, *sys.argv[1:]])
    model = model_of(config, load_data(config).vocab_size)
    training = TrainingPlan(trainer_settings(config, model), all_ops())
    print("Predicted, not measured.\n")
    print("\n".join(report(training)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
