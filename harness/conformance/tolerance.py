"""How far a result may be from the float64 formula, and how far it is.

    |out - ref| <= u_out |ref| + 2 u_in S + 2^-24 S (4 + 2 sqrt(n))

against a float64 reference that is fed the *rounded* inputs. u_out is the roundoff of the output's
dtype, u_in what the backend declares to round operands to, S the op's magnitude (harness/ops) and n
the length of its longest sum; accumulation is in float32. With `accumulate`, S grows by |prefill|.

Condition-scaled, so that it is tight where a result is well conditioned and just where it is not: an
absolute 1e-4 lets half of all wrong kernels pass, and torch's defaults refuse honest ones.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np

from harness.contract import Magnitude
from harness.contract.table import nearest
from harness.errors import PluginError

U_ACCUMULATION = 2.0**-24
U_OUT = {
    np.dtype(np.float64): 2.0**-53,
    np.dtype(np.float32): 2.0**-24,
    np.dtype(np.float16): 2.0**-11,
    np.dtype(ml_dtypes.bfloat16): 2.0**-8,
}
# What a backend may declare that it computes in: the roundoff of operands and intermediates.
U_IN = {"f64": 0.0, "f32": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}

# Results below the smallest normal float32 may be flushed to zero, as GPUs do and NumPy does not.
FLUSHED = 2.0**-126


def u_in(arithmetic: str) -> float:
    """The roundoff of a declared arithmetic. Raises PluginError for one that is unknown."""
    if arithmetic not in U_IN:
        raise PluginError(
            f"no arithmetic is called '{arithmetic}'",
            slug="unknown-arithmetic",
            nearest=nearest(str(arithmetic), U_IN),
            there_are=", ".join(U_IN),
            do='a backend declares, say, computes = {"fp32": "f32"}',
        )
    return U_IN[arithmetic]


def tolerance(
    reference: np.ndarray,
    magnitude: Magnitude,
    dtype: Any,
    arithmetic: str,
    prefill: np.ndarray | None = None,
) -> np.ndarray:
    """The largest |out - reference| that is accepted, by element, in float64.

    reference: in float64, the prefill included. dtype: of the output's buffer.
    """
    S = np.asarray(magnitude.S, np.float64)
    if prefill is not None:
        S = S + np.abs(np.asarray(prefill, np.float64))
    share = 2 * u_in(arithmetic) + U_ACCUMULATION * (4 + 2 * math.sqrt(magnitude.n))
    return U_OUT[np.dtype(dtype)] * np.abs(reference) + share * S + FLUSHED


def error_in_tolerances(out: np.ndarray, reference: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """|out - reference| / allowed by element; above 1 is wrong.

    A NaN of the reference must be met by a NaN, an infinity by the same infinity; a result that is
    not finite where the reference is, is infinitely wrong.
    """
    out = np.asarray(out).astype(np.float64)
    with np.errstate(all="ignore"):
        ratio = np.abs(out - reference) / allowed
    if np.isfinite(ratio).all():
        return ratio
    same = (out == reference) | (np.isnan(out) & np.isnan(reference))
    beyond = ~np.isfinite(ratio) | ~np.isfinite(reference)
    return np.where(same, 0.0, np.where(beyond, np.inf, ratio))
