"""What everyone in `harness bench train` does: the same model, batches, learning rate and threads."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.bench.contest.entrants import Entrants, check_same_work, device_of, why_no_torch
from harness.bench.contest.peers import llmc, llmc_cuda
from harness.config import command_line
from harness.config.config import model_of, trainer_settings
from harness.data import Dataset, Sequences
from harness.errors import ConfigError
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.machine.threads import threads_for
from harness.run.data import load_data

COMPARED_LOSSES = 10
LLMC = "llm.c"


@dataclass(frozen=True)
class Files:
    """The files that contestants read. weights and bf16_weights exist only where a peer reads them."""

    batches: Path
    weights: Path
    bf16_weights: Path


class Work:
    """The work of a contest. Raises ConfigError where the entrants would not do the same.

    overrides, configs: of each of ours. settings, learning_rate: those of the first, which all share.
    on_device: the first of ours trains on a device that is not the host; peers then do so too.
    names: who is to train. unavailable: who cannot, with the reason. tokens: as llm.c reads them.
    batches: (ten, 2, sequences, tokens), x and y of the steps whose losses are compared.
    """

    def __init__(self, entrants: Entrants) -> None:
        self.entrants = entrants
        said = [] if entrants.threads is None else [f"threads={entrants.threads}"]
        self.overrides = {name: [*said, *texts] for name, texts in entrants.ours.items()}
        self.configs = {n: command_line.compose(o) for n, o in self.overrides.items()}
        first = next(iter(self.configs.values()))
        self.threads = threads_for(entrants.threads or first.threads).count
        data = load_data(first)
        self.model = model_of(first, data.vocab_size)
        every = {n: trainer_settings(config, self.model) for n, config in self.configs.items()}
        check_same_work(every, self.configs)
        self.settings = next(iter(every.values()))
        self.learning_rate = first.optimizer.lr
        self.on_device = device_of(self.settings) != "host"
        self.unavailable: dict[str, str] = {}
        self.names = [*self.overrides, *entrants.peers]
        if entrants.llmc is not None:
            self._enter_llmc(entrants.llmc, data)
        self.tokens = data.train[: self._tokens_of_llmc()]
        self.batches = self._first_batches(data)

    @property
    def tokens_per_step(self) -> int:
        return int(self.batches[0][0].size)

    def write_files(self, folder: Path) -> Files:
        """Write the batches, and for peers our initial weights."""
        files = Files(folder / "batches.bin", folder / "weights.bin", folder / "weights_bf16.bin")
        self.batches.tofile(files.batches)
        torch = bool(self.entrants.peers) and not why_no_torch(self.settings)
        initial = InitialModel(self.model, self.settings.seed)
        if torch or (LLMC in self.names and not self.on_device):
            write_llmc_model(files.weights, initial)
        if LLMC in self.names and self.on_device:
            write_llmc_model(files.bf16_weights, initial, "bfloat16")
        return files

    def _enter_llmc(self, program: Path, data: Dataset) -> None:
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise ConfigError(
                f"--llmc {program} is not a program",
                slug="bench-no-llmc",
                expected="a trainer of llm.c, built: train_gpt2, or for a GPU train_gpt2cu",
            )
        if self.on_device:
            reason = llmc_cuda.why_not_llmc_cuda(self.settings, len(data.train))
        else:
            reason = llmc.why_not_llmc(self.settings, self.learning_rate, len(data.train))
        if reason:
            self.unavailable[LLMC] = reason
        else:
            self.names.append(LLMC)

    def _tokens_of_llmc(self) -> int:
        if not self.on_device:
            return llmc.TOKENS
        return llmc_cuda.tokens_read(self.settings.batch_size, self.settings.sequence_length)

    def _first_batches(self, data: Dataset) -> npt.NDArray[np.int32]:
        settings = self.settings
        if LLMC in self.names:
            B, T = settings.batch_size, settings.sequence_length
            return llmc.batches(data.train, COMPARED_LOSSES, B, T)
        count = settings.batch_size * settings.gradient_accumulation
        sequences = Sequences(data.train, settings.sequence_length, settings.seed)
        return np.stack(
            [np.stack(sequences.take(i * count, count)) for i in range(COMPARED_LOSSES)]
        )
