"""Say which dtype each buffer has: a policy for the run, and for single ops where the config says so.

fp32   everything float32, IEEE arithmetic
tf32   everything float32; matrix products may round their operands to 10 bits of mantissa
bf16   activations, and the weights as ops read them, bfloat16; statistics, gradients of
       parameters, optimizer state and the master weights float32

The weights that ops read are rounded from their masters after each update: `nearest`, or `stochastic`,
up or down at random so that their mean is the master.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from harness.contract.table import nearest
from harness.errors import ConfigError

FLOAT32 = np.dtype(np.float32)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

POLICIES: dict[str, dict[str, np.dtype]] = {
    "fp32": {"activation": FLOAT32, "parameter": FLOAT32, "gradient": FLOAT32},
    "tf32": {"activation": FLOAT32, "parameter": FLOAT32, "gradient": FLOAT32},
    "bf16": {"activation": BFLOAT16, "parameter": BFLOAT16, "gradient": FLOAT32},
}

ROUNDINGS = ("nearest", "stochastic")


@dataclass(frozen=True)
class Precision:
    """The policy of a run. policy: of every op; of_op: op name -> another policy.

    rounding: of the weights, where an op reads them in bfloat16: `nearest` or `stochastic`.
    """

    policy: str = "fp32"
    of_op: Mapping[str, str] = field(default_factory=dict)
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        for name in (self.policy, *self.of_op.values()):
            if name not in POLICIES:
                raise ConfigError(
                    f"no precision is called '{name}'",
                    slug="unknown-precision",
                    nearest=nearest(str(name), POLICIES),
                    there_are=", ".join(POLICIES),
                )
        if self.rounding not in ROUNDINGS:
            raise ConfigError(
                f"rounding={self.rounding} is unknown",
                slug="unknown-rounding",
                nearest=nearest(self.rounding, ROUNDINGS),
                there_are=", ".join(ROUNDINGS),
            )
        if self.rounding == "stochastic" and "bf16" not in (self.policy, *self.of_op.values()):
            raise ConfigError(
                f"rounding=stochastic with precision={self.policy}: no weight is rounded",
                slug="nothing-to-round",
                do="precision=bf16, or rounding=nearest",
            )

    def of(self, op: str) -> str:
        """The name of the policy that an op runs under."""
        return self.of_op.get(op, self.policy)

    def of_hook(self, hook: str) -> str:
        """The name of the policy that a half-op runs under."""
        return self.of(hook.removesuffix("_forward").removesuffix("_backward"))

    def dtype(self, role_dtype: str, op: str) -> np.dtype:
        """The dtype of a buffer of an op. role_dtype: `activation`, ..., or a dtype's own name."""
        return dtype_under(self.of(op), role_dtype)


def dtype_under(policy: str, role_dtype: str) -> np.dtype:
    """The dtype that a role has under a policy; `own` stands for float32, the masters' dtype."""
    if role_dtype == "own":
        return FLOAT32
    return POLICIES[policy].get(role_dtype) or np.dtype(role_dtype)
