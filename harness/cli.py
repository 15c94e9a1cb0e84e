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
from collections.abc import Callable

from harness import __version__
from harness.errors import ConfigError, HarnessError, report

VERIFY_KEYS = """\
harness verify MODEL.bin STATE.bin [backend=NAME] [ops.NAME=BACKEND] [precision=fp32|bf16]
    steps=N         AdamW steps, 10; 0 leaves them out
    report=FILE     the table as JSON
    exit code 0: all within bounds; 6: a row is not
harness verify write FOLDER [model=PRESET] [model.layers=N ...] [B=4] [T=16] [seed=0]
    model.bin and debug_state.bin of a small seeded model, computed in float64"""
DATA_KEYS = """\
harness data prepare PATH|tinyshakespeare|stdlib [key=value]
    tokenizer=bytes|char|bpe|gpt2|FILE.json    vocab_size=2000 (of bpe)
    out=FOLDER  name=NAME                      where, and what the files are called
    split=tail|llmc  validation_fraction=0.1   what is held out
    path=FILE                                  of tinyshakespeare, where there is no network
    overwrite=true                             replace files of an earlier one
harness data inspect FILE                      what a token file holds"""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; errors are printed in their one shape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may be no text
    arguments = _parse(argv)
    if arguments.run is None:
        _parser().print_help()
        return 0
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except HarnessError as error:
        return report(error)
    except BrokenPipeError:
        # The reader of a pipe has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Options may stand among the key=value ones, which argparse alone takes in one piece only."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.run is _gpu_acceptance:
        arguments.arguments = rest  # it has a parser of its own
        return arguments
    if rest and not (
        hasattr(arguments, "overrides") and all("=" in r and r[0] != "-" for r in rest)
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description="A plugin-based research harness for GPT-2. Training: python -m harness.train",
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    command = commands.add_parser("backends", help="list what is installed; imports no backend")
    command.set_defaults(run=_backends)

    command = commands.add_parser("plan", help="print what a training run would do")
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument("--totals", action="store_true", help="leave out the calls")
    command.set_defaults(run=_plan)

    command = commands.add_parser("config", help="check a command line without running it")
    command.add_argument("action", choices=["check"])
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.set_defaults(run=_config)

    command = commands.add_parser("doctor", help="how this machine stands, and what to do about it")
    command.add_argument("--json", action="store_true", help="the same, for programs")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("check", help="conformance of a backend, file, op or half")
    command.add_argument("target", metavar="NAME_OR_FILE[::op]")
    command.add_argument("--case", help="only the case with this id, as a failure prints it")
    command.add_argument("--precision", help="only this precision: fp32, tf32 or bf16")
    command.add_argument("--effort", choices=["quick", "full"], default="quick")
    command.add_argument("--report", metavar="DIR", help="write JSON, Markdown and a badge there")
    command.set_defaults(run=_check)

    command = commands.add_parser("mutate", help="break the backend's source; is it noticed?")
    command.add_argument("backend", nargs="?", default="numpy")
    command.add_argument("--op", action="append", dest="ops", help="only this op (repeatable)")
    command.add_argument("--limit", type=int, help="draw this many mutants")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--report", metavar="DIR")
    command.set_defaults(run=_mutate)

    command = commands.add_parser("import", help="a stored model, as the harness's own")
    command.add_argument("kind", choices=["llmc", "hf"])
    command.add_argument(
        "source", metavar="MODEL", help="model.bin; a folder, or a name on the hub"
    )
    command.add_argument("target", nargs="?", metavar="FOLDER", help="default: models/NAME")
    command.set_defaults(run=_import)

    command = commands.add_parser("export", help="a stored model or run, for llm.c or transformers")
    command.add_argument("kind", choices=["llmc", "hf", "peft"])
    command.add_argument(
        "source",
        metavar="MODEL",
        help="a run, `auto` (the newest), model.bin, a folder",
    )
    command.add_argument("target", metavar="TARGET", help="a .bin (llmc), a new folder")
    command.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: as stored")
    command.add_argument(
        "--state", action="store_true", help="llmc, of a run: the optimizer's moments as well"
    )
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "adapter", help="what fine-tuning added, into the weights or alone"
    )
    actions = command.add_subparsers(metavar="ACTION", required=True)
    for sign, text in ((1, "add an adapter to its base"), (-1, "take it away again")):
        action = actions.add_parser("merge" if sign > 0 else "unmerge", help=text)
        action.add_argument("base", metavar="MODEL")
        action.add_argument("adapter", metavar="ADAPTER", help="a folder in peft's layout")
        action.add_argument("target", metavar="FOLDER")
        action.set_defaults(run=_merge, sign=sign)

    command = commands.add_parser(
        "verify",
        help="a backend against llm.c's debug state",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=VERIFY_KEYS,
    )
    command.add_argument("model", metavar="MODEL", help="model.bin; or `write`: make such files")
    command.add_argument("state", metavar="STATE", help="debug_state.bin; of `write`: the folder")
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.set_defaults(run=_verify)

    command = commands.add_parser(
        "data",
        help="text into token files; what a token file holds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=DATA_KEYS,
    )
    command.add_argument("action", choices=["prepare", "inspect"])
    command.add_argument("source", metavar="SOURCE", help="a path, tinyshakespeare or stdlib")
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.set_defaults(run=_data)

    command = commands.add_parser(
        "bench", help="timings against the machine's limits", add_help=False
    )
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(run=_bench)

    command = commands.add_parser(
        "gpu-acceptance", help="prove a GPU backend on its GPU; a dated record", add_help=False
    )
    command.set_defaults(run=_gpu_acceptance, arguments=None)
    return parser


def _backends(arguments: argparse.Namespace) -> int:
    from harness.plugins.listing import installed_lines

    print("\n".join(installed_lines()))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from harness.config import command_line
    from harness.config.config import model_of, trainer_settings
    from harness.plugins.loading import all_ops
    from harness.run.data import load_data
    from harness.run.starting_model import starting_model
    from harness.training import plan_table
    from harness.training.training_plan import TrainingPlan

    (config,) = command_line.check(arguments.overrides)
    with starting_model(config) as (config, _):
        model = model_of(config, load_data(config).vocab_size)
    training = TrainingPlan(trainer_settings(config, model), all_ops())
    for line in (plan_table.totals if arguments.totals else plan_table.lines)(training):
        print(line)
    return 0


def _config(arguments: argparse.Namespace) -> int:
    from harness.config import command_line
    from harness.config.config import config_text

    (config,) = command_line.check(arguments.overrides)
    print(config_text(config), end="")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from harness.doctor import run_doctor

    return run_doctor(as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from harness.conformance.check import run_check

    return run_check(
        arguments.target,
        case=arguments.case,
        precision=arguments.precision,
        effort=arguments.effort,
        report=arguments.report,
    )


def _import(arguments: argparse.Namespace) -> int:
    from harness.interchange.commands import run_import

    return run_import(arguments.kind, arguments.source, arguments.target)


def _export(arguments: argparse.Namespace) -> int:
    from harness.interchange.commands import run_export

    source, target, dtype = arguments.source, arguments.target, arguments.dtype
    return run_export(arguments.kind, source, target, dtype, with_state=arguments.state)


def _merge(arguments: argparse.Namespace) -> int:
    from harness.interchange.commands import run_merge

    return run_merge(arguments.base, arguments.adapter, arguments.target, arguments.sign)


def _verify(arguments: argparse.Namespace) -> int:
    from harness.verify import run_verify, run_verify_write

    if arguments.model == "write":
        return run_verify_write(arguments.state, arguments.overrides)
    return run_verify(arguments.model, arguments.state, arguments.overrides)


def _data(arguments: argparse.Namespace) -> int:
    from harness.data.prepare import run_prepare
    from harness.data.token_report import run_inspect

    if arguments.action == "inspect":
        if arguments.overrides:
            raise ConfigError(
                f"harness data inspect takes a file, and was given {arguments.overrides[0]} as well",
                slug="setting-without-effect",
                do=f"harness data inspect {arguments.source}",
            )
        return run_inspect(arguments.source)
    return run_prepare(arguments.source, arguments.overrides)


def _bench(arguments: argparse.Namespace) -> int:
    from harness.bench.commands import main as bench

    return bench(arguments.arguments)


def _gpu_acceptance(arguments: argparse.Namespace) -> int:
    from harness.acceptance.arguments import main as accept

    return accept(arguments.arguments)


def _mutate(arguments: argparse.Namespace) -> int:
    from harness.mutation.mutate import run_mutate

    return run_mutate(
        arguments.backend,
        ops=arguments.ops,
        limit=arguments.limit,
        seed=arguments.seed,
        report=arguments.report,
    )


if __name__ == "__main__":
    sys.exit(main())
