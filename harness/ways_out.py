"""Say how a training run would need less memory, and refuse at once what cannot fit at all."""

from typing import TYPE_CHECKING

from harness.planning.memory_budget import MemoryNeed

if TYPE_CHECKING:
    from harness.training.training_plan import TrainerSettings


def ways_out(
    settings: "TrainerSettings", needed: int, available: int, activations: int
) -> list[str]:
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


def check_state_fits(settings: "TrainerSettings") -> None:
    """Before the plan, because that of a model far too large takes minutes."""
    model, moments = settings.model, len(settings.optimizer.moments)
    numbers = model.parameters * (1 + moments)
    if settings.adapter is not None:
        numbers = model.parameters + settings.adapter.parameters(model) * (1 + moments)
    need = MemoryNeed(lambda needed, available: ways_out(settings, needed, available, 0))
    need.add(f"the state of {model.parameters:,} parameters", 4 * numbers)
    need.check()
