"""One training run from its configuration to its last checkpoint: the loop, and what surrounds it."""

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from harness import checkpoint
from harness.config.config import (
    RunConfig,
    adapter_of,
    config_record,
    config_text,
    model_of,
    schedule_of,
    sequence_length,
    trainer_settings,
)
from harness.data import Sequences, ngram_losses
from harness.decoding.continuation import Row, continuations
from harness.decoding.decoder import NextToken
from harness.decoding.sampling import Sampling, stream
from harness.interchange.llmc.training import load_moments
from harness.machine.computed_with import computed_with
from harness.machine.threads import using_threads
from harness.plugins.compile_clock import WORTH_A_LINE_S
from harness.plugins.loading import all_ops
from harness.run import folder as run_folder
from harness.run import resume
from harness.run.data import load_data
from harness.run.lock import locked
from harness.run.metrics import MetricsFile
from harness.run.progress import Reporter, StepRecord
from harness.run.resume import shown
from harness.run.signals import StopRequest
from harness.run.starting_model import check_tokenizer, starting_model
from harness.run.step_queue import Finished, Stepping
from harness.training.trainer import Trainer


class Run:
    """A run: its folder, trainer and data. `execute` trains and returns an exit code.

    The threads of this process are set when it is made, and are what they were when `execute` is done.
    """

    def __init__(self, config: RunConfig) -> None:
        with starting_model(config) as (config, source):
            self.config = config
            self.T = sequence_length(config)
            self.data = load_data(config)
            if source is not None:
                check_tokenizer(source, self.data.tokenizer)
            self.model = model_of(config, self.data.vocab_size)
            self.trainer = Trainer(trainer_settings(config, self.model), all_ops(), source)
            self._begins_with = None if source is None else source.description
            if config.optimizer_from is not None:
                updates = load_moments(
                    Path(os.path.expanduser(config.optimizer_from)), self.trainer
                )
                self._begins_with = f"{self._begins_with}, moments of {updates:,} updates"
        self.schedule = schedule_of(config)
        self.sequences = Sequences(self.data.train, self.T, config.seed, config.data.shuffle)
        self.step = 0
        self._fingerprint = resume.fingerprint(config, self.model, self.data.sha256)
        self._prompt = self._encoded_prompt()
        self._peak_flops_per_s = _peak_flops_per_s(self.trainer)
        self._validation = self._validation_sequences()
        self._validator = self._sampler = None
        self._validated_tokens = 0
        backends = self.trainer.plan.dispatch.backends
        with ExitStack() as until_the_end:
            threads = until_the_end.enter_context(using_threads(config.threads, backends))
            self._computed_with = computed_with(threads, backends, config.blas_kernel)
            # What these need is taken now: not enough memory is an error of the start.
            if self._validation:
                self._validator = self.trainer.another(self._validation_batch, self.T)
            if self._prompt:
                self._sampler = self._new_sampler()
            self._until_the_end = until_the_end.pop_all()

    # -- the loop -----------------------------------------------------------------------------

    def execute(self) -> int:
        """Train to the last step, or to the step in which a signal arrives. Returns the exit code."""
        with self._until_the_end:
            return self._execute()

    def _execute(self) -> int:
        found, self._ignored = resume.find(self.config)
        if found:
            resume.check_fits(found, self._fingerprint)
        self.folder = found.path.parents[1] if found else self._new_folder()
        with (
            locked(self.folder),
            StopRequest() as self.stop,
            MetricsFile(self.folder / "metrics.jsonl") as self.metrics,
            Reporter(self.config.steps) as self.reporter,
        ):
            self._describe()
            if found:
                self._resume(found)
            # Of each start, because a run may go on elsewhere.
            capture = self.trainer.device_step.capture
            record = {**self._computed_with.record(), "capture": capture}
            self.metrics.write({"kind": "start", "step": self.step, **record})
            if self.config.validate_at_start and not found:
                self._validate(self.config.validation_batches)
            steps = Stepping(self.trainer, self.sequences, self.schedule, after=self.step)
            started, first = time.perf_counter(), self.step
            while steps.begun < self.config.steps and self.stop.signal is None:
                if not steps.in_flight:
                    self._say_what_was_compiled(steps.compiled(), self.step)
                steps.begin()
                late = 0 if self._is_read_at_once(steps.begun) else self.trainer.results_late
                self._finish_steps(steps, late, started, first)
                if not steps.in_flight and self.stop.signal is None:
                    self._on_the_way()
            self._finish_steps(steps, 0, started, first)
            if self.stop.signal is None:
                self._finish()
            self._save()
            self._save_adapter()
            if self.stop.signal is not None:
                self.reporter.line(
                    f"stopped by {self.stop.signal.name} after step {self.step}; "
                    "resume=auto continues from here"
                )
                return self.stop.exit_code or 0
            total_s = time.perf_counter() - started
            self.reporter.line(f"done in {total_s:.1f} s; run folder {shown(self.folder)}")
        return 0

    def _is_read_at_once(self, step: int) -> bool:
        """Whether something comes after this step that must not run beside the next."""
        config = self.config
        every = (config.validate_every, config.sample.every, config.checkpoint_every)
        return step == config.steps or any(_due(step, one) for one in every)

    def _finish_steps(self, steps: Stepping, late: int, started: float, first: int) -> None:
        """Finish what was begun, but for so many steps. started, first: when, and after which step."""
        while steps.in_flight > late:
            finished = steps.finish()
            self.step = finished.step
            self._say_what_was_compiled(finished.compiled, self.step)
            spent_s = time.perf_counter() - started - steps.compiling_s
            left_s = spent_s / (self.step - first) * (self.config.steps - self.step)
            self._report(finished, left_s)

    def _report(self, finished: Finished, left_s: float) -> None:
        step, skipped = finished.step, finished.result.skipped
        record = self._record(finished, left_s)
        self.metrics.write({"kind": "step", **_jsonable(record), "skipped": skipped})
        if step % self.config.log_every == 0 or step == self.config.steps:
            self.reporter.step(record)
        if skipped:
            self.reporter.line(f"skipped   step {step} is not finite; no update was made")

    def _say_what_was_compiled(self, spent: dict[str, float], step: int) -> None:
        for name, seconds in spent.items():
            if seconds >= WORTH_A_LINE_S:
                self.reporter.line(f"compiled  kernels of {name} in {seconds:.1f} s")
            self.metrics.write(
                {"kind": "compiling", "step": step, "backend": name, "seconds": seconds}
            )

    def _record(self, finished: Finished, eta_s: float) -> StepRecord:
        tokens_per_s = self.trainer.plan.tokens_per_step / finished.elapsed_s
        flops_per_s = tokens_per_s * self.model.flops_per_token(self.T)
        peak = self._peak_flops_per_s
        return StepRecord(
            step=finished.step,
            steps=self.config.steps,
            loss=finished.result.loss,
            grad_norm=finished.result.grad_norm,
            learning_rate=finished.rate,
            step_ms=1e3 * finished.elapsed_s,
            tokens_per_s=tokens_per_s,
            mfu=None if peak is None else flops_per_s / peak,
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
        # No longer than training was: a few steps are not followed by minutes of validation.
        batches = max(self.config.validation_batches or 0, self.config.steps)
        batches = self.config.final_validation_batches or batches
        loss = self._validate(batches)
        if self.stop.signal is None and self.config.sample.every:
            self._sample()
        if self.stop.signal is None and self.config.baselines:
            self._compare(loss)

    # -- what is said -------------------------------------------------------------------------

    def _describe(self) -> None:
        model, plan, say = self.model, self.trainer.plan.calls, self.reporter.line
        backends = ", ".join(b.name for b in self.trainer.plan.dispatch.backends)
        expanded = ", ".join(plan.expanded) or "none"
        memory = sum(plan.arena_bytes.values()) + self.trainer.parameters.nbytes
        say(f"data      {self.data.description}")
        say(
            f"model     {model.parameters:,} parameters: {model.layers} layers, {model.heads} heads, "
            f"{model.channels} channels, vocabulary {model.vocab_size:,}"
        )
        if self._sampler is not None and model.attention != "attention":
            say(f"samples   without a cache: {model.attention} has no op that goes on from one")
        adapter = adapter_of(self.config)
        if adapter is not None:
            say(f"adapter   {adapter.description(model)}")
        if self._begins_with is not None:
            say(f"from      {self.config.model_from}: {self._begins_with}")
        say(
            f"step      {self.config.gradient_accumulation} x {self.config.batch_size} sequences of "
            f"{self.T} tokens, {self.trainer.settings.precision.policy}"
        )
        say(f"backends  {backends}; fused ops expanded: {expanded}")
        for line in self._computed_with.lines():
            say(line)
        if self.trainer.plan.home.device != "host":
            say(f"capture   {self.trainer.device_step.capture}")
        for step in plan.copies:
            say(f"copy      {step.views[0].version} -> {step.views[1].version.device}")
        say(f"memory    {memory / 2**20:,.1f} MiB planned")
        say(f"run       {shown(self.folder)}")
        for line in self._ignored:
            say(line)

    def _validation_sequences(self) -> Sequences | None:
        tokens = self.data.validation
        if len(tokens) <= self.T:
            return None
        return Sequences(tokens, self.T, self.config.seed, shuffle=False)

    @property
    def _validation_batch(self) -> int:
        assert self._validation is not None
        return min(self.config.batch_size, self._validation.per_epoch)

    def _validate(self, batches: int | None) -> float | None:
        """The validation loss in nats per token; None (and nothing said) where there is no split,
        or where a signal came.
        """
        if self._validation is None or self._validator is None:
            return None
        B = self._validation_batch
        whole = self._validation.per_epoch // B
        count = whole if batches is None else min(batches, whole)
        loss = self.trainer.mean_loss(self._validator, self._validation_batches(count, B))
        if self.stop.signal is not None:
            return None
        self._validated_tokens = count * B * self.T
        self.metrics.write({"kind": "validation", "step": self.step, "loss": loss})
        self.reporter.line(
            f"validation  step {self.step}  loss {loss:.4f}  ({self._validated_tokens:,} tokens)"
        )
        return loss

    def _validation_batches(self, count: int, B: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        assert self._validation is not None
        for i in range(count):
            yield self._validation.take(i * B, B)
            if self.stop.signal is not None:
                return

    def _new_sampler(self) -> NextToken:
        """A decoder of one row; without a cache where the model's attention has no op for one."""
        has_cache = self.model.attention == "attention"
        capacity = min(self.model.positions, len(self._prompt) + self.config.sample.length)
        sampler = self.trainer.decoder(1, capacity, cache=has_cache)
        sampler.start([self._prompt])  # takes the memory now
        return sampler

    def _encoded_prompt(self) -> list[int]:
        """The prompt of the samples, never empty; an empty list where none are taken."""
        sample = self.config.sample
        if not sample.every:
            return []
        ids = self.data.tokenizer.encode(sample.prompt, where="sample.prompt")
        return [int(t) for t in ids] or [0]

    def _sample(self) -> None:
        sample, tokenizer = self.config.sample, self.data.tokenizer
        assert self._sampler is not None
        row = Row(self._prompt, stream(self.config.seed, self.step))
        settings = Sampling(sample.temperature, sample.top_k)
        for _ in continuations(
            self._sampler, [row], settings, sample.length, vocab_size=self.data.vocab_size
        ):
            if self.stop.signal is not None:
                return
        text = tokenizer.decode(row.context)
        self.metrics.write({"kind": "sample", "step": self.step, "text": text})
        self.reporter.line(f"sample  step {self.step}\n" + _indented(text))

    def _compare(self, loss: float | None) -> None:
        """The final loss beside what counting alone reaches on the same tokens."""
        if loss is None:
            return
        validation = self.data.validation[: self._validated_tokens + 1]
        counted = ngram_losses(self.data.train, validation, self.data.vocab_size)
        losses = {**counted, "this model": loss}
        self.metrics.write({"kind": "baselines", "step": self.step, **losses})
        self.reporter.line("validation loss, nats per token")
        for name, value in losses.items():
            self.reporter.line(f"  {name:<12}{value:.4f}")

    # -- what is kept -------------------------------------------------------------------------

    def _new_folder(self) -> Path:
        folder = run_folder.create(Path(self.config.runs_dir), self.config.name)
        run_folder.write_config(folder, config_text(self.config))
        run_folder.write_versions(folder)
        trainer = self.trainer
        record = {
            "data": {"description": self.data.description, "sha256": self.data.sha256},
            "tokenizer": self.data.tokenizer.to_dict(),
            "parameters": self.model.parameters,
            "ops": trainer.plan.dispatch.table(trainer.plan.hooks),
            "expanded": trainer.plan.calls.expanded,
            "computed_with": self._computed_with.record(),
        }
        run_folder.write_json_atomically(folder / "resolved.json", record)
        return folder

    def _save(self) -> Path:
        return checkpoint.save(
            self.folder / "checkpoints",
            self.step,
            self.trainer.state(),
            {
                "fingerprint": self._fingerprint,
                "updates": self.trainer.optimizer.t,
                "tokenizer": self.data.tokenizer.to_dict(),
                "config": config_record(self.config),
            },
            self.config.keep_checkpoints,
        )

    def _save_adapter(self) -> None:
        """The adapter alone, as peft reads it; the checkpoint holds it with all else."""
        lora = adapter_of(self.config)
        if lora is None:
            return
        from harness.interchange.huggingface.peft import save_peft

        folder, read = self.folder / "adapter", self.trainer.parameters.read
        save_peft(folder, lora, self.model, read, self.config.model_from)
        self.reporter.line(f"adapter   {shown(folder)}, for peft")

    def _resume(self, found: checkpoint.Checkpoint) -> None:
        tensors = {group: found.tensors(group) for group in found.groups}
        self.trainer.restore(tensors, updates=found.state["updates"])
        self.step = found.step
        self.metrics.truncate_after(found.step)
        self.reporter.line(f"resumed   after step {found.step} from {shown(found.path)}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _jsonable(record: StepRecord) -> dict[str, Any]:
    return dataclasses.asdict(record)


def _indented(text: str) -> str:
    """Sampled text as an indented block; control characters do not reach the terminal."""
    lines = text.replace("\r", "\n").split("\n")
    shown = ("".join(c if c.isprintable() or c == "\t" else "·" for c in line) for line in lines)
    return "\n".join(f"  | {line}" for line in shown)


def _peak_flops_per_s(trainer: Trainer) -> float | None:
    """The matmul peak measured on this machine, or None: `harness bench peaks` measures it."""
    if trainer.plan.home.device != "host":
        return None
    from harness.machine.peaks import cached_peaks

    peaks = cached_peaks()
    return peaks.best.matmul_flops_per_s if peaks else None
