"""Give the trainer its batches: sources -> tokens -> sequences.

sources.py         where text comes from: stdlib, tinyshakespeare, text
tinyshakespeare.py the one source that is downloaded, with its hash
token_files.py     token ids on disk, in llm.c's format
tokenizer_file.py  the tokenizer that made them, beside them
splits.py          a text cut in two and encoded
prepare.py         `harness data prepare`: from text to files; its keys are in prepare_settings.py
token_report.py    `harness data inspect`: what such a file holds
dataset.py         tokens for training and for validation, and the checks of both
sequences.py       the endless stream of training sequences, a pure function of its position
ngram.py           what counting alone reaches: the losses that a trained model must beat
files.py           read files that may be missing, hostile or changing; write them whole
"""

from harness.data.dataset import Dataset, check_token_ids, load, require
from harness.data.ngram import ngram_losses
from harness.data.sequences import Sequences
from harness.data.token_files import read_token_file, write_token_file

__all__ = [
    "Dataset",
    "Sequences",
    "check_token_ids",
    "load",
    "ngram_losses",
    "read_token_file",
    "require",
    "write_token_file",
]
