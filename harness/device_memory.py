"""Hold a run against a device that is not the host before it takes anything there."""

from collections.abc import Callable, Iterable, Mapping

from harness.memory_need import MemoryNeed
from harness.plan import Plan
from harness.plugins import Backend


def check_device(
    backend: Backend,
    precisions: Iterable[str],
    needs: Mapping[str, int],
    plan: Plan,
    ways_out: Callable[[int, int], list[str]],
) -> None:
    """Raise what the device has against a run: ResourceError for its memory, ConfigError for precision.

    backend: whose device it is. needs: what for -> bytes. ways_out: see MemoryNeed.
    """
    if backend.device == "host":
        return
    check_precision = backend.functions.get("check_precision")
    if check_precision is not None:
        for precision in dict.fromkeys(precisions):
            check_precision(precision)
    if "free_bytes" not in backend:
        return
    need = MemoryNeed(ways_out, backend.functions["free_bytes"](), backend.device)
    for what, nbytes in needs.items():
        need.add(what, nbytes)
    need.check(plan)
