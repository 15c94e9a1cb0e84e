"""Load the tokens that a run trains on."""

from pathlib import Path

from harness.config.config import RunConfig, sequence_length
from harness.data import Dataset, load, require
from harness.planning.memory_budget import MemoryNeed


def load_data(run: RunConfig) -> Dataset:
    """The tokens that a run trains on. Raises DataError where there are too few."""
    B, T = run.batch_size, sequence_length(run)
    if run.data.source == "counting":
        from harness.data.counting import load_counting

        tokens = B * T * run.gradient_accumulation
        need = MemoryNeed(lambda needed, available: [f"batch_size={max(1, B // 2)}"])
        need.add(f"{tokens:,} numbers, twice", 8 * tokens)
        need.check()
        return load_counting(run.model.vocab_size or 256, tokens)
    data = run.data
    dataset = load(
        data.source,
        data.path,
        data.tokenizer,
        data.validation_fraction,
        Path(data.cache_dir),
        data.bpe_vocab_size,
    )
    require(dataset.train, B, T)
    return dataset
