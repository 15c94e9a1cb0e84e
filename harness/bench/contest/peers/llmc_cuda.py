"""An already built CUDA trainer of llm.c's, `train_gpt2cu`, as a contestant: paused between its turns.

It is told all it needs by its flags, and reads files that we write: our initial weights in bfloat16,
and tokens in its own format. It prints a line for each step, with the milliseconds by the GPU's clock.
Betas, eps and clipping are fixed in its source; its batches come in the CPU trainer's order (llmc.py).
Source: llm.c, train_gpt2.cu (main, error_usage), llmc/dataloader.h, llmc/schedulers.h; no line is here.
"""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.bench.contest.peers.llmc import STEPS, Llmc
from harness.data import write_token_file
from harness.training.training_plan import TrainerSettings

SAMPLES = STEPS
"""Batches in the token file; after the last it begins again, in another order."""

ENDLESS = 1_000_000
"""Steps that it is told to take: it is ended when the contest is."""

STEP_LINE = re.compile(rb"step\s+(\d+)/\d+ \| loss (\S+) .*\| (\d+(?:\.\d+)?) ms \|")
MODEL, TRAIN, VALIDATION = "model.bin", "train.bin", "val.bin"


def tokens_read(B: int, T: int) -> int:
    """How many tokens there must be to train on."""
    return SAMPLES * B * T + 1


def why_not_llmc_cuda(settings: TrainerSettings, tokens: int) -> str:
    """Why llm.c's CUDA trainer cannot do the same work; empty where it can."""
    optimizer = settings.optimizer
    fixed = {
        "precision": (settings.precision.policy, "bf16"),
        "clip_norm": (settings.clip_norm, 1.0),
        "loss_gradient": (settings.loss_gradient, "mean"),
        "optimizer": (optimizer.name, "adamw"),
        "optimizer.beta1": (optimizer.beta1, 0.9),
        "optimizer.beta2": (optimizer.beta2, 0.95),
        "optimizer.eps": (optimizer.eps, 1e-8),
    }
    different = [f"{key}={its}" for key, (ours, its) in fixed.items() if ours != its]
    if different:
        return f"llm.c's CUDA trainer has {', '.join(different)}"
    if optimizer.weight_decay and optimizer.decay != "matrices":
        return "llm.c's CUDA trainer decays matrices alone"
    if (settings.model.attention, settings.model.activation) != ("attention", "gelu"):
        return "llm.c's is a plain GPT-2"
    if settings.adapter is not None:
        return "llm.c has no adapters"
    if settings.gradient_accumulation != 1:
        return "its batches would be others: it is compared with gradient_accumulation=1 only"
    needed = tokens_read(settings.batch_size, settings.sequence_length)
    if tokens < needed:
        return f"it reads {needed:,} tokens, and the data has {tokens:,}"
    return ""


class LlmcCuda(Llmc):
    """program: the trainer, built for bf16. weights: a model file of llm.c's, version 5.

    tokens: the data's first ones, at least tokens_read. The other arguments are those of Llmc.
    """

    def __init__(
        self,
        program: Path,
        weights: Path,
        tokens: npt.NDArray[np.integer],
        folder: Path,
        settings: TrainerSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(program, weights, tokens[:0], folder, threads=1)
        self.settings, self.learning_rate = settings, learning_rate
        self.tokens = tokens[: tokens_read(settings.batch_size, settings.sequence_length)]
        self.steps_of_a_process = ENDLESS
        self.bf16 = True

    def build(self) -> str:
        unavailable = super().build()
        self.what = f"{self.program.name}, bf16, no recomputation, by the GPU's clock"
        return unavailable

    def lay_out(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / MODEL).symlink_to(self.weights)
        for name in (TRAIN, VALIDATION):
            write_token_file(self.folder / name, self.tokens)

    def command(self) -> list[str]:
        settings = self.settings
        B, T = settings.batch_size, settings.sequence_length
        flags = {
            "-e": MODEL,
            "-i": TRAIN,
            "-j": VALIDATION,
            "-b": B,
            "-t": T,
            "-d": B * T,
            "-x": ENDLESS,
            "-l": self.learning_rate,
            "-k": "constant",
            "-c": settings.optimizer.weight_decay,
            # Step 0 is always validated, by one batch. It divides by -v, so that 0 would end it.
            "-v": ENDLESS,
            "-m": 1,
            "-s": 0,
            "-h": 0,
            "-w": 1,  # float32 master weights, as ours
            "-r": 0,  # activations are kept, as ours are: its fastest
            "-z": 0,
        }
        return [str(self.program), *(str(word) for flag in flags.items() for word in flag)]

    def told(self, line: bytes) -> tuple[int, float, float] | None:
        found = STEP_LINE.match(line)
        return None if found is None else (int(found[1]), float(found[2]), float(found[3]))
