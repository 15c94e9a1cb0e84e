"""Draw text from a model: temperature and top-k over the last position's logits.

The draws come from a stream of their own, keyed by seed and step, so that sampling during training
changes nothing else, and every backend draws the same numbers.
"""

from collections.abc import Iterator

import numpy as np

from harness.executor import Executor


def stream(seed: int, step: int) -> np.random.Generator:
    """The random stream of the samples taken at a step."""
    key = np.array([seed, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 1]))


def pick(
    logits_V: np.ndarray, rng: np.random.Generator, temperature: float, top_k: int | None
) -> int:
    """One token from logits over the true vocabulary. Temperature 0 takes the largest."""
    draw = rng.random()  # one number a token, whatever the settings
    if temperature == 0:
        return int(logits_V.argmax())
    scaled = logits_V.astype(np.float64) / temperature
    if top_k is not None and top_k < len(scaled):
        threshold = np.partition(scaled, -top_k)[-top_k]
        scaled[scaled < threshold] = -np.inf
    probs = np.exp(scaled - scaled.max())
    cumulative = np.cumsum(probs)
    return int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))


def generate(
    executor: Executor,
    prompt: list[int],
    count: int,
    vocab_size: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Iterator[int]:
    """`count` tokens that continue a prompt of at least one token.

    executor: of one sequence with head `logits`; its length is the context that is kept.
    """
    T = executor.plan.program.inputs["tokens"].shape[1]
    context = list(prompt)
    tokens_BT = np.zeros((1, T), np.int32)
    for _ in range(count):
        kept = context[-T:]
        # Padding stands after the context: a causal model does not see it.
        tokens_BT[0, : len(kept)] = kept
        executor.write("tokens", tokens_BT)
        executor.forward()
        logits_V = executor.read()[0, len(kept) - 1, :vocab_size]
        context.append(pick(logits_V, rng, temperature, top_k))
        yield context[-1]
