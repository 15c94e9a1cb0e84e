"""`python -m harness.train [key=value ...]`: train a GPT-2; `--help` lists the keys, `-m` sweeps.

Exit codes: 0 done; 2 config, 3 data, 4 checkpoint, 5 plugin, 6 numerics, 7 resources; 75, 130 and 143
after SIGUSR2, SIGINT and SIGTERM, with a checkpoint.
"""

import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, ResourceError, out_of_memory, report

if TYPE_CHECKING:
    from harness.config.config import RunConfig

MULTIRUN_STOPS = (130, 143, 75)
SMALLER = "batch_size, sequence_length or model smaller"


def main(*, is_command: bool = False) -> int:
    """Check the command line, then run what it asks for; Hydra runs a sweep. Returns the exit code.

    is_command: this process is `python -m harness.train`, which blas_kernel=library may start again.
    """
    from harness import __version__
    from harness.config import command_line
    from harness.config.application import MULTIRUN
    from harness.machine.reexec import start_again_if_asked

    try:
        flags, overrides = command_line.split(sys.argv[1:])
        if "--version" in flags:
            print(f"harness {__version__}")
            return 0
        runs = command_line.check([*flags, *overrides])
        start_again_if_asked([run.blas_kernel for run in runs], is_command=is_command)
        if any(flag in MULTIRUN for flag in flags):
            _check_writable(Path(runs[0].runs_dir))
    except HarnessError as error:
        return report(error)
    if not flags:
        return run_one(runs[0])  # hydra.main would compose it twice more, in 0.25 s
    # Hydra takes the overrides in one piece only.
    sys.argv[1:] = [*flags, *overrides]
    outcomes: list[int] = []
    _hydra_main(outcomes, len(runs))
    if len(runs) > 1:
        failed = sum(code != 0 for code in outcomes)
        _say(f"{len(outcomes)} runs, {failed} failed")
    return next((code for code in outcomes if code), 0)


def _check_writable(folder: Path) -> None:
    """Hydra writes the list of a sweep's jobs there, and fails with its own text where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResourceError(
            f"folder of runs can't be written to: {folder}",
            slug="runs-not-writable",
            found=error,
            do="runs_dir=FOLDER, one that you can write to",
        ) from error


def _hydra_main(outcomes: list[int], count: int) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from harness.config import command_line
    from harness.config.config import conf_dir

    command_line.register_schema()

    # The folder is given as it is: a relative one works only under `python -m`.
    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(config: Any) -> None:
        # A job of a sweep that fails stops no other; SystemExit would end them all.
        if any(code in MULTIRUN_STOPS for code in outcomes):
            return
        if count > 1:
            overrides = " ".join(HydraConfig.get().overrides.task)
            _say(f"\nrun {len(outcomes) + 1} of {count}: {overrides}")
        outcomes.append(run_one(command_line.to_run(config)))

    job()


def run_one(config: "RunConfig") -> int:
    """One run, its errors printed. Returns its exit code."""
    from harness.run.run import Run

    try:
        return Run(config).execute()
    except HarnessError as error:
        return report(error)
    except MemoryError as error:
        return report(out_of_memory(error, SMALLER))
    except KeyboardInterrupt:
        print("interrupted; the last checkpoint stands", file=sys.stderr)
        return 130
    except Exception:
        # Unforeseen, so a bug of ours or of a plugin: the traceback is what helps.
        traceback.print_exc()
        return 1


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # whoever read our output may have gone; the runs go on
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(is_command=True))
