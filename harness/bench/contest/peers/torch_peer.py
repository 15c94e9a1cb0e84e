"""PyTorch's side of `harness bench train`, inside its process: a torch_gpt2.py that takes steps.

This file needs NumPy alone, and PyTorch where there is one: it also runs in an environment that has no
harness.
"""

import importlib.util
import itertools
import os
import shutil
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

COMPILERS = ("g++", "clang++", "clang", "gcc", "cc")


def prepare(spec: dict[str, Any]) -> str:
    """Import PyTorch. Returns why there can be no such peer here, or nothing."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if spec["compile"] and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name
    ):
        return "no C++ compiler, which torch.compile needs"
    import torch

    if spec.get("device", "cpu") != "cpu" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU"
    torch.set_num_threads(spec["threads"])
    return ""


def build(spec: dict[str, Any]) -> "Peer":
    return Peer(spec)


class Peer:
    """What worker.py asks for steps.

    spec: model, optimizer, decayed, micro_batch, clip_norm, loss_gradient, compile, bf16, tf32 and
    device, as of TorchGPT2; weights_file with weights, name -> (offset in bytes, shape); batches, a file
    of int32, with its shape; learning_rate; threads.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        weights = {
            name: np.fromfile(
                spec["weights_file"], "<f4", count=int(np.prod(shape)), offset=offset
            ).reshape(shape)
            for name, (offset, shape) in spec["weights"].items()
        }
        torch_gpt2 = _beside("torch_gpt2.py")
        self.device: str = spec.get("device", "cpu")
        tf32 = bool(spec.get("tf32", False))
        self.model = torch_gpt2.TorchGPT2(
            SimpleNamespace(**spec["model"]),
            weights,
            SimpleNamespace(**spec["optimizer"]),
            spec["decayed"],
            micro_batch=spec["micro_batch"],
            clip_norm=spec["clip_norm"],
            loss_gradient=spec["loss_gradient"],
            compiled=spec["compile"],
            bf16=spec["bf16"],
            tf32=tf32,
            device=self.device,
        )
        self.bf16 = bool(spec["bf16"])
        self.what: str = torch_gpt2.describe(spec["compile"], self.bf16, tf32, self.device)
        self.learning_rate = spec["learning_rate"]
        batches = np.fromfile(spec["batches"], np.int32).reshape(spec["shape"])
        self._stream = itertools.cycle(batches)  # the same ones, over and over

    def step(self) -> float:
        return float(self.model.step(*next(self._stream), self.learning_rate))

    def run(self, steps: int) -> tuple[list[float], list[float]]:
        """The seconds and losses of so many steps.

        On a GPU nothing is waited for before the last, and the time of each is from one mark on the GPU
        to the next: no host could ask for them any faster.
        """
        if self.device == "cpu":
            return self._run_on_cpu(steps)
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        torch.cuda.synchronize()
        marks[0].record()
        losses = []
        for mark in marks[1:]:
            losses.append(self.model.begin(*next(self._stream), self.learning_rate))
            mark.record()
        torch.cuda.synchronize()
        seconds = [1e-3 * one.elapsed_time(other) for one, other in itertools.pairwise(marks)]
        return seconds, [float(loss) for loss in losses]

    def _run_on_cpu(self, steps: int) -> tuple[list[float], list[float]]:
        seconds, losses = [], []
        for _ in range(steps):
            start = time.perf_counter()
            losses.append(self.step())
            seconds.append(time.perf_counter() - start)
        return seconds, losses

    def device_bytes(self) -> int | None:
        """The most that PyTorch's allocator held of the GPU's memory."""
        if self.device == "cpu":
            return None
        import torch

        return int(torch.cuda.max_memory_reserved())


def _beside(name: str) -> ModuleType:
    """A file of this folder as a module, without the package that it belongs to."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, Path(__file__).with_name(name))
    assert spec is not None and spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
