"""Keep the state of a run in its folder: checkpoints to go on from, and the adapter alone."""

from pathlib import Path
from typing import Any

from harness import checkpoint
from harness.config.config import RunConfig, adapter_of, config_record
from harness.data import Dataset
from harness.run.log import RunLog
from harness.run.resume import shown
from harness.training.trainer import Trainer


class Checkpoints:
    """The checkpoints of a run. fingerprint: what a run that goes on from one must have in common."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        trainer: Trainer,
        data: Dataset,
        fingerprint: dict[str, Any],
    ) -> None:
        self._folder, self._config, self._trainer = folder, config, trainer
        self._about = {
            "tokenizer": data.tokenizer.to_dict(),
            "config": config_record(config),
        }
        self._fingerprint = fingerprint

    def save(self, step: int) -> None:
        """Save the state after a step, and delete the oldest of more than keep_checkpoints."""
        checkpoint.save(
            self._folder / "checkpoints",
            step,
            self._trainer.state(),
            {
                "fingerprint": self._fingerprint,
                "updates": self._trainer.optimizer.t,
                **self._about,
            },
            self._config.keep_checkpoints,
        )

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Give the trainer the state of a checkpoint."""
        tensors = {group: found.tensors(group) for group in found.groups}
        self._trainer.restore(tensors, updates=found.state["updates"])

    def save_adapter(self, log: RunLog) -> None:
        """The adapter alone, as peft reads it; the checkpoint holds it with all else."""
        lora = adapter_of(self._config)
        if lora is None:
            return
        from harness.interchange.huggingface.peft import save_peft

        folder, trainer = self._folder / "adapter", self._trainer
        model, read = trainer.settings.model, trainer.parameters.read
        save_peft(folder, lora, model, read, self._config.model_from)
        log.line(f"adapter   {shown(folder)}, for peft")
