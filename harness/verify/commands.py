"""`harness verify MODEL STATE [key=value ...]` and `harness verify write FOLDER [key=value ...]`."""

import argparse
import json
import os
from pathlib import Path

from harness.config.config import model_of
from harness.errors import CheckpointError, ConfigError, ResourceError
from harness.files.disk import write_atomically
from harness.interchange.llmc import header as llmc_header
from harness.interchange.llmc.debug_state import LlmcDebugState
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2, SIZES
from harness.verify.check import Check
from harness.verify.difference import Row
from harness.verify.options import WHO_COMPUTES, composed, report_path, taken
from harness.verify.steps_check import STEPS
from harness.verify.write import write_files

SHAPE = ("model", *(f"model.{size}" for size in SIZES))
VOCABULARY = 256  # where the model's preset leaves it to a tokenizer
FAILED = 6  # the exit code of NumericsError: a result outside its tolerance
VERIFY_KEYS = """\
harness verify MODEL.bin STATE.bin [backend=NAME] [ops.NAME=BACKEND] [precision=fp32|bf16]
    steps=N         AdamW steps, 10; 0 leaves them out
    report=FILE     the table as JSON
    exit code 0: all within bounds; 6: a row is not
harness verify write FOLDER [model=PRESET] [model.layers=N ...] [B=4] [T=16] [seed=0]
    model.bin and debug_state.bin of a small seeded model, computed in float64"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness verify`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = VERIFY_KEYS
    parser.add_argument("model", metavar="MODEL", help="model.bin; or `write`: make such files")
    parser.add_argument("state", metavar="STATE", help="debug_state.bin; of `write`: the folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness verify`. Returns the exit code."""
    if arguments.model == "write":
        return run_verify_write(arguments.state, arguments.overrides)
    return run_verify(arguments.model, arguments.state, arguments.overrides)


def run_verify(model_path: str, state_path: str, overrides: list[str]) -> int:
    """Verify the backends of these overrides. Returns 0, or 6 where a result is out of its bounds.

    overrides: steps=N (0 leaves the AdamW steps out), report=FILE.json, and those of a run that say
    who computes: backend, ops, precision, transfer.
    """
    numbers, texts, rest = taken(overrides, {"steps": 0}, ("report",))
    report = report_path(texts.get("report"))
    run = composed(rest, WHO_COMPUTES, "the model and the state give shape, B and T")
    _refuse_swapped(Path(model_path), Path(state_path))
    with (
        open_model(model_path) as source,
        LlmcDebugState(Path(os.path.expanduser(state_path)), source.model) as state,
    ):
        check = Check(run, source, state, numbers.get("steps", STEPS))
        for line in check.heading():
            print(line)
        rows = []
        for row in check.rows():
            print(row, flush=True)
            rows.append(row)
        if report is not None:
            _write_report(report, check.record(rows))
    return _verdict(rows)


def run_verify_write(folder: str, overrides: list[str]) -> int:
    """Write a random model and its debug state. Returns 0.

    overrides: model=PRESET, model.layers and the other sizes, B=, T= and seed=.
    """
    numbers, _, rest = taken(overrides, {"B": 1, "T": 1, "seed": 0})
    if not any(override.partition("=")[0] == "model" for override in rest):
        rest = ["model=micro", *rest]
    run = composed(rest, SHAPE, "a state is of one batch, by the float64 formulas")
    model = model_of(run, run.model.vocab_size or VOCABULARY)
    B, T = numbers.get("B", 4), numbers.get("T", min(64, model.positions))
    _refuse_too_long(model, T)
    written = write_files(Path(os.path.expanduser(folder)), model, B, T, numbers.get("seed", 0))
    for path in (written.model, written.state):
        print(f"{path}  {path.stat().st_size:,} bytes")
    print(f"{B} x {T} tokens, loss {written.loss:.6f}")
    print(f"harness verify {written.model} {written.state} backend=NAME")
    return 0


def _verdict(rows: list[Row]) -> int:
    failed = [row.name for row in rows if not row.ok]
    if failed:
        print(f"\nFAIL: {len(failed)} of {len(rows)} are out of bounds: {', '.join(failed)}")
        return FAILED
    print(f"\nok: {len(rows)} of {len(rows)} within bounds")
    return 0


def _refuse_swapped(model_path: Path, state_path: Path) -> None:
    if (_magic(model_path), _magic(state_path)) == (llmc_header.DEBUG_STATE, llmc_header.MODEL):
        raise CheckpointError(
            f"this is a debug state, and that a model: {model_path}, {state_path}",
            slug="verify-files-swapped",
            do=f"harness verify {state_path} {model_path}",
        )


def _magic(path: Path) -> int | None:
    """The first number of a regular file; what else is wrong with it, its reader says."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return int.from_bytes(file.read(4), "little")
    except OSError:
        return None


def _refuse_too_long(model: GPT2, T: int) -> None:
    if model.positions < T:
        raise ConfigError(
            f"T={T} tokens do not fit a model of {model.positions} positions",
            slug="verify-too-long",
            do=f"T={model.positions}, or model.positions={T}",
        )


def _write_report(path: Path, record: dict[str, object]) -> None:
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    try:
        write_atomically(path, [text.encode()])
    except OSError as error:
        raise ResourceError(
            f"report can't be written: {path}", slug="verify-report-not-written", found=error
        ) from error
