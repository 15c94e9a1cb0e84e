"""The numbers 0, 1, 2, ... as tokens: just as many as one step takes, so every step sees the same.

What is left to learn is the order of the numbers; a model that does not is broken.
"""

import numpy as np

from harness.data.dataset import Dataset
from harness.tokenizers.numbers import NumberTokenizer


def load_counting(vocab_size: int, tokens_per_step: int) -> Dataset:
    """tokens_per_step + 1 numbers, counted around the vocabulary, for training and validation."""
    tokens = np.arange(tokens_per_step + 1, dtype=np.int32) % vocab_size
    description = f"counting: {len(tokens):,} tokens, every step the same"
    return Dataset(tokens, tokens, NumberTokenizer(vocab_size), description)
