"""PyTorch's side of `harness bench train`, inside its process: a torch_gpt2.py that takes steps.

This file needs NumPy alone, and PyTorch where there is one: it also runs in an environment that has no
harness.
"""

import importlib.util
import itertools
import os
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

COMPILERS = ("g++", "clang++", "clang")


def prepare(spec: dict[str, Any]) -> str:
    """Import PyTorch. Returns why there can be no such peer here, or nothing."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if spec["compile"] and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name
    ):
        return "no C++ compiler, which torch.compile needs"
    import torch

    torch.set_num_threads(spec["threads"])
    return ""


def build(spec: dict[str, Any]) -> "Peer":
    return Peer(spec)


class Peer:
    """What worker.py asks for steps.

    spec: model, optimizer, decayed, micro_batch, clip_norm, loss_gradient, compile and bf16, as of
    TorchGPT2; weights_file with weights, name -> (offset in bytes, shape); batches, a file of int32,
    with its shape; learning_rate; threads.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        weights = {
            name: np.fromfile(
                spec["weights_file"], "<f4", count=int(np.prod(shape)), offset=offset
            ).reshape(shape)
            for name, (offset, shape) in spec["weights"].items()
        }
        torch_gpt2 = _beside("torch_gpt2.py")
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
        )
        self.bf16 = bool(spec["bf16"])
        self.what: str = torch_gpt2.describe(spec["compile"], self.bf16)
        self.learning_rate = spec["learning_rate"]
        batches = np.fromfile(spec["batches"], np.int32).reshape(spec["shape"])
        self._stream = itertools.cycle(batches)  # the same ones, over and over

    def step(self) -> float:
        return float(self.model.step(*next(self._stream), self.learning_rate))


def _beside(name: str) -> ModuleType:
    """A file of this folder as a module, without the package that it belongs to."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, Path(__file__).with_name(name))
    assert spec is not None and spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
