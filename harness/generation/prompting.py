"""Between text and what a model continues: its tokenizer, the ids to draw from, where a text ends."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import tokenizers
from harness.data.files import read_bytes
from harness.data.tokenizer_file import read_tokenizer_file
from harness.errors import ConfigError
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.tokenizer import read_llmc_tokenizer
from harness.models.model_file import ModelFile
from harness.tokenizers import NumberTokenizer, Tokenizer
from harness.tokenizers.gpt2 import Gpt2Tokenizer

AUTO, NUMBERS = "auto", "numbers"
WITHOUT_TEXT = ("bytes", "gpt2")
"""Tokenizers that are whole by their name alone."""

LLMC_MAGIC = llmc_header.TOKENIZER.to_bytes(4, "little")

Say = Callable[[str], None]


class Prompting:
    """The tokenizer of a model as it is used: prompts in, text out.

    vocab_size: ids below it are drawn; both the model and the tokenizer know them.
    stop: the id that ends a text, None where there is none or it is not to end one.
    """

    def __init__(self, source: ModelFile, name: str, stop: bool, say: Say) -> None:
        self.tokenizer = _tokenizer(source, name, say)
        _check_fits(source, self.tokenizer)
        self.vocab_size = self.tokenizer.vocab_size
        self.positions = source.model.positions
        self.stop = self.tokenizer.end_of_text if stop else None

    def encode(self, text: str, where: str | None = None) -> list[int]:
        """The ids of a prompt, at least one: an empty prompt begins a text, after the end of another."""
        ids = self.tokenizer.encode(text, where) if text else ()
        if len(ids):
            return [int(token) for token in ids]
        if self.tokenizer.end_of_text is None:
            raise ConfigError(
                "there is nothing to continue: the prompt is empty",
                slug="prompt-empty",
                found=f"tokenizer {self.tokenizer.name}, which has no token that begins a text",
                do='prompt="Once upon a time"',
            )
        return [self.tokenizer.end_of_text]

    def shown(self, prompt: Sequence[int]) -> str:
        """A prompt as text; of one that was empty, nothing."""
        if list(prompt) == [self.tokenizer.end_of_text]:
            return ""
        return self.tokenizer.decode(list(prompt))


def check_name(name: str) -> None:
    """Refuse what is neither a tokenizer's name nor a file, before a model is opened."""
    if name in (AUTO, NUMBERS, *WITHOUT_TEXT) or os.path.isfile(os.path.expanduser(name)):
        return
    raise ConfigError(
        f"tokenizer={name} is neither a tokenizer's name nor a file",
        slug="tokenizer-not-found",
        there_are=", ".join((AUTO, *WITHOUT_TEXT, NUMBERS)),
        do="tokenizer=auto takes the one that came with the model; or tokenizer=tokenizer.json",
    )


def _tokenizer(source: ModelFile, name: str, say: Say) -> Tokenizer:
    if name == NUMBERS:
        return NumberTokenizer(source.model.vocab_size)
    if name in WITHOUT_TEXT:
        return tokenizers.get(name)
    if name != AUTO:
        return _from_file(Path(os.path.expanduser(name)))
    if source.tokenizer is not None:
        return source.tokenizer
    if source.model.vocab_size == Gpt2Tokenizer.vocab_size:
        say("tokenizer  gpt2: none came with the model, whose vocabulary has 50,257 tokens")
        return tokenizers.get("gpt2")
    raise ConfigError(
        "no tokenizer came with the model",
        slug="tokenizer-not-stored",
        where=source.path,
        found=f"a vocabulary of {source.model.vocab_size:,} tokens, which could mean anything",
        do="tokenizer=bytes, tokenizer=FILE, or tokenizer=numbers for the ids themselves",
    )


def _from_file(path: Path) -> Tokenizer:
    """The tokenizer of a file of ours, or of llm.c's where the harness knows its vocabulary."""
    magic = read_bytes(path, at_most=4)
    if magic != LLMC_MAGIC:
        return read_tokenizer_file(path)
    found = read_llmc_tokenizer(path)
    return found.recognised() or found


def _check_fits(source: ModelFile, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size <= source.model.vocab_size:
        return
    raise ConfigError(
        f"tokenizer {tokenizer.name} knows {tokenizer.vocab_size:,} tokens, "
        f"the model {source.model.vocab_size:,}",
        slug="tokenizer-larger-than-model",
        where=source.path,
        do="the tokenizer that the model was trained with: tokenizer=auto, or its file",
    )
