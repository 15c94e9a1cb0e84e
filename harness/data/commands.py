"""`harness data prepare|inspect`: text into token files, and what a token file holds."""

import argparse

from harness.data.prepare import run_prepare
from harness.data.token_report import run_inspect
from harness.errors import ConfigError

DATA_KEYS = """\
harness data prepare PATH|tinyshakespeare|stdlib [key=value]
    tokenizer=bytes|char|bpe|gpt2|FILE.json    vocab_size=2000 (of bpe)
    out=FOLDER  name=NAME                      where, and what the files are called
    split=tail|llmc  validation_fraction=0.1   what is held out
    path=FILE                                  of tinyshakespeare, where there is no network
    overwrite=true                             replace files of an earlier one
harness data inspect FILE                      what a token file holds"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness data`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DATA_KEYS
    parser.add_argument("action", choices=["prepare", "inspect"])
    parser.add_argument("source", metavar="SOURCE", help="a path, tinyshakespeare or stdlib")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness data`. Returns the exit code."""
    if arguments.action == "inspect":
        if arguments.overrides:
            raise ConfigError(
                f"harness data inspect takes a file, and was given {arguments.overrides[0]} as well",
                slug="setting-without-effect",
                do=f"harness data inspect {arguments.source}",
            )
        return run_inspect(arguments.source)
    return run_prepare(arguments.source, arguments.overrides)
