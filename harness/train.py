"""`python -m harness.train [key=value ...]`: train a GPT-2; `--help` lists the keys, `-m` sweeps.

Exit codes: 0 done; 2 config, 3 data, 4 checkpoint, 5 plugin, 6 numerics, 7 resources; 75, 130 and 143
after SIGUSR2, SIGINT and SIGTERM, with a checkpoint.
"""

import os
import sys
import traceback
from typing import Any

from harness.errors import HarnessError

MULTIRUN_STOPS = (130, 143, 75)


def main() -> int:
    """Check the command line, then let Hydra run each job. Returns the exit code."""
    from harness import command_line

    arguments = sys.argv[1:]
    try:
        runs = command_line.check(arguments)
    except HarnessError as error:
        return report(error)
    outcomes: list[int] = []
    _hydra_main(outcomes, len(runs))
    if len(runs) > 1:
        failed = sum(code != 0 for code in outcomes)
        print(f"{len(outcomes)} runs, {failed} failed")
    return next((code for code in outcomes if code), 0)


def _hydra_main(outcomes: list[int], count: int) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from harness import command_line
    from harness.config import conf_dir

    command_line.register_schema()

    # The folder is given as it is: a relative one works only under `python -m`.
    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(config: Any) -> None:
        # A job of a sweep that fails stops no other; SystemExit would end them all.
        if any(code in MULTIRUN_STOPS for code in outcomes):
            return
        if count > 1:
            overrides = " ".join(HydraConfig.get().overrides.task)
            print(f"\nrun {len(outcomes) + 1} of {count}: {overrides}", flush=True)
        outcomes.append(run_one(config))

    job()


def run_one(config: Any) -> int:
    """One run, its errors printed. Returns its exit code."""
    from harness import command_line
    from harness.run import Run

    try:
        return Run(command_line.to_run(config)).execute()
    except HarnessError as error:
        return report(error)
    except KeyboardInterrupt:
        print("interrupted; the last checkpoint stands", file=sys.stderr)
        return 130
    except Exception:
        # Unforeseen, so a bug of ours or of a plugin: the traceback is what helps.
        traceback.print_exc()
        return 1


def report(error: HarnessError) -> int:
    """Print an error as people read it; HARNESS_TRACEBACK=1 adds where it was raised."""
    if os.environ.get("HARNESS_TRACEBACK"):
        traceback.print_exception(error)
    print(error.render(), file=sys.stderr, flush=True)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
