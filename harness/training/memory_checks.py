"""Hold a run against the memory of the host and of each device before it takes anything there.

Where the memory will not do, the error lists the remedies: what to type for a run that needs less.
"""

from collections.abc import Callable, Mapping
from typing import Any

from harness.planning.layout import BF16_WEIGHTS
from harness.planning.memory_budget import MemoryNeed, host_bytes, lasting_bytes
from harness.planning.plan import Plan
from harness.training.training_plan import TrainerSettings, TrainingPlan


def remedies(settings: TrainerSettings, needed: int, available: int, activations: int) -> list[str]:
    """How to need less memory, as it is typed; what helps most comes first."""
    B, micro = settings.batch_size, settings.gradient_accumulation
    fixed = needed - activations
    found = []
    if fixed < available:
        # Half for the step, half for validation and samples, which the check may not have come to.
        fits = max(1, B * (available - fixed) // max(1, 2 * activations))
        if fits < B:
            again = -(-B // fits) * micro
            found.append(
                f"batch_size={fits} gradient_accumulation={again}   the same step in parts"
            )
        if settings.sequence_length > 1:
            found.append(f"sequence_length={settings.sequence_length // 2}")
    found.append("a smaller model: model.layers, model.channels, or another preset")
    if settings.optimizer.moments:
        found.append("optimizer=sgd optimizer.momentum=0   no moments")
    return found


def check_state_fits(settings: TrainerSettings) -> None:
    """Raise ResourceError where not even weights and moments fit.

    It comes before the plan, because to plan a model that is far too large takes minutes.
    """
    model, moments = settings.model, len(settings.optimizer.moments)
    numbers = model.parameters * (1 + moments)
    if settings.adapter is not None:
        numbers = model.parameters + settings.adapter.parameters(model) * (1 + moments)
    need = MemoryNeed(lambda needed, available: remedies(settings, needed, available, 0))
    need.add(f"the state of {model.parameters:,} parameters", 4 * numbers)
    need.check()


def need_of_step(training: TrainingPlan) -> MemoryNeed:
    """What a step takes of the host; a device that is not the host has its own limits.

    Raises ResourceError where that is more than there is.
    """
    activations, arenas = host_bytes(training.calls), training.arena_bytes
    need = MemoryNeed(
        lambda needed, available: remedies(training.settings, needed, available, activations)
    )
    saved = sum(n for name, n in arenas.items() if name not in ("gradient", BF16_WEIGHTS))
    if training.home.device == "host":
        what = f"parameters and their {', '.join(n for n in arenas if n != 'parameter')}"
        need.add(what, sum(arenas.values()))
    need.add("a copy of the state while a checkpoint is written", saved)
    need.add("activations", activations)
    need.check(training.calls)
    return need


def check_devices(training: TrainingPlan) -> None:
    """Raise what a device refuses of a step: ResourceError for its memory, ConfigError for a precision.

    Where there is no such device, its backend says so here.
    """
    settings, calls = training.settings, training.calls
    for name, device in _devices(training).items():
        hooks = [h for h in training.hooks if training.dispatch.choose(h).backend.device == name]
        if hasattr(device, "check_precision"):
            for precision in dict.fromkeys(map(settings.precision.of_hook, hooks)):
                device.check_precision(precision)
        at_home = name == training.home.device
        needs = training.peak_bytes if at_home else _needs(calls, name)

        def typed(
            needed: int, available: int, activations: int = needs["activations"]
        ) -> list[str]:
            return remedies(settings, needed, available, activations)

        _check_memory(device, name, needs, calls, typed)


def check_forward(training: TrainingPlan, plan: Plan, what: str) -> None:
    """The same for the memory of one more plan, whose parameters are there already."""
    for name, device in _devices(training).items():
        needs = {what: sum(_needs(plan, name).values())}

        def typed(needed: int, available: int) -> list[str]:
            return remedies(training.settings, needed, available, needed)

        _check_memory(device, name, needs, plan, typed)


def _devices(training: TrainingPlan) -> dict[str, Any]:
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
    remedies_of: Callable[[int, int], list[str]],
) -> None:
    if not hasattr(device, "free_bytes"):
        return
    need = MemoryNeed(remedies_of, device.free_bytes(), name)
    for what, nbytes in needs.items():
        need.add(what, nbytes)
    need.check(plan)
