"""`harness ...`: everything that is not a training run.

harness backends                       what is installed; imports no backend
harness plan [key=value ...]           what a training run would do, call by call
harness check NAME_OR_FILE[::op]       conformance of one backend, file, op or half
harness bench peaks|ops|train [...]    how close to the machine's limit
harness gpu-acceptance [...]           prove a GPU backend on its GPU; a dated record
harness mutate [BACKEND]               does the conformance suite notice broken source?
harness import llmc|hf MODEL [FOLDER]  a stored model, as the harness's own
harness export llmc|hf|peft MODEL OUT  a stored model or run, for llm.c, transformers or peft
harness adapter merge|unmerge ...      what fine-tuning added: into the weights, and out again
harness verify MODEL STATE [...]       a backend against llm.c's debug state; `verify write` makes one
harness data prepare|inspect ...       text into token files; what a token file holds
harness config check [key=value ...]   a command line, checked and not run
harness doctor                         how this machine stands: libraries, threads, backends
"""

import argparse
import io
import sys
from dataclasses import dataclass
from pkgutil import resolve_name

from harness import __version__
from harness.errors import HarnessError, report


@dataclass(frozen=True)
class Command:
    """One word after `harness`.

    entry: the function that declares the command's arguments and sets `run`; imported when needed.
    own_parser: entry is the command itself, and takes the words after its name.
    """

    name: str
    help: str
    entry: str
    own_parser: bool = False


COMMANDS = (
    Command(
        "backends",
        "list what is installed; imports no backend",
        "harness.plugins.listing:arguments",
    ),
    Command("plan", "print what a training run would do", "harness.plan:arguments"),
    Command(
        "config",
        "check a command line without running it",
        "harness.config.commands:config_arguments",
    ),
    Command(
        "doctor",
        "how this machine stands, and what to do about it",
        "harness.doctor.examination:arguments",
    ),
    Command(
        "check", "conformance of a backend, file, op or half", "harness.conformance.check:arguments"
    ),
    Command(
        "mutate", "break the backend's source; is it noticed?", "harness.mutation.mutate:arguments"
    ),
    Command(
        "import",
        "a stored model, as the harness's own",
        "harness.interchange.commands:import_arguments",
    ),
    Command(
        "export",
        "a stored model or run, for llm.c or transformers",
        "harness.interchange.commands:export_arguments",
    ),
    Command(
        "adapter",
        "what fine-tuning added, into the weights or alone",
        "harness.interchange.commands:adapter_arguments",
    ),
    Command("verify", "a backend against llm.c's debug state", "harness.verify.commands:arguments"),
    Command(
        "data", "text into token files; what a token file holds", "harness.data.commands:arguments"
    ),
    Command(
        "bench",
        "timings against the machine's limits",
        "harness.bench.commands:main",
        own_parser=True,
    ),
    Command(
        "gpu-acceptance",
        "prove a GPU backend on its GPU; a dated record",
        "harness.acceptance.arguments:main",
        own_parser=True,
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; errors are printed in their one shape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may be no text
    words = sys.argv[1:] if argv is None else argv
    try:
        return _run(words)
    except HarnessError as error:
        return report(error)
    except BrokenPipeError:
        # The reader of a pipe has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    chosen = next((c for c in COMMANDS if words and c.name == words[0]), None)
    if chosen is not None and chosen.own_parser:
        code: int = resolve_name(chosen.entry)(words[1:])
        return code
    parser = _parser(words)
    arguments = _parse(parser, words)
    if arguments.run is None:
        parser.print_help()
        return 0
    code = arguments.run(arguments)
    return code


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Options may stand among the key=value ones, which argparse alone takes in one piece only."""
    arguments, rest = parser.parse_known_args(words)
    if rest and not (
        hasattr(arguments, "overrides") and all("=" in r and r[0] != "-" for r in rest)
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """Every command by name, and the arguments of the chosen one: the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="harness",
        description="A plugin-based research harness for GPT-2. Training: python -m harness.train",
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.help)
        if command.name == chosen and not command.own_parser:
            resolve_name(command.entry)(added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
