"""Draw the next token from logits: what the settings leave of them, then one number of a stream.

    repetition penalty -> temperature -> top-k -> top-p -> draw        (transformers' order)

The draws come from streams of their own, made on the host, so every backend draws the same numbers,
and sampling during training changes nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import NumericsError

OF_A_STEP, OF_A_ROW = 1, 2
"""The last word of a stream's counter: which family of streams it belongs to; weights have 0."""


@dataclass(frozen=True)
class Sampling:
    """What is left of a distribution before a token is drawn from it.

    temperature: divides the logits; 0 takes the largest, the lowest id of equals.
    top_k: the k largest are left (and what equals the last of them); None: all.
    top_p: the smallest set whose probability reaches p is left; None: all.
    repetition_penalty: of tokens that are in the context already, a positive logit is divided by it
        and a negative one multiplied (Keskar et al. 2019); 1: none.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0


def stream(seed: int, step: int) -> np.random.Generator:
    """The random stream of the samples taken at a step of training."""
    return _stream(seed, step, OF_A_STEP)


def row_stream(seed: int, row: int) -> np.random.Generator:
    """The random stream of one row of a batch: what stands in the other rows changes nothing in it."""
    return _stream(seed, row, OF_A_ROW)


def _stream(seed: int, index: int, family: int) -> np.random.Generator:
    key = np.array([seed, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, family]))


def draw(
    logits_V: np.ndarray,
    rng: np.random.Generator,
    settings: Sampling,
    context: Sequence[int] | np.ndarray = (),
) -> int:
    """One token. logits_V: over the true vocabulary. context: the tokens so far, prompt included.

    Takes one number from rng, whatever the settings. Raises NumericsError where a logit is NaN or Inf.
    """
    number = rng.random()
    if not np.isfinite(logits_V).all():
        raise _not_finite(logits_V)
    penalised_V = penalise(logits_V.astype(np.float64), context, settings.repetition_penalty)
    if settings.temperature == 0:
        return int(penalised_V.argmax())
    heated_V = largest(heat(penalised_V, settings.temperature), settings.top_k)
    # Of 50,257 logits top-k leaves a few dozen: what follows is done with those alone.
    ids = np.flatnonzero(heated_V > -np.inf)
    left = nucleus(heated_V[ids], settings.top_p)
    cumulative = np.cumsum(np.exp(left - left.max()))
    return int(ids[np.searchsorted(cumulative, number * cumulative[-1], side="right")])


def penalise(
    logits_V: np.ndarray, context: Sequence[int] | np.ndarray, penalty: float
) -> np.ndarray:
    """The logits with those of the context's tokens made less likely (penalty > 1), each once."""
    if penalty == 1 or not len(context):
        return logits_V
    seen = np.unique(np.asarray(context, np.int64))
    values = logits_V[seen]
    with np.errstate(over="ignore"):
        moved = np.where(values < 0, values * penalty, values / penalty)
    # An infinite logit would be its own maximum, and leave no difference to draw from.
    most = np.finfo(moved.dtype).max
    penalised_V = logits_V.copy()
    penalised_V[seen] = moved.clip(-most, most)
    return penalised_V


def heat(logits_V: np.ndarray, temperature: float) -> np.ndarray:
    """The logits divided by the temperature, the largest moved to 0."""
    # The smallest temperatures send all but the largest to -inf, which is the limit and no mistake.
    with np.errstate(over="ignore"):
        return (logits_V - logits_V.max()) / temperature


def largest(logits_V: np.ndarray, k: int | None) -> np.ndarray:
    """The logits with all but the k largest at -inf; equals of the k-th stay."""
    if k is None or k >= len(logits_V):
        return logits_V
    threshold = np.partition(logits_V, -k)[-k]
    return np.where(logits_V < threshold, -np.inf, logits_V)


def nucleus(logits_V: np.ndarray, p: float | None) -> np.ndarray:
    """The logits with all at -inf but the smallest set of the most probable that reaches p.

    The token that crosses p is in the set; of equals the lowest ids come first.
    """
    if p is None or p >= 1:
        return logits_V
    order = np.argsort(-logits_V, kind="stable")
    probability = np.exp(logits_V[order] - logits_V[order[0]])
    reached = np.cumsum(probability / probability.sum())
    kept = order[: int(np.searchsorted(reached, p)) + 1]
    left_V = np.full_like(logits_V, -np.inf)
    left_V[kept] = logits_V[kept]
    return left_V


def _not_finite(logits_V: np.ndarray) -> NumericsError:
    token = int(np.argmin(np.isfinite(logits_V)))
    return NumericsError(
        "the model's logits are not finite",
        slug="logits-not-finite",
        found=f"{logits_V[token]} for token {token:,}",
        effect="no token was drawn",
        do="precision=fp32, or other weights: these overflow",
    )
