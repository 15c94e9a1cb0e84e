"""Learn byte pairs from a text, with Hugging Face's `tokenizers`.

The pair of neighbours that occurs most often becomes a piece, over and over; of pairs that occur
equally often the one of the lower ids. The same text gives the same pieces.

A word of more than 1,000 bytes, as in a text without blanks, is learnt from in stretches of so many:
each joining goes through its words from end to end. Encoding knows nothing of stretches.
"""

from collections.abc import Iterable

from harness.errors import ConfigError, DataError
from harness.tokenizers import utf8
from harness.tokenizers.bpe import (
    END_OF_TEXT,
    MAX_PIECE_BYTES,
    MAX_VOCABULARY,
    MIN_VOCABULARY,
    BpeTokenizer,
)
from harness.tokenizers.byte_alphabet import in_bytes

VOCABULARY = 2000  # unless something else is said
STRETCH = 1000  # bytes; longer than any word that somebody wrote
MIN_COUNT = 2  # a pair that occurs once says nothing of the next text


def train_bpe(texts: Iterable[str | bytes], vocab_size: int = VOCABULARY) -> BpeTokenizer:
    """The tokenizer of at most vocab_size ids; fewer where the texts have no pair that repeats.

    texts: one or more; no piece reaches from one into the next.
    """
    if not MIN_VOCABULARY <= vocab_size <= MAX_VOCABULARY:
        raise ConfigError(
            f"no byte-pair vocabulary has {vocab_size:,} ids",
            slug="bpe-vocabulary-out-of-range",
            expected=f"{MIN_VOCABULARY} (every byte, and the end of text)"
            f" to {MAX_VOCABULARY:,} (token files hold uint16)",
            do=f"choose {VOCABULARY:,} for a megabyte of text, or data.tokenizer=bytes for none",
        )
    learnt_from = [text for text in map(utf8.checked, texts) if text]
    if not learnt_from:
        raise DataError(
            "an empty text has no pairs to make a vocabulary of",
            slug="bpe-without-text",
            do="give a text, or a smaller validation_fraction, or data.tokenizer=bytes",
        )
    return BpeTokenizer((*_learnt(learnt_from, vocab_size - 1), END_OF_TEXT))


def _learnt(texts: list[str], count: int) -> list[bytes]:
    """The pieces in the order of their ids, the bytes first."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Split(Regex(f".{{{STRETCH}}}"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=count,
        min_frequency=MIN_COUNT,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_PIECE_BYTES,
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    ids = learner.get_vocab()
    return [in_bytes(piece) for piece in sorted(ids, key=ids.__getitem__)]
