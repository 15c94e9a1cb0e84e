"""Say what went wrong in one shape: what was asked, what was found, what follows, what to type.

    HarnessError
    ├── ConfigError        exit  2   a value, key or combination in the configuration
    ├── DataError          exit  3   text, token files, tokenizers, token ids
    ├── CheckpointError    exit  4   a checkpoint that is missing, damaged or does not fit
    ├── PluginError        exit  5   a backend or op plugin that is unknown, broken or refused
    │   └── OpNotImplemented         a backend without the op that the run asks of it
    ├── NumericsError      exit  6   NaN or Inf, or a result outside its tolerance
    └── ResourceError      exit  7   memory, disk, devices

An error is printed as its headline and one line a fact, the labels in a column:

    error[checkpoint-damaged] checkpoint is damaged: model.safetensors
      where     runs/tiny-7f3a/checkpoints/step-00000400/model.safetensors
      expected  4,194,304 bytes
      found     3,145,728 bytes
      do        delete the folder; the one before it is step-00000300

Exit code 1 is an unforeseen error (a bug of ours, with its traceback); 75 asks to be requeued; 130 and
143 are SIGINT and SIGTERM.
"""

import os
import sys
import traceback


class HarnessError(Exception):
    """An error that a user can act on.

    headline: what is wrong, in one line, with the value that was asked for.
    slug: the error's stable name, printed in brackets; listed in docs/errors.md.
    facts: label -> text, in the order given; an underscore in a label prints as a space.
        Usual labels: where, expected, found, effect, do. Facts that are None are left out.
    """

    exit_code = 1

    def __init__(self, headline: str, *, slug: str, **facts: object) -> None:
        super().__init__(headline)
        self.headline = headline
        self.slug = slug
        self.facts = {
            label.replace("_", " "): str(text) for label, text in facts.items() if text is not None
        }

    def __str__(self) -> str:
        width = max(map(len, self.facts), default=0)
        indent = "\n" + " " * (width + 4)
        lines = [self.headline]
        for label, text in self.facts.items():
            lines.append(f"  {label:<{width}}  " + text.replace("\n", indent))
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """The headline and its reason: for a row of a table."""
        reason = self.facts.get("reason")
        return self.headline + (f" ({reason})" if reason else "")

    def render(self) -> str:
        """The text that the commands print on standard error."""
        return f"error[{self.slug}] {self}"


class ConfigError(HarnessError):
    exit_code = 2


class DataError(HarnessError):
    exit_code = 3


class CheckpointError(HarnessError):
    exit_code = 4


class PluginError(HarnessError):
    exit_code = 5


class OpNotImplemented(PluginError):  # noqa: N818  (says what is the case, as NotImplementedError does)
    pass


class NumericsError(HarnessError):
    exit_code = 6


class ResourceError(HarnessError):
    exit_code = 7


def shortened(value: object) -> str:
    """A value for a line of an error: what a file says can be of any length."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def out_of_memory(error: MemoryError, smaller: str) -> ResourceError:
    """Memory that ran out while a command ran. smaller: what would take less, as it is typed."""
    return ResourceError(
        "the memory is used up",
        slug="out-of-memory",
        found=error,
        do=f"{smaller}; or free memory (other processes, ulimit)",
    )


def report(error: HarnessError) -> int:
    """Print an error as people read it; HARNESS_TRACEBACK=1 adds where it was raised."""
    if os.environ.get("HARNESS_TRACEBACK"):
        traceback.print_exception(error)
    print(error.render(), file=sys.stderr, flush=True)
    return error.exit_code
