"""What this machine was measured to reach, for MFU and the plan's roofline. Measures nothing itself."""

import json

from harness.bench.machine import this_machine
from harness.bench.peaks import Rates, cache_folder, from_record


def measured_rates() -> Rates | None:
    """The best rates of this machine; None where `harness bench peaks` has not been run on it."""
    machine = this_machine()
    file = cache_folder() / f"peaks-{machine.key}.json"
    try:
        found = from_record(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found.best if found.machine == machine else None
