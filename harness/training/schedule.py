"""The learning rate of each step: a pure function, so that a resumed run has the same one."""

import math
from dataclasses import dataclass

from harness.contract.table import nearest
from harness.errors import ConfigError

DECAYS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """Warm-up from 0, then a decay.

    peak: the learning rate after warmup_steps. decay: `constant`, `linear` or `cosine`.
    final_fraction: of the peak, reached at the last of `steps`.
    Source: Loshchilov and Hutter 2016, arXiv:1608.03983 (cosine); llm.c, schedulers.h.
    """

    peak: float
    steps: int
    warmup_steps: int = 0
    decay: str = "cosine"
    final_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ConfigError(
                f"schedule.decay={self.decay} is unknown",
                slug="unknown-decay",
                nearest=nearest(self.decay, DECAYS),
                there_are=", ".join(DECAYS),
            )

    def __call__(self, step: int) -> float:
        """The learning rate of step 1, 2, ..., steps."""
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.decay == "constant":
            return self.peak
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        done = min(1.0, done)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (self.final_fraction + (1 - self.final_fraction) * left)
