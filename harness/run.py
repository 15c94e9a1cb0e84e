"""One training run from its configuration to its last checkpoint: the loop, and what surrounds it."""

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

from harness import checkpoint, run_folder
from harness.config import RunConfig, model_of, schedule_of, sequence_length, trainer_settings
from harness.data import Dataset, Sequences, load, ngram_losses, require
from harness.errors import CheckpointError
from harness.metrics import MetricsFile
from harness.plugins import all_ops
from harness.progress import Reporter, StepRecord
from harness.sampling import generate, stream
from harness.signals import StopRequest
from harness.trainer import StepResult, Trainer


def config_text(run: RunConfig) -> str:
    """A run's configuration as YAML, every value resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(run))


def load_data(run: RunConfig) -> Dataset:
    """The tokens that a run trains on. Raises DataError where there are too few."""
    B, T = run.batch_size, sequence_length(run)
    if run.data.source == "counting":
        from harness.data.counting import load_counting

        return load_counting(run.model.vocab_size or 256, B * T * run.gradient_accumulation)
    data = run.data
    dataset = load(
        data.source, data.path, data.tokenizer, data.validation_fraction, Path(data.cache_dir)
    )
    require(dataset.train, B, T)
    return dataset


class Run:
    """A run: its folder, trainer and data. `execute` trains and returns an exit code."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.T = sequence_length(config)
        self.data = load_data(config)
        self.model = model_of(config, self.data.vocab_size)
        self.trainer = Trainer(trainer_settings(config, self.model), all_ops())
        self.schedule = schedule_of(config)
        self.sequences = Sequences(self.data.train, self.T, config.seed)
        self.step = 0
        self._peak_gflops = _peak_gflops()
        self._validator: Any = None
        self._sampler: Any = None

    # -- the loop -----------------------------------------------------------------------------

    def execute(self) -> int:
        """Train to the last step, or to the step in which a signal arrives. Returns the exit code."""
        found = self._find_checkpoint()
        self.folder = found.path.parents[1] if found else self._new_folder()
        with (
            StopRequest() as stop,
            MetricsFile(self.folder / "metrics.jsonl") as metrics,
            Reporter(self.config.steps) as reporter,
        ):
            self.reporter, self.metrics = reporter, metrics
            self._describe()
            if found:
                self._resume(found)
            started, first = time.perf_counter(), self.step
            while self.step < self.config.steps and stop.signal is None:
                self._one_step(started, first)
                self._on_the_way()
            if stop.signal is not None:
                self._save()
                reporter.line(
                    f"stopped by {stop.signal.name} after step {self.step}; "
                    "resume=auto continues from here"
                )
                return stop.exit_code or 0
            self._finish()
            total_s = time.perf_counter() - started
            reporter.line(f"done in {total_s:.1f} s; run folder {_shown(self.folder)}")
        return 0

    def _one_step(self, started: float, first: int) -> None:
        begin = time.perf_counter()
        config, step = self.config, self.step + 1
        count = config.batch_size * config.gradient_accumulation
        x_BT, y_BT = self.sequences.take(self.step * count, count)
        rate = self.schedule(step)
        result = self.trainer.step(x_BT, y_BT, rate)
        self.step = step
        now = time.perf_counter()
        elapsed_s = now - begin
        left = (now - started) / (step - first) * (config.steps - step)
        record = self._record(result, rate, elapsed_s, left)
        self.metrics.write({"kind": "step", **_jsonable(record), "skipped": result.skipped})
        if step % config.log_every == 0 or step == config.steps:
            self.reporter.step(record)

    def _record(
        self, result: StepResult, rate: float, elapsed_s: float, eta_s: float
    ) -> StepRecord:
        tokens_per_s = self.trainer.tokens_per_step / elapsed_s
        flops_per_s = tokens_per_s * self.model.flops_per_token(self.T)
        peak = self._peak_gflops
        return StepRecord(
            step=self.step,
            steps=self.config.steps,
            loss=result.loss,
            grad_norm=math.nan if result.grad_norm is None else result.grad_norm,
            learning_rate=rate,
            step_ms=1e3 * elapsed_s,
            tokens_per_s=tokens_per_s,
            mfu=None if peak is None else flops_per_s / (1e9 * peak),
            eta_s=eta_s,
        )

    def _on_the_way(self) -> None:
        config, step = self.config, self.step
        if step == config.steps:
            return
        if _due(step, config.validate_every):
            self._validate(config.validation_batches)
        if _due(step, config.sample.every):
            self._sample()
        if _due(step, config.checkpoint_every):
            self._save()

    def _finish(self) -> None:
        config = self.config
        losses = self._validate(None)
        if config.sample.every:
            self._sample()
        if config.baselines and len(self.data.validation):
            self._compare(losses)
        self._save()

    # -- what is said -------------------------------------------------------------------------

    def _describe(self) -> None:
        model, plan, say = self.model, self.trainer.plan, self.reporter.line
        backends = ", ".join(b.name for b in self.trainer.dispatch.backends)
        expanded = ", ".join(plan.expanded) or "none"
        memory = sum(plan.arena_bytes.values()) + self.trainer.parameters.nbytes
        say(f"data      {self.data.description}")
        say(
            f"model     {model.parameters:,} parameters: {model.layers} layers, {model.heads} heads, "
            f"{model.channels} channels, vocabulary {model.vocab_size:,}"
        )
        say(
            f"step      {self.config.gradient_accumulation} x {self.config.batch_size} sequences of "
            f"{self.T} tokens, {self.trainer.settings.precision.policy}"
        )
        say(f"backends  {backends}; fused ops expanded: {expanded}")
        for step in plan.copies:
            say(f"copy      {step.views[0].version} -> {step.views[1].version.device}")
        say(f"memory    {memory / 2**20:,.1f} MiB planned")
        say(f"run       {_shown(self.folder)}")

    def _validate(self, batches: int | None) -> float | None:
        """The validation loss in nats per token; None (and nothing said) where there is no split."""
        B = self.config.batch_size
        tokens = self.data.validation
        if len(tokens) <= self.T:
            return None
        sequences = Sequences(tokens, self.T, self.config.seed, shuffle=False)
        B = min(B, sequences.per_epoch)
        if self._validator is None:
            self._validator = self.trainer.another(B, self.T)
        whole = sequences.per_epoch // B
        count = whole if batches is None else min(batches, whole)
        taken = (sequences.take(i * B, B) for i in range(count))
        loss = self.trainer.mean_loss(self._validator, taken)
        self.metrics.write({"kind": "validation", "step": self.step, "loss": loss})
        self.reporter.line(
            f"validation  step {self.step}  loss {loss:.4f}  ({count * B * self.T:,} tokens)"
        )
        return loss

    def _sample(self) -> None:
        sample, tokenizer = self.config.sample, self.data.tokenizer
        if self._sampler is None:
            self._sampler = self.trainer.another(1, self.T, head="logits")
        prompt = [int(t) for t in tokenizer.encode(sample.prompt)] or [0]
        drawn = generate(
            self._sampler,
            prompt,
            sample.length,
            self.data.vocab_size,
            stream(self.config.seed, self.step),
            sample.temperature,
            sample.top_k,
        )
        text = tokenizer.decode([*prompt, *drawn])
        self.metrics.write({"kind": "sample", "step": self.step, "text": text})
        self.reporter.line(f"sample  step {self.step}\n" + _indented(text))

    def _compare(self, loss: float | None) -> None:
        """The final loss beside what counting alone reaches on the same split."""
        if loss is None:
            return
        counted = ngram_losses(self.data.train, self.data.validation, self.data.vocab_size)
        losses = {**counted, "this model": loss}
        self.metrics.write({"kind": "baselines", "step": self.step, **losses})
        self.reporter.line("validation loss, nats per token")
        for name, value in losses.items():
            self.reporter.line(f"  {name:<12}{value:.4f}")

    # -- what is kept -------------------------------------------------------------------------

    def _new_folder(self) -> Path:
        folder = run_folder.create(Path(self.config.runs_dir), self.config.name)
        run_folder.write_config(
            folder, json.dumps(dataclasses.asdict(self.config), indent=2) + "\n"
        )
        run_folder.write_versions(folder)
        trainer = self.trainer
        record = {
            "data": {"description": self.data.description, "sha256": self.data.sha256},
            "tokenizer": self.data.tokenizer.to_dict(),
            "parameters": self.model.parameters,
            "ops": trainer.dispatch.table(trainer.hooks),
            "expanded": trainer.plan.expanded,
        }
        run_folder.write_json_atomically(folder / "resolved.json", record)
        return folder

    def _save(self) -> Path:
        return checkpoint.save(
            self.folder / "checkpoints",
            self.step,
            self.trainer.state(),
            {**self._fingerprint(), "updates": self.trainer.optimizer.t, **self._facts()},
            self.config.keep_checkpoints,
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "model": dataclasses.asdict(self.model),
            "tokenizer": self.data.tokenizer.to_dict(),
            "config": dataclasses.asdict(self.config),
        }

    def _fingerprint(self) -> dict[str, Any]:
        """What a run that goes on bit for bit must have in common with the one it continues."""
        config = self.config
        optimizer = json.dumps(dataclasses.asdict(config.optimizer), sort_keys=True)
        model = json.dumps(dataclasses.asdict(self.model), sort_keys=True)
        return {
            "data sha256": self.data.sha256,
            "model sha256": hashlib.sha256(model.encode()).hexdigest(),
            "optimizer sha256": hashlib.sha256(optimizer.encode()).hexdigest(),
            "seed": config.seed,
            "sequences per step": config.batch_size * config.gradient_accumulation,
            "sequence_length": self.T,
        }

    def _find_checkpoint(self) -> checkpoint.Checkpoint | None:
        resume, base = self.config.resume, Path(self.config.runs_dir)
        if resume == "never":
            return None
        if resume == "auto":
            folder = run_folder.find_newest(base, self.config.name)
            if folder is None:
                return None
        else:
            folder = Path(resume)
            if not folder.is_dir():
                raise CheckpointError(
                    f"there is no run to resume from: {resume}",
                    slug="run-missing",
                    do="resume=auto, or the folder of a run",
                )
        found, ignored = checkpoint.newest(folder / "checkpoints")
        for path, reason in ignored:
            print(f"ignored   {_shown(path)}: {reason}")
        if found is None and resume != "auto":
            raise CheckpointError(
                f"the run has no checkpoint: {resume}",
                slug="run-without-checkpoint",
                do="resume=never starts anew",
            )
        return found

    def _resume(self, found: checkpoint.Checkpoint) -> None:
        for name, value in self._fingerprint().items():
            if found.state.get(name) != value:
                raise CheckpointError(
                    f"the run cannot go on from this checkpoint: {name} differs",
                    slug="resume-misfit",
                    where=_shown(found.path),
                    expected=found.state.get(name),
                    found=value,
                    do="the configuration that it was written by (config.yaml beside it), "
                    "or resume=never",
                )
        tensors = {group: found.tensors(group) for group in found.groups}
        self.trainer.restore(tensors, updates=found.state["updates"])
        self.step = found.step
        self.metrics.truncate_after(found.step)
        self.reporter.line(f"resumed   after step {found.step} from {_shown(found.path)}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _jsonable(record: StepRecord) -> dict[str, Any]:
    return dataclasses.asdict(record)


def _indented(text: str) -> str:
    """Sampled text as an indented block; control characters do not reach the terminal."""
    lines = text.replace("\r", "\n").split("\n")
    shown = ("".join(c if c.isprintable() or c == "\t" else "·" for c in line) for line in lines)
    return "\n".join(f"  | {line}" for line in shown)


def _shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _peak_gflops() -> float | None:
    """The matmul peak measured on this machine, or None: `harness bench peaks` measures it."""
    return None
