"""`harness config check [key=value ...]`: a command line, checked and not run."""

import argparse

from harness.config import command_line
from harness.config.config import config_text


def config_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness config`."""
    parser.add_argument("action", choices=["check"])
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(run=run_config)


def run_config(arguments: argparse.Namespace) -> int:
    """`harness config`. Returns the exit code."""
    (config,) = command_line.check(arguments.overrides)
    print(config_text(config), end="")
    return 0
