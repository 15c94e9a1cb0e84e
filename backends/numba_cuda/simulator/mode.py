"""Read from HARNESS_CUDASIM how the simulator goes about its work.

first, reversed, shuffled[:seed]     the order of threads and blocks
races                                first to last, and two that touch one element are an error
stock                                Numba's own scheduler
"""

import os
from dataclasses import dataclass
from random import Random

from harness.errors import ConfigError

VARIABLE = "HARNESS_CUDASIM"
WORDS = ("first", "reversed", "shuffled", "races", "stock")


@dataclass
class Mode:
    word: str
    seed: int = 0

    def __post_init__(self):
        self._random = Random(self.seed)

    @property
    def strict(self):
        """Whether local arrays are looked at, too: most accesses are to them."""
        return self.word != "first"

    def ordered(self, things):
        """Things that come in CUDA's order, in the order of this mode."""
        return things[::-1] if self.word == "reversed" else things

    def drawn(self, things):
        """Things in that order, as the next stretch runs them: drawn anew where they are shuffled."""
        return self._random.sample(things, len(things)) if self.word == "shuffled" else things


def mode():
    """What the variable says now. Raises ConfigError for a word that it does not have."""
    value = os.environ.get(VARIABLE) or WORDS[0]
    word, colon, seed = value.partition(":")
    if word not in WORDS or (colon and not (word == "shuffled" and seed.isdecimal())):
        raise ConfigError(
            f"{VARIABLE} is '{value}', which the CUDA simulator does not know",
            slug="unknown-simulator-mode",
            expected=", ".join(WORDS) + "; shuffled:7 for another order",
            do="see docs/cuda-simulator.md",
        )
    return Mode(word, int(seed) if colon else 0)
