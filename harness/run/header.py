"""What a run begins with: the lines at its top, and the files that its folder gets first."""

from collections.abc import Iterator
from pathlib import Path

from harness.config.config import RunConfig, adapter_of, config_text
from harness.data import Dataset
from harness.machine.computed_with import ComputedWith
from harness.run import folder as run_folder
from harness.training.trainer import Trainer


def lines(
    config: RunConfig,
    data: Dataset,
    trainer: Trainer,
    computed_with: ComputedWith,
    begins_with: str | None,
) -> Iterator[str]:
    """The header of a run. begins_with: what the stored model is; None without one."""
    settings, plan = trainer.settings, trainer.plan
    model, calls = settings.model, plan.calls
    backends = ", ".join(b.name for b in plan.dispatch.backends)
    expanded = ", ".join(calls.expanded) or "none"
    memory = sum(calls.arena_bytes.values()) + trainer.parameters.nbytes
    yield f"data      {data.description}"
    yield (
        f"model     {model.parameters:,} parameters: {model.layers} layers, {model.heads} heads, "
        f"{model.channels} channels, vocabulary {model.vocab_size:,}"
    )
    if config.sample.every and model.attention != "attention":
        yield f"samples   without a cache: {model.attention} has no op that goes on from one"
    adapter = adapter_of(config)
    if adapter is not None:
        yield f"adapter   {adapter.description(model)}"
    if begins_with is not None:
        yield f"from      {config.model_from}: {begins_with}"
    yield (
        f"step      {settings.gradient_accumulation} x {settings.batch_size} sequences of "
        f"{settings.sequence_length} tokens, {settings.precision.policy}"
    )
    yield f"backends  {backends}; fused ops expanded: {expanded}"
    yield from computed_with.lines()
    if plan.home.device != "host":
        yield f"capture   {trainer.device_step.capture}"
    for step in calls.copies:
        yield f"copy      {step.views[0].version} -> {step.views[1].version.device}"
    yield f"memory    {memory / 2**20:,.1f} MiB planned"


def new_folder(
    config: RunConfig, data: Dataset, trainer: Trainer, computed_with: ComputedWith
) -> Path:
    """A folder for the run, with its configuration, its versions and what computes each op."""
    folder = run_folder.create(Path(config.runs_dir), config.name)
    run_folder.write_config(folder, config_text(config))
    run_folder.write_versions(folder)
    plan = trainer.plan
    record = {
        "data": {"description": data.description, "sha256": data.sha256},
        "tokenizer": data.tokenizer.to_dict(),
        "parameters": trainer.settings.model.parameters,
        "ops": plan.dispatch.table(plan.hooks),
        "expanded": plan.calls.expanded,
        "computed_with": computed_with.record(),
    }
    run_folder.write_json_atomically(folder / "resolved.json", record)
    return folder
