"""Ask PyTorch and transformers what a GPT-2 of given weights computes, and write it down.

    python -m tests.integration.golden.make        # from the repository root; extra: [reference]

Each golden is a `.safetensors` file (weights, tokens, targets, logits, the sixteen gradients) and a
`.json` of the same name (the model's shape, the losses, the versions it was made with).
`test_against_transformers.py` reads them where PyTorch is absent, and asks PyTorch where it is there.

Everything is computed in float64 and rounded once, when it is written.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent

KINDS = {
    "wte": "transformer.wte.weight",
    "wpe": "transformer.wpe.weight",
    "ln1w": "transformer.h.{}.ln_1.weight",
    "ln1b": "transformer.h.{}.ln_1.bias",
    "qkvw": "transformer.h.{}.attn.c_attn.weight",
    "qkvb": "transformer.h.{}.attn.c_attn.bias",
    "attprojw": "transformer.h.{}.attn.c_proj.weight",
    "attprojb": "transformer.h.{}.attn.c_proj.bias",
    "ln2w": "transformer.h.{}.ln_2.weight",
    "ln2b": "transformer.h.{}.ln_2.bias",
    "fcw": "transformer.h.{}.mlp.c_fc.weight",
    "fcb": "transformer.h.{}.mlp.c_fc.bias",
    "fcprojw": "transformer.h.{}.mlp.c_proj.weight",
    "fcprojb": "transformer.h.{}.mlp.c_proj.bias",
    "lnfw": "transformer.ln_f.weight",
    "lnfb": "transformer.ln_f.bias",
}
"""llm.c's sixteen kinds of parameters, and transformers' names for them."""

TRANSPOSED = ("qkvw", "attprojw", "fcw", "fcprojw")
"""transformers keeps these as (in, out); llm.c, and we, as (out, in)."""


@dataclass(frozen=True)
class Shape:
    """A model and a batch. vocab_size: without padding."""

    layers: int
    heads: int
    channels: int
    positions: int
    vocab_size: int
    B: int
    T: int


@dataclass(frozen=True)
class AdamW:
    """The optimizer that the losses were made with; decay is for matrices and embeddings only."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    steps: int = 5


@dataclass(frozen=True)
class Case:
    """What is asked. weights: kind -> float32, layers stacked. targets: (B, T), -1 is ignored."""

    shape: Shape
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    targets: np.ndarray
    adamw: AdamW = AdamW()


@dataclass(frozen=True)
class Answer:
    """What the referee says. losses: the mean loss before each update, and after the last.

    logits: (B, T, V), without padding.
    """

    logits: np.ndarray
    gradients: dict[str, np.ndarray]
    losses: list[float]


SHAPES = {
    # Every size differs from every other, and T from positions, so that a swapped axis shows.
    "small": Shape(layers=2, heads=4, channels=32, positions=24, vocab_size=97, B=3, T=17),
    # For the backend of plain Python loops.
    "tiny": Shape(layers=2, heads=2, channels=8, positions=7, vocab_size=11, B=2, T=5),
}


def random_case(shape: Shape, seed: int) -> Case:
    """Random weights, affine parameters and biases included: initial values would hide bugs."""
    rng = np.random.default_rng(seed)
    L, C, V = shape.layers, shape.channels, shape.vocab_size
    sizes: dict[str, tuple[int, ...]] = {
        "wte": (V, C),
        "wpe": (shape.positions, C),
        "ln1w": (L, C),
        "ln1b": (L, C),
        "qkvw": (L, 3 * C, C),
        "qkvb": (L, 3 * C),
        "attprojw": (L, C, C),
        "attprojb": (L, C),
        "ln2w": (L, C),
        "ln2b": (L, C),
        "fcw": (L, 4 * C, C),
        "fcb": (L, 4 * C),
        "fcprojw": (L, C, 4 * C),
        "fcprojb": (L, C),
        "lnfw": (C,),
        "lnfb": (C,),
    }
    weights = {}
    for kind, size in sizes.items():
        values = rng.normal(0, 0.2, size)
        if kind.startswith("ln") and kind.endswith("w"):
            values += 1
        weights[kind] = values.astype(np.float32)
    sequences = rng.integers(0, V, (shape.B, shape.T + 1)).astype(np.int32)
    targets = sequences[:, 1:].copy()
    targets[rng.random(targets.shape) < 0.2] = -1
    targets[0, 0] = -1  # at least one row is ignored, whatever was drawn
    return Case(shape, weights, sequences[:, :-1].copy(), targets)


def ask(case: Case) -> Answer:
    """What PyTorch and transformers' GPT2LMHeadModel make of a case, in float64."""
    import torch

    model = _model(case)
    tokens = torch.from_numpy(case.tokens.astype(np.int64))
    targets = torch.from_numpy(np.where(case.targets < 0, -100, case.targets).astype(int))

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    logits = model(tokens).logits
    loss = loss_of(logits)
    _agree_on_the_loss(model, case, loss.item())
    loss.backward()
    named = dict(model.named_parameters())
    gradients = {k: _stacked(named, k, case.shape.layers) for k in KINDS}
    losses = [loss.item()]
    optimizer = _optimizer(model, case.adamw)
    for _ in range(case.adamw.steps):
        optimizer.step()
        optimizer.zero_grad()
        loss = loss_of(model(tokens).logits)
        loss.backward()
        losses.append(loss.item())
    return Answer(logits.detach().numpy(), gradients, losses)


def _model(case: Case):
    """transformers' GPT-2 with the weights of a case, in float64 and without dropout."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = case.shape
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.positions,
        n_embd=shape.channels,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).double().eval()
    state = {}
    for kind, name in KINDS.items():
        stacked = case.weights[kind]
        for layer in range(shape.layers if "{}" in name else 1):
            value = stacked[layer] if "{}" in name else stacked
            value = value.T if kind in TRANSPOSED else value
            state[name.format(layer)] = torch.from_numpy(value.astype(np.float64))
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)
    return model


def _stacked(named, kind: str, layers: int) -> np.ndarray:
    """One kind's gradients in llm.c's layout."""
    name = KINDS[kind]
    parts = []
    for layer in range(layers if "{}" in name else 1):
        gradient = named[name.format(layer)].grad.numpy()
        parts.append((gradient.T if kind in TRANSPOSED else gradient).copy())
    return np.stack(parts) if "{}" in name else parts[0]


def _optimizer(model, settings: AdamW):
    import torch

    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.eps)


def _agree_on_the_loss(model, case: Case, loss: float) -> None:
    """The loss that transformers itself makes from labels, which it shifts, is the same one."""
    import torch

    labels = np.full((case.shape.B, case.shape.T + 1), -100)
    labels[:, 1:] = np.where(case.targets < 0, -100, case.targets)
    tokens = np.concatenate([case.tokens, case.tokens[:, :1]], axis=1).astype(np.int64)
    theirs = model(torch.from_numpy(tokens), labels=torch.from_numpy(labels)).loss.item()
    # transformers rounds the logits to float32 before its loss.
    assert abs(theirs - loss) < 1e-5 * abs(loss), f"transformers says {theirs}, and we {loss}"


def write(name: str, case: Case, answer: Answer) -> None:
    """Write one golden: name.safetensors and name.json."""
    import torch
    import transformers
    from safetensors.numpy import save_file

    arrays = {f"weight.{kind}": value for kind, value in case.weights.items()}
    arrays |= {f"gradient.{kind}": v.astype(np.float32) for kind, v in answer.gradients.items()}
    arrays["tokens_BT"], arrays["targets_BT"] = case.tokens, case.targets
    arrays["logits_BTV"] = answer.logits.astype(np.float32)
    save_file(
        {n: np.ascontiguousarray(a) for n, a in arrays.items()}, FOLDER / f"{name}.safetensors"
    )
    record = {
        "made_by": "python -m tests.integration.golden.make",
        "model": "transformers.GPT2LMHeadModel, float64, rounded to float32 when written",
        "shape": asdict(case.shape),
        "adamw": asdict(case.adamw),
        "losses": answer.losses,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def read(name: str) -> tuple[Case, Answer]:
    """A golden, as it was written."""
    from safetensors.numpy import load_file

    arrays = load_file(FOLDER / f"{name}.safetensors")
    record = json.loads((FOLDER / f"{name}.json").read_text())
    case = Case(
        Shape(**record["shape"]),
        {kind: arrays[f"weight.{kind}"] for kind in KINDS},
        arrays["tokens_BT"],
        arrays["targets_BT"],
        AdamW(**record["adamw"]),
    )
    gradients = {kind: arrays[f"gradient.{kind}"] for kind in KINDS}
    return case, Answer(arrays["logits_BTV"], gradients, record["losses"])


ENDINGS = ("safetensors", "json")


def main() -> None:
    for seed, (name, shape) in enumerate(SHAPES.items()):
        case = random_case(shape, seed)
        answer = ask(case)
        write(name, case, answer)
        nbytes = sum((FOLDER / f"{name}.{ending}").stat().st_size for ending in ENDINGS)
        print(f"{name}: losses {answer.losses[0]:.6f} .. {answer.losses[-1]:.6f}, {nbytes:,} bytes")


if __name__ == "__main__":
    main()
