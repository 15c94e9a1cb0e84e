"""Train a model from a configuration to the last checkpoint: the loop of a run."""

import os
from contextlib import ExitStack
from pathlib import Path

from harness import checkpoint
from harness.config.config import (
    RunConfig,
    model_of,
    schedule_of,
    sequence_length,
    trainer_settings,
)
from harness.data import Sequences
from harness.machine.computed_with import computed_with
from harness.machine.threads import using_threads
from harness.plugins.loading import all_ops
from harness.run import header, resume
from harness.run.checkpoints import Checkpoints
from harness.run.data import load_data
from harness.run.folder import locked
from harness.run.log import RunLog
from harness.run.metrics import MetricsFile
from harness.run.progress import Reporter
from harness.run.resume import shown
from harness.run.samples import Samples, encoded_prompt
from harness.run.signals import StopRequest
from harness.run.starting_model import check_tokenizer, starting_model
from harness.run.starting_moments import load_moments
from harness.run.step_queue import StepQueue
from harness.run.validation import Validated, Validation
from harness.training.compile_ahead import compile_ahead
from harness.training.trainer import Trainer


class Run:
    """A run: its folder, trainer and data. `execute` trains and returns an exit code.

    To make one sets the threads of this process; `execute` gives them back at its end.
    """

    def __init__(self, config: RunConfig) -> None:
        with starting_model(config) as (config, source):
            self.config = config
            self.data = load_data(config)
            if source is not None:
                check_tokenizer(source, self.data.tokenizer)
            self.model = model_of(config, self.data.vocab_size)
            self.trainer = Trainer(trainer_settings(config, self.model), all_ops(), source)
            self._begins_with = None if source is None else source.description
            if config.optimizer_from is not None:
                folder = Path(os.path.expanduser(config.optimizer_from))
                updates = load_moments(folder, self.trainer)
                self._begins_with = f"{self._begins_with}, moments of {updates:,} updates"
        self.schedule = schedule_of(config)
        T = sequence_length(config)
        self.sequences = Sequences(self.data.train, T, config.seed, config.data.shuffle)
        self.step = 0
        self._fingerprint = resume.fingerprint(config, self.model, self.data.sha256)
        prompt = encoded_prompt(config.sample, self.data)
        backends = self.trainer.plan.dispatch.backends
        with ExitStack() as until_the_end:
            threads = until_the_end.enter_context(using_threads(config.threads, backends))
            self._computed_with = computed_with(threads, backends, config.blas_kernel)
            # What these need is taken now: not enough memory is an error of the start.
            self.validation = Validation(self.trainer, self.data)
            self.samples = Samples(config.sample, self.trainer, self.data, prompt)
            self._until_the_end = until_the_end.pop_all()

    def execute(self) -> int:
        """Train to the last step, or to the step in which a signal arrives. Returns the exit code."""
        config = self.config
        with self._until_the_end:
            found, ignored = resume.find(config)
            if found:
                resume.check_fits(found, self._fingerprint)
            parts = config, self.data, self.trainer, self._computed_with
            self.folder = found.path.parents[1] if found else header.new_folder(*parts)
            with (
                locked(self.folder),
                StopRequest() as self.stop,
                MetricsFile(self.folder / "metrics.jsonl") as metrics,
                Reporter(config.steps) as reporter,
            ):
                self.log = RunLog(reporter, metrics, self.trainer, config.steps, config.log_every)
                about = header.lines(*parts, self._begins_with)
                for line in (*about, f"run       {shown(self.folder)}", *ignored):
                    self.log.line(line)
                return self._execute(found)

    def _execute(self, found: checkpoint.Checkpoint | None) -> int:
        """Begin, or go on from what was found; train; and keep what came of it."""
        self.checkpoints = Checkpoints(
            self.folder, self.config, self.trainer, self.data, self._fingerprint
        )
        if found:
            self.checkpoints.restore(found)
            self.step = found.step
            self.log.drop_records_after(found.step)
            self.log.line(f"resumed   after step {found.step} from {shown(found.path)}")
        # Of each start, because a run may go on elsewhere.
        capture = self.trainer.device_step.capture
        self.log.record("start", self.step, **self._computed_with.record(), capture=capture)
        stop = self.stop
        ahead = compile_ahead(self.trainer, self.log.compiling, lambda: stop.signal is not None)
        self.log.compiled(ahead, self.step)
        if self.config.validate_at_start and not found:
            self._validate(self.config.validation_batches)
        self._train()
        if self.stop.signal is None:
            self._finish()
        self.checkpoints.save(self.step)
        self.checkpoints.save_adapter(self.log)
        if self.stop.signal is not None:
            name = self.stop.signal.name
            self.log.line(
                f"stopped by {name} after step {self.step}; resume=auto continues from here"
            )
            return self.stop.exit_code or 0
        self.log.line(f"done in {self.log.elapsed_s:.1f} s; run folder {shown(self.folder)}")
        return 0

    def _train(self) -> None:
        """Every step that is left, and what comes between them."""
        queue = StepQueue(self.trainer, self.sequences, self.schedule, after=self.step)
        self.log.start_clock(self.step)
        while queue.begun < self.config.steps and self.stop.signal is None:
            if not queue.in_flight:
                self.log.compiled(queue.compiled(), self.step)
            queue.begin()
            late = 0 if self._is_read_at_once(queue.begun) else self.trainer.results_late
            self._read_results(queue, late)
            if not queue.in_flight and self.stop.signal is None:
                self._between_steps()
        self._read_results(queue, 0)

    def _read_results(self, queue: StepQueue, late: int) -> None:
        """Finish the steps that were begun, but for the last `late` of them."""
        while queue.in_flight > late:
            finished = queue.finish()
            self.step = finished.step
            self.log.step(finished, queue.compiling_s)

    def _is_read_at_once(self, step: int) -> bool:
        """Whether something comes after this step that must not run beside the next."""
        config = self.config
        every = (config.validate_every, config.sample.every, config.checkpoint_every)
        return step == config.steps or any(_due(step, one) for one in every)

    def _between_steps(self) -> None:
        """What is due after this step; after the last one `_finish` does it."""
        config, step = self.config, self.step
        if step == config.steps:
            return
        if _due(step, config.validate_every):
            self._validate(config.validation_batches)
        if _due(step, config.sample.every):
            self.samples.take(self.step, self.log, self.stop)
        if _due(step, config.checkpoint_every):
            self.checkpoints.save(step)

    def _finish(self) -> None:
        """The last validation, a sample, and what counting alone reaches."""
        # No longer than training was: a few steps are not followed by minutes of validation.
        batches = max(self.config.validation_batches or 0, self.config.steps)
        validated = self._validate(self.config.final_validation_batches or batches)
        if self.stop.signal is None and self.config.sample.every:
            self.samples.take(self.step, self.log, self.stop)
        if self.stop.signal is None and self.config.baselines and validated is not None:
            self.validation.compare(self.step, validated, self.log)

    def _validate(self, batches: int | None) -> Validated | None:
        return self.validation.run(self.step, batches, self.log, self.stop)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
