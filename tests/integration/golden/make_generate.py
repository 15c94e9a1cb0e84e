"""Train a very small GPT-2, and ask PyTorch and transformers which tokens continue some prompts.

    python -m tests.integration.golden.make_generate      # from the repository root; extra: [reference]

`generate.bin` (llm.c's model, version 3) and `generate.json`: prompts, settings, the tokens, and how far
each choice was from another one. The referee computes in float64, with transformers' own logits
processors; the random numbers and the inversion of the distribution are written out here once more.
"""

import json
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.integration.golden.make import KINDS, Case, Shape, _model

FOLDER = Path(__file__).parent
SHAPE = Shape(layers=2, heads=2, channels=32, positions=32, vocab_size=256, B=1, T=1)
TEXT = """\
A tale of a fox and a crow. The crow sat in a tree and had a piece of cheese. The fox came by and saw \
it. "What a fine bird you are," said the fox, "and what a fine voice you must have!" So the crow \
opened her beak to sing, and the cheese fell down. The fox took it and ran away.
A tale of a hare and a tortoise. The hare laughed at the tortoise, who was slow. "Let us run to the \
old tree," said the tortoise. The hare ran ahead and lay down to sleep. The tortoise walked on and \
on, and when the hare woke, the tortoise sat under the old tree.
"""
STEPS = 300
MIN_GAP = 2e-3
"""Between two logits that decide; float32 backends differ by less than 1e-5 on this model."""
MIN_CHANCE = 2e-4
"""Between a random number and the border of what it chose."""


@dataclass(frozen=True)
class Settings:
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    length: int = 16


CASES: dict[str, tuple[list[str], Settings]] = {
    "greedy": (["The fox", "A tale of a ", "w"], Settings()),
    "greedy, penalty": (["The fox", "tree"], Settings(repetition_penalty=1.3)),
    "greedy, past the positions": (["A tale of"], Settings(length=44)),
    "temperature": (["The fox", "A tale of a "], Settings(temperature=0.8, seed=2)),
    "top-k": (["The hare ", "and"], Settings(temperature=1.0, top_k=5, seed=1)),
    "top-p": (["The hare ", "and"], Settings(temperature=1.2, top_p=0.8, seed=1)),
    "all": (
        ["The crow", "s", '"What a '],
        Settings(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.2, seed=8),
    ),
}


def train() -> dict[str, np.ndarray]:
    """Weights of a model that has learnt some of TEXT: kind -> float32, layers stacked."""
    from harness.models.gpt2 import GPT2
    from harness.plugins.loading import all_ops
    from harness.training.optimizer import OptimizerSettings
    from harness.training.trainer import Trainer, TrainerSettings

    model = GPT2(SHAPE.layers, SHAPE.heads, SHAPE.channels, SHAPE.positions, SHAPE.vocab_size)
    settings = TrainerSettings(
        model, 8, SHAPE.positions, {"every_op": "numpy"}, OptimizerSettings("adamw"), seed=1
    )
    trainer = Trainer(settings, all_ops())
    tokens = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int32)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        starts = rng.integers(0, len(tokens) - SHAPE.positions, 8)
        spans = np.stack([tokens[s : s + SHAPE.positions + 1] for s in starts])
        result = trainer.step(spans[:, :-1].copy(), spans[:, 1:].copy(), 5e-3)
    print(f"trained to a loss of {result.loss:.3f}")
    arrays = trainer.parameters.to_host()
    weights = {}
    for kind in KINDS:
        of_layers = [arrays[name] for name in sorted(arrays) if name.partition(".")[0] == kind]
        weights[kind] = np.stack(of_layers) if "{}" in KINDS[kind] else of_layers[0]
    return weights


def write_bin(path: Path, weights: dict[str, np.ndarray]) -> None:
    """llm.c's model file, version 3, as FORMATS.md describes it. 256 is a multiple of 128."""
    header = np.zeros(256, np.int32)
    header[:8] = (
        *(20240326, 3, SHAPE.positions, SHAPE.vocab_size),
        *(SHAPE.layers, SHAPE.heads, SHAPE.channels, SHAPE.vocab_size),
    )
    body = b"".join(weights[kind].astype("<f4").tobytes() for kind in KINDS)
    path.write_bytes(header.astype("<i4").tobytes() + body)


def read_bin(path: Path) -> dict[str, np.ndarray]:
    """The weights of `write_bin`, read without the harness."""
    L, C, V = SHAPE.layers, SHAPE.channels, SHAPE.vocab_size
    sizes = {
        "wte": (V, C), "wpe": (SHAPE.positions, C),
        "ln1w": (L, C), "ln1b": (L, C), "qkvw": (L, 3 * C, C), "qkvb": (L, 3 * C),
        "attprojw": (L, C, C), "attprojb": (L, C), "ln2w": (L, C), "ln2b": (L, C),
        "fcw": (L, 4 * C, C), "fcb": (L, 4 * C), "fcprojw": (L, C, 4 * C), "fcprojb": (L, C),
        "lnfw": (C,), "lnfb": (C,),
    }  # fmt: skip
    data, start, weights = path.read_bytes(), 1024, {}
    for kind, size in sizes.items():
        count = int(np.prod(size))
        weights[kind] = np.frombuffer(data, "<f4", count, start).reshape(size).copy()
        start += 4 * count
    assert start == len(data)
    return weights


class Referee:
    """transformers' GPT-2 in float64. gap, chance: the closest call so far."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        empty = np.zeros((1, 1), np.int32)
        self.model = _model(Case(SHAPE, weights, empty, empty))
        self.gap = self.chance = np.inf

    def continued(self, prompt: list[int], row: int, settings: Settings) -> list[int]:
        """The tokens that follow a prompt. row: which of the seed's streams the draws are from."""
        import torch

        key = np.array([settings.seed, row], np.uint64)
        numbers = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 2]))
        text, window = list(prompt), list(prompt)
        for _ in range(settings.length):
            if len(window) > SHAPE.positions:
                window = window[-(SHAPE.positions // 2) :]
            with torch.no_grad():
                logits = self.model(torch.tensor([window])).logits[:, -1]
            token = self._chosen(logits, text, numbers.random(), settings)
            text.append(token)
            window.append(token)
        return text[len(prompt) :]

    def _chosen(self, logits, text: list[int], number: float, settings: Settings) -> int:
        import torch
        from transformers import (
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        ids = torch.tensor([text])
        if settings.repetition_penalty != 1:
            logits = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(ids, logits)
        if settings.temperature == 0:
            best = logits[0].sort(descending=True).values
            self.gap = min(self.gap, float(best[0] - best[1]))
            return int(logits[0].argmax())
        logits = TemperatureLogitsWarper(settings.temperature)(ids, logits)
        if settings.top_k is not None:
            best = logits[0].sort(descending=True).values
            self.gap = min(self.gap, float(best[settings.top_k - 1] - best[settings.top_k]))
            logits = TopKLogitsWarper(settings.top_k)(ids, logits)
        if settings.top_p is not None:
            reached = logits[0].softmax(-1).sort(descending=True).values.cumsum(-1)
            self.chance = min(self.chance, float((reached - settings.top_p).abs().min()))
            logits = TopPLogitsWarper(settings.top_p)(ids, logits)
        borders = logits[0].softmax(-1).cumsum(-1).numpy()
        self.chance = min(self.chance, float(np.abs(borders[:-1] - number).min()))
        return int((borders <= number).sum())


def clear(
    weights: dict[str, np.ndarray], prompts: list[str], settings: Settings
) -> tuple[Settings, Referee, list[list[int]]]:
    """What continues the prompts, with the first seed, from the settings' on, without a close call."""
    for seed in range(settings.seed, settings.seed + 20):
        tried, referee = replace(settings, seed=seed), Referee(weights)
        rows = [
            referee.continued(list(prompt.encode()), row, tried)
            for row, prompt in enumerate(prompts)
        ]
        if referee.gap > MIN_GAP and referee.chance > MIN_CHANCE:
            return tried, referee, rows
    raise AssertionError(f"every choice is close: {settings}")


def main() -> None:
    import torch
    import transformers

    # Weights that are there are kept: a machine that trains differently must not change them.
    path = FOLDER / "generate.bin"
    if not path.exists():
        write_bin(path, train())
    weights = read_bin(path)
    record = {
        "made_by": "python -m tests.integration.golden.make_generate",
        "model": "transformers.GPT2LMHeadModel and its logits processors, float64",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "cases": {},
    }
    for name, (prompts, settings) in CASES.items():
        settings, referee, rows = clear(weights, prompts, settings)
        texts = [bytes(row).decode("utf-8", "replace") for row in rows]
        print(f"{name:28} gap {referee.gap:.1e}  chance {referee.chance:.1e}  {texts}")
        record["cases"][name] = {
            "settings": vars(settings),
            "smallest_gap": None if np.isinf(referee.gap) else referee.gap,
            "smallest_chance": None if np.isinf(referee.chance) else referee.chance,
            "prompts": prompts,
            "tokens": rows,
        }
    (FOLDER / "generate.json").write_text(_compact(record))


def _compact(record: dict) -> str:
    """JSON with a row of tokens on one line."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[\s+(\d[\d,\s]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


if __name__ == "__main__":
    main()
