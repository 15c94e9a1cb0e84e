"""Hold a run against the devices that are not the host before it takes anything there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.planning.memory_budget import MemoryNeed, lasting_bytes
from harness.planning.plan import Plan
from harness.ways_out import ways_out

if TYPE_CHECKING:
    from harness.training.training_plan import TrainingPlan


def check_devices(training: "TrainingPlan") -> None:
    """Raise what a device has against a step: ResourceError for its memory, ConfigError for precision.

    Without a device, this is where its backend says so.
    """
    settings, plan = training.settings, training.plan
    for name, device in _devices(training).items():
        hooks = [h for h in training.hooks if training.dispatch.choose(h).backend.device == name]
        if hasattr(device, "check_precision"):
            for precision in dict.fromkeys(map(settings.precision.of_hook, hooks)):
                device.check_precision(precision)
        at_home = name == training.home.device
        needs = training.peak_bytes if at_home else _needs(plan, name)

        def out(needed: int, available: int, activations: int = needs["activations"]) -> list[str]:
            return ways_out(settings, needed, available, activations)

        _check_memory(device, name, needs, plan, out)


def check_forward(training: "TrainingPlan", plan: Plan, what: str) -> None:
    """The same of the memory of one more plan, whose parameters are there already."""
    for name, device in _devices(training).items():
        needs = {what: sum(_needs(plan, name).values())}

        def out(needed: int, available: int) -> list[str]:
            return ways_out(training.settings, needed, available, needed)

        _check_memory(device, name, needs, plan, out)


def _devices(training: "TrainingPlan") -> dict[str, Any]:
    """Every device of a step but the host, by its name."""
    chosen = [training.dispatch.choose(hook).backend for hook in training.hooks]
    backends = {backend.device: backend for backend in chosen if backend.device != "host"}
    return {name: backend.open_device() for name, backend in backends.items()}


def _needs(plan: Plan, device: str) -> dict[str, int]:
    return {
        "activations": plan.arena_bytes.get(device, 0),
        "inputs and copies": lasting_bytes(plan, device),
    }


def _check_memory(
    device: Any,
    name: str,
    needs: Mapping[str, int],
    plan: Plan,
    ways_out: Callable[[int, int], list[str]],
) -> None:
    if not hasattr(device, "free_bytes"):
        return
    need = MemoryNeed(ways_out, device.free_bytes(), name)
    for what, nbytes in needs.items():
        need.add(what, nbytes)
    need.check(plan)
