"""GPT-2 in PyTorch, on the CPU or a GPU: what a good PyTorch program does, and no more.

    eager      scaled_dot_product_attention, cross_entropy, fused AdamW: PyTorch's own fused kernels
    compiled   the same forward and loss through torch.compile, and with them the backward
    bf16       either of them under torch.autocast(..., torch.bfloat16); weights stay float32
    tf32       on a GPU: matrix products of float32 may round their operands to 10 bits of mantissa

Same weights, tokens, clipping and AdamW as ours. On the CPU it is spared the vocabulary's padding; on a
GPU products are faster with it, and the padding's logits are cut off before the loss.
This file imports NumPy and PyTorch only: it also runs in an environment that has no harness.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

LAYERNORM_EPS = 1e-5  # harness.models.gpt2's
Weights = Mapping[str, torch.Tensor]


class TorchGPT2:
    """A model and its optimizer.

    model: with layers, heads, channels and vocab_size. weights: ours, by llm.c's names (`qkvw.3`),
    copied. optimizer: with beta1, beta2, eps and weight_decay; decayed: names of the weights that weight
    decay applies to. micro_batch: sequences that are computed at once; a step may bring several times
    as many.
    """

    def __init__(
        self,
        model: Any,
        weights: Mapping[str, np.ndarray],
        optimizer: Any,
        decayed: Iterable[str],
        *,
        micro_batch: int,
        clip_norm: float | None = 1.0,
        loss_gradient: str = "mean",
        compiled: bool = False,
        bf16: bool = False,
        tf32: bool = False,
        device: str = "cpu",
    ) -> None:
        own = dict(weights)
        if device == "cpu":
            own["wte"] = weights["wte"][: model.vocab_size]
        else:
            torch.backends.cuda.matmul.allow_tf32 = tf32
        self.device = device
        self.model = model
        self.weights = {
            name: torch.from_numpy(np.array(w)).to(device).requires_grad_()
            for name, w in own.items()
        }
        self.micro_batch = micro_batch
        self.clip_norm = clip_norm
        self.loss_gradient = loss_gradient
        self.bf16 = bf16
        self._loss = torch.compile(summed_loss, fullgraph=True) if compiled else summed_loss
        with_decay = set(decayed)
        groups = [
            {
                "params": [w for name, w in self.weights.items() if (name in with_decay) is decays],
                "weight_decay": optimizer.weight_decay if decays else 0.0,
            }
            for decays in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            fused=True,
        )

    def step(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> float:
        """One optimizer step; the mean loss of its targets before the update, in nats."""
        return float(self.begin(x_BT, y_BT, learning_rate))

    def begin(self, x_BT: np.ndarray, y_BT: np.ndarray, learning_rate: float) -> torch.Tensor:
        """Ask for one optimizer step. Its loss, which a GPU may not have yet: nothing here waits."""
        counted = max(1, int((y_BT >= 0).sum()))
        total = torch.zeros((), device=self.device)
        for start in range(0, len(x_BT), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            tokens, targets = self._ids(x_BT[rows]), self._ids(y_BT[rows]).flatten()
            with torch.autocast(self.device, dtype=torch.bfloat16) if self.bf16 else nullcontext():
                loss = self._loss(self.model, self.weights, tokens, targets)
            (loss if self.loss_gradient == "sum" else loss / counted).backward()
            total += loss.detach()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.values(), self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total / counted

    def _ids(self, tokens: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(np.array(tokens, np.int64))
        return ids if self.device == "cpu" else ids.pin_memory().to(self.device, non_blocking=True)


def summed_loss(
    model: Any, w: Weights, tokens_BT: torch.Tensor, targets_N: torch.Tensor
) -> torch.Tensor:
    """The sum of the targets' losses, in nats."""
    logits_NV = forward(model, w, tokens_BT)
    return F.cross_entropy(logits_NV, targets_N, ignore_index=-1, reduction="sum")


def forward(model: Any, w: Weights, tokens_BT: torch.Tensor) -> torch.Tensor:
    """logits_NV, without padding."""
    B, T = tokens_BT.shape
    C, H = model.channels, model.heads

    def norm(x: torch.Tensor, kind: str, layer: str = "") -> torch.Tensor:
        return F.layer_norm(x, (C,), w[f"{kind}w{layer}"], w[f"{kind}b{layer}"], LAYERNORM_EPS)

    def linear(x: torch.Tensor, kind: str, layer: str) -> torch.Tensor:
        return F.linear(x, w[f"{kind}w{layer}"], w[f"{kind}b{layer}"])

    x = F.embedding(tokens_BT, w["wte"]) + w["wpe"][:T]
    for i in range(model.layers):
        layer = f".{i}"
        qkv = linear(norm(x, "ln1", layer), "qkv", layer).view(B, T, 3, H, C // H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(B, T, C), "attproj", layer)
        hidden = F.gelu(linear(norm(x, "ln2", layer), "fc", layer), approximate="tanh")
        x = x + linear(hidden, "fcproj", layer)
    return F.linear(norm(x, "lnf").view(B * T, C), w["wte"])[:, : model.vocab_size]


def describe(
    compiled: bool = False, bf16: bool = False, tf32: bool = False, device: str = "cpu"
) -> str:
    """PyTorch's version, how it runs, and on what."""
    numbers = "bf16 autocast" if bf16 else "tf32" if tf32 else "float32"
    how = f"PyTorch {torch.__version__}, {'compiled' if compiled else 'eager'}, {numbers}"
    if device != "cpu":
        return f"{how}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    blas = "MKL" if torch.backends.mkl.is_available() else "its own BLAS"
    return f"{how}, {blas}, threads {torch.get_num_threads()}"
