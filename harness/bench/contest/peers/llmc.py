"""An already built CPU trainer of llm.c's, `train_gpt2`, as a contestant: paused between its turns.

What it reads is laid out in a folder: our initial weights, and tokens in its own format. What it
trains on is fixed in its source: 4 sequences of 64 tokens, AdamW at 1e-4 without decay or clipping,
samples in the order of a generator of seed 42. The others then train on the same.
Source: llm.c, train_gpt2.c (main), llmc/dataloader.h, llmc/rand.h; no line of them is here.
"""

import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.bench.contest.contestant import LAST_LINES, Contestant
from harness.bench.contest.worker import peak_bytes
from harness.data import write_token_file
from harness.machine.child import PATIENCE_S, how_it_ended, last_lines_of
from harness.training.training_plan import TrainerSettings

B, T = 4, 64
LEARNING_RATE = 1e-4
SHUFFLE_SEED = 42
STEPS = 20
"""Of one process. Before its 21st step it writes text, for as long as sixty steps take."""

TOKENS = STEPS * B * T + 1
MODEL = "gpt2_124M.bin"
DATA = Path("dev/data/tinyshakespeare")
STEP_LINE = re.compile(rb"step (\d+): train loss (\S+) \(took (\S+) ms\)")
VALIDATION_LINE = b"val loss "


def why_not_llmc(settings: TrainerSettings, learning_rate: float, tokens: int) -> str:
    """Why llm.c cannot do the same work; empty where it can. tokens: that there are to train on."""
    optimizer = settings.optimizer
    fixed = {
        "batch_size": (settings.batch_size, B),
        "sequence_length": (settings.sequence_length, T),
        "gradient_accumulation": (settings.gradient_accumulation, 1),
        "clip_norm": (settings.clip_norm, None),
        "loss_gradient": (settings.loss_gradient, "mean"),
        "optimizer": (optimizer.name, "adamw"),
        "optimizer.lr": (learning_rate, LEARNING_RATE),
        "optimizer.beta1": (optimizer.beta1, 0.9),
        "optimizer.beta2": (optimizer.beta2, 0.999),
        "optimizer.eps": (optimizer.eps, 1e-8),
        "optimizer.weight_decay": (optimizer.weight_decay, 0.0),
    }
    different = [
        f"{key}={'null' if its is None else its}"
        for key, (ours, its) in fixed.items()
        if ours != its
    ]
    if different:
        return f"llm.c's CPU trainer has {', '.join(different)}; experiment=llmc_cpu is that"
    if (settings.model.attention, settings.model.activation) != ("attention", "gelu"):
        return "llm.c's is a plain GPT-2"
    if settings.adapter is not None:
        return "llm.c has no adapters"
    if tokens < TOKENS:
        return f"it reads {TOKENS:,} tokens, and the data has {tokens:,}"
    return ""


def order(samples_of_file: int = STEPS) -> npt.NDArray[np.int64]:
    """The samples of a file of B * T tokens each, in the order in which it reads them first."""
    # RandomState is the one generator of NumPy that seeds the Mersenne twister as it was published.
    words = np.random.RandomState(SHUFFLE_SEED)
    samples = np.arange(samples_of_file)
    for last in range(samples_of_file - 1, 0, -1):
        chosen = int(words.randint(0, 2**32, dtype=np.uint32)) % (last + 1)
        samples[[last, chosen]] = samples[[chosen, last]]
    return samples


def batches(
    tokens: npt.NDArray[np.integer], count: int, B: int = B, T: int = T
) -> npt.NDArray[np.int32]:
    """The first batches that it trains on: (count, 2, B, T), x and y of each."""
    starts = order()[:count] * B * T
    rows = [tokens[start : start + B * T + 1].astype(np.int32) for start in starts]
    return np.stack([np.stack([row[:-1], row[1:]]).reshape(2, B, T) for row in rows])


class Llmc(Contestant):
    """program: the trainer. weights: a model file of llm.c's. folder: to lay out what it reads.

    It prints a line for each step, and that is when it is paused; what it had begun of the next step
    by then goes on with its next turn, and the pause is taken off that step's time.
    """

    def __init__(
        self,
        program: Path,
        weights: Path,
        tokens: npt.NDArray[np.integer],
        folder: Path,
        threads: int,
    ) -> None:
        super().__init__("llm.c")
        self.steps_of_a_process = STEPS
        self.program, self.weights, self.folder, self.threads = program, weights, folder, threads
        self.tokens = tokens[:TOKENS]
        self._process: subprocess.Popen[bytes] | None = None
        # What it says on standard error; closed by end().
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._terminal = -1
        self._said = self._last_line = b""
        self._done = 0
        self._paused_at = self._continued_at = self._paused_s = 0.0
        self._peak: int | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "built first"
        return self._process.pid

    def build(self) -> str:
        self.what = f"{self.program.name}, float32, OpenMP threads {self.threads}"
        self.before = 0
        self.lay_out()
        self._start()
        return ""

    def lay_out(self) -> None:
        """Write what it reads."""
        (self.folder / DATA).mkdir(parents=True)
        (self.folder / MODEL).symlink_to(self.weights)
        for part in ("train", "val"):
            write_token_file(self.folder / DATA / f"tiny_shakespeare_{part}.bin", self.tokens)

    def command(self) -> list[str]:
        """How it is started, in its folder."""
        return [str(self.program)]

    def told(self, line: bytes) -> tuple[int, float, float] | None:
        """(steps done, loss, milliseconds) of a line that tells of a step; None of another."""
        found = STEP_LINE.match(line)
        return None if found is None else (int(found[1]) + 1, float(found[2]), float(found[3]))

    def run(self, steps: int) -> list[float]:
        if self._done == self.steps_of_a_process:
            self._stop()
            self._start()
            self._continue()
            self._step()  # the first touches all memory
        else:
            self._continue()
        first = not self.losses
        seconds: list[float] = []
        while len(seconds) < steps and self._done < self.steps_of_a_process:
            seconds.append(self._step())
        self._pause()
        # Steps that it had finished before the signal came.
        seconds += [found for line in self._lines(wait=False) for found in self._step_in(line)]
        if first:
            self.first_step_s = seconds[0]
        return seconds

    def peak(self) -> int | None:
        return max(filter(None, (self._peak, peak_bytes(self.pid))), default=None)

    def end(self) -> None:
        self._stop()
        self._errors.close()

    def _last_lines(self) -> list[str]:
        return last_lines_of(self._errors, LAST_LINES)

    def _start(self) -> None:
        # A terminal, not a pipe: its output then comes line by line.
        self._terminal, end = pty.openpty()
        try:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=end,
                stderr=self._errors,
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                process_group=0,
            )
        except OSError as error:
            self._died("before it began", str(error))
        finally:
            os.close(end)
        self._said, self._done, self._paused_s = b"", 0, 0.0
        for line in self._lines():
            if line.startswith(VALIDATION_LINE):
                break
        self._pause()

    def _stop(self) -> None:
        if self._process is not None:
            self._peak = self.peak()
            self._process.kill()
            self._process.wait(PATIENCE_S)
            os.close(self._terminal)
            self._process = None

    def _step(self) -> float:
        """Wait for its next step. The seconds that it took of the processor's time, not of ours."""
        for line in self._lines():
            for seconds in self._step_in(line):
                return seconds
        raise AssertionError("its lines end with an error")

    def _step_in(self, line: bytes) -> Iterator[float]:
        """The seconds of the step that a line tells of; nothing where it tells of none."""
        found = self.told(line)
        if found:
            self._done, loss, milliseconds = found
            seconds = 1e-3 * milliseconds
            # A pause can begin before the step's clock does: then the step took no longer than the
            # time since it went on, and the pause is not in it.
            since_s = time.perf_counter() - self._continued_at
            if seconds - since_s > self._paused_s / 2:
                seconds -= self._paused_s
            self._paused_s = 0.0
            self.losses.append(loss)
            yield seconds

    def _lines(self, wait: bool = True) -> Iterator[bytes]:
        """What it prints, line by line; without wait, what it has printed."""
        while True:
            while b"\n" in self._said:
                line, _, self._said = self._said.partition(b"\n")
                self._last_line = line.strip()
                yield self._last_line
            if not wait and not select.select([self._terminal], [], [], 0)[0]:
                return
            try:
                said = os.read(self._terminal, 1 << 16)
            except OSError:  # its end of the terminal is closed
                said = b""
            if not said:
                assert self._process is not None
                code = self._process.wait()
                last = self._last_line.decode("utf-8", "replace")
                self._died(f"after {self._done} steps", f"{how_it_ended(code)}, after: {last}")
            self._said += said

    def _pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self._paused_at = time.perf_counter()
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _continue(self) -> None:
        self._continued_at = time.perf_counter()
        self._paused_s = self._continued_at - self._paused_at
        os.kill(self.pid, signal.SIGCONT)
