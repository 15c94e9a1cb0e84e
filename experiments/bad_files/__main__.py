"""Damage every format that may come from a stranger, many times over, and record what became of it.

python -m experiments.bad_files [--count 10000] [--seed 0] [FORMAT ...]
"""

import argparse
import time
from pathlib import Path

from experiments.bad_files.campaign import FAULTS, run
from experiments.bad_files.child import MEMORY_BYTES, TIME_S
from experiments.bad_files.formats import FORMATS
from harness.machine.provenance import versions
from harness.run.folder import write_json_atomically

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--count", type=int, default=10_000, help="mutants of each format")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, records, faults = time.perf_counter(), {}, 0
    for name in arguments.formats:
        tally = run(name, arguments.seed, arguments.count)
        records[name] = tally.record()
        faults += sum(tally.outcomes[fault] for fault in FAULTS)
        told = ", ".join(f"{count:,} {what}" for what, count in tally.outcomes.most_common())
        print(f"{name:<20} {told}; slowest {tally.slowest_s:.3f} s", flush=True)
    if set(arguments.formats) == set(FORMATS):
        result = {
            "command": f"python -m experiments.bad_files --count {arguments.count}",
            "seed": arguments.seed,
            "limits": {"seconds": TIME_S, "bytes": MEMORY_BYTES},
            "mutants": sum(sum(r["outcomes"].values()) for r in records.values()),
            "faults": faults,
            "formats": records,
            "seconds": round(time.perf_counter() - started),
            "versions": versions(),
        }
        write_json_atomically(HERE / "record.json", result)
    print(f"{faults} broke the promise: one typed error within {TIME_S:g} s and 2 GiB")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
