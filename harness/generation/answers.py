"""Show continuations: one as it comes, several batch by batch, an answer to every line typed."""

import sys
from contextlib import closing, suppress
from itertools import count

from harness.decoding.continuation import INTERRUPTED, Row
from harness.errors import DataError
from harness.generation.generator import Generator
from harness.generation.prompting import Say
from harness.generation.results import Results
from harness.generation.text_stream import TextStream, printable

INTERRUPT_CODE = 130


class Answers:
    """The rows of one command, shown on standard output and kept in its results."""

    def __init__(self, generator: Generator, results: Results, say: Say) -> None:
        self.generator = generator
        self.results = results
        self._prompting = generator.prompting
        self._samples = generator.config.samples
        self._say = say
        self._rows = 0  # shown so far; each row has a stream of its own

    def to_prompts(self, prompts: list[list[int]]) -> int:
        """Continue each prompt as often as there are samples. Returns the exit code."""
        try:
            self._show(prompts)
        except KeyboardInterrupt:
            self._say("stopped")
            return INTERRUPT_CODE
        return 0

    def converse(self) -> int:
        """Continue every line of standard input, until an empty line or its end.

        Ctrl-C stops an answer; where none is being written it ends the conversation. In a pipe, a line
        that cannot be taken is told, the others are answered, and the exit code is that of the error.
        """
        code, typed = 0, sys.stdin.isatty()
        if typed:
            with suppress(ImportError):
                import readline  # noqa: F401  (makes input() a line that can be edited)
            self._say("an empty line or Ctrl-D ends; Ctrl-C stops an answer")
        for number in count(1):
            try:
                line = _read_line(typed)
            except KeyboardInterrupt:
                return INTERRUPT_CODE
            if not line:
                break
            try:
                prompt = self._prompting.encode(line, f"line {number}")
                self._show([prompt])
            except DataError as error:
                code = code or (0 if typed else error.exit_code)
                self._say(error.render())
            except KeyboardInterrupt:
                self._say("stopped; Ctrl-C again ends")
        return code

    def _show(self, prompts: list[list[int]]) -> None:
        """Continue each prompt as often as there are samples. A batch's rows are made when it begins."""
        first, rows = self._rows, len(prompts) * self._samples
        self._rows += rows
        if rows == 1:
            self._stream(self.generator.row(prompts[0], first), first)
            return
        size = self.generator.batch_size
        for start in range(0, rows, size):
            numbers = range(start, min(start + size, rows))
            batch = [self.generator.row(prompts[i // self._samples], first + i) for i in numbers]
            try:
                with closing(self.generator.run(batch)) as steps:
                    for _ in steps:
                        pass
            finally:
                self.results.add(batch, first + start, self._prompting)
                for i, row in enumerate(batch, start):
                    self._whole(row, i, rows)

    def _stream(self, row: Row, index: int) -> None:
        prompt = list(row.prompt)
        text = TextStream(self._prompting.tokenizer, [] if self._begins(row) else prompt)
        told = 0
        try:
            _write(self._prompting.shown(prompt))
            with closing(self.generator.run([row])) as steps:
                for _ in steps:
                    for token in row.tokens[told:]:
                        _write(text.add(token))
                    told = len(row.tokens)
        finally:
            row.ended = row.ended or INTERRUPTED
            self.results.add([row], index, self._prompting)
            _write(text.finish() + "\n")

    def _whole(self, row: Row, index: int, rows: int) -> None:
        """One of several, under a line that says which. Nothing is said of a row that never began."""
        if row.ended == INTERRUPTED and not row.tokens:
            return
        samples = self._samples
        number = f"prompt {index // samples + 1} of {rows // samples}"
        if samples > 1:
            number += f", sample {index % samples + 1} of {samples}"
        tokens = [*([] if self._begins(row) else row.prompt), *row.tokens]
        _write(f"-- {number}: {len(row.tokens)} tokens, {_REASONS[row.ended or INTERRUPTED]}\n")
        _write(self._prompting.tokenizer.decode(tokens) + "\n")

    def _begins(self, row: Row) -> bool:
        """Whether the row's prompt was empty: its one token is not part of the text."""
        return list(row.prompt) == [self._prompting.tokenizer.end_of_text]


_REASONS = {
    "length": "as many as were asked for",
    "end_of_text": "to the end of the text",
    INTERRUPTED: "stopped",
}


def _read_line(typed: bool) -> str:
    """The next line without its end; an empty one at the end of the input.

    Bytes that are no UTF-8 are smuggled through as Python does, for tokenizers that take any bytes.
    """
    if typed:
        try:
            return input("> ")
        except EOFError:
            print()
            return ""
    return sys.stdin.readline().rstrip("\r\n")


def _write(text: str) -> None:
    """Show text at once; what could control a terminal does not reach one."""
    if sys.stdout.isatty():
        text = printable(text)
    sys.stdout.write(text)
    sys.stdout.flush()
