"""Time one side's training steps in a process of its own, and print the times as JSON.

python -m experiments.train_speed.alone numpy|torch STEPS [key=value ...]
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from harness import command_line
from harness.config import model_of, sequence_length, trainer_settings
from harness.plugins import all_ops
from harness.trainer import Trainer

WARM_UP = 3
LEARNING_RATE = 1e-4
Step = Callable[[np.ndarray, np.ndarray], object]


def ours(trainer: Trainer) -> Step:
    return lambda x_BT, y_BT: trainer.step(x_BT, y_BT, LEARNING_RATE)


def torchs(trainer: Trainer) -> Step:
    from harness.bench.peers.torch_gpt2 import TorchGPT2, set_threads

    settings = trainer.settings
    set_threads(2)
    parameters = trainer.plan.program.parameters.values()
    peer = TorchGPT2(
        settings.model,
        trainer.parameters.to_host(),
        settings.optimizer,
        [p.name for p in parameters if p.decay],
        micro_batch=settings.batch_size,
        clip_norm=settings.clip_norm,
    )
    return lambda x_BT, y_BT: peer.step(x_BT, y_BT, LEARNING_RATE)


def main() -> None:
    side, steps, *overrides = sys.argv[1:]
    config = command_line.compose(overrides)
    trainer = Trainer(trainer_settings(config, model_of(config, 256)), all_ops())
    step = {"numpy": ours, "torch": torchs}[side](trainer)
    rng = np.random.default_rng(0)
    shape = (config.batch_size, sequence_length(config))
    x_BT, y_BT = (rng.integers(0, 256, shape, np.int32) for _ in range(2))
    times_s = []
    for _ in range(WARM_UP + int(steps)):
        begin = time.perf_counter()
        step(x_BT, y_BT)
        times_s.append(time.perf_counter() - begin)
    print(json.dumps(times_s[WARM_UP:]))


if __name__ == "__main__":
    main()
