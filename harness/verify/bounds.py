"""How far a whole model's results may be from the state's, by the precision that it computes in."""

from dataclasses import dataclass

from harness.contract.precision import Precision


@dataclass(frozen=True)
class Bounds:
    """The largest errors: relative L2 of logits and gradients, relative of the loss.

    steps: of the loss of each AdamW step, relative to the first.
    reason: where they come from, for the table.
    """

    logits: float
    loss: float
    gradients: float
    steps: float
    reason: str


BOUNDS = {
    # A hundred times what NumPy is off by (5e-7 to 1e-6 for 1 to 12 layers), so that sums in any
    # order fit and a term that was left out does not.
    # The loss of a step is a mean, in which rounding cancels: 1e-8 to 2e-7 in ten steps. More than
    # 1e-6, and an AdamW without its decay (1e-6 to 3e-6) would not be noticed.
    "fp32": Bounds(1e-4, 1e-4, 1e-4, 1e-6, "float32: rounding of sums is 1e-6"),
    # Operands of products have 11 bits, an eighth of bfloat16's rounding. Not measured: no backend
    # of the host computes in it.
    "tf32": Bounds(1e-2, 1e-3, 2e-2, 1e-3, "tf32: each product rounds by up to 5e-4"),
    # Activations have 8 bits: NumPy in bfloat16 is off by 1.5e-2 at most for 1 to 12 layers.
    "bf16": Bounds(5e-2, 5e-3, 8e-2, 5e-3, "bfloat16: each activation rounds by up to 4e-3"),
}
PUBLISHED_STEPS = 1e-2
"""Absolute, as llm.c holds its own C program to the losses that PyTorch computed in float32."""


def bounds_for(precision: Precision, stored: str) -> Bounds:
    """The bounds of the coarsest precision in use. stored: what the model file keeps, a dtype's name.

    Weights that were rounded to bfloat16 are other weights than those of a float32 state.
    """
    used = {precision.policy, *precision.of_op.values()}
    if stored == "bfloat16":
        used.add("bf16")
    return next(BOUNDS[policy] for policy in ("bf16", "tf32", "fp32") if policy in used)
