"""Let the model of a run continue a prompt, on the way and at the end."""

from harness.config.config import SampleConfig
from harness.data import Dataset
from harness.decoding.continuation import Row, continuations
from harness.decoding.decoder import NextToken
from harness.decoding.sampling import Sampling, stream
from harness.run.log import RunLog
from harness.run.signals import StopRequest
from harness.training.trainer import Trainer


def encoded_prompt(config: SampleConfig, data: Dataset) -> list[int]:
    """The prompt of the samples, never empty; an empty list where none are taken."""
    if not config.every:
        return []
    ids = data.tokenizer.encode(config.prompt, where="sample.prompt")
    return [int(t) for t in ids] or [0]


class Samples:
    """The samples of a run: one row of text, continued by a decoder that takes its memory when made.

    prompt: as `encoded_prompt` gives it; where that is empty no samples are taken. The decoder has no
    cache where the model's attention has no op for one.
    """

    def __init__(
        self, config: SampleConfig, trainer: Trainer, data: Dataset, prompt: list[int]
    ) -> None:
        self._config, self._data, self._prompt = config, data, prompt
        self._seed = trainer.settings.seed
        self._decoder: NextToken | None = None
        if not prompt:
            return
        model = trainer.settings.model
        capacity = min(model.positions, len(prompt) + config.length)
        self._decoder = trainer.decoder(1, capacity, cache=model.attention == "attention")
        self._decoder.start([prompt])  # takes the memory now

    def take(self, step: int, log: RunLog, stop: StopRequest) -> None:
        """Continue the prompt and say it; nothing is said where a signal comes first."""
        assert self._decoder is not None, "sample.every is 0"
        config = self._config
        row = Row(self._prompt, stream(self._seed, step))
        settings = Sampling(config.temperature, config.top_k)
        for _ in continuations(
            self._decoder, [row], settings, config.length, vocab_size=self._data.vocab_size
        ):
            if stop.signal is not None:
                return
        text = self._data.tokenizer.decode(row.context)
        log.record("sample", step, text=text)
        log.line(f"sample  step {step}\n" + _indented(text))


def _indented(text: str) -> str:
    """Sampled text as an indented block; control characters do not reach the terminal."""
    lines = text.replace("\r", "\n").split("\n")
    shown = ("".join(c if c.isprintable() or c == "\t" else "·" for c in line) for line in lines)
    return "\n".join(f"  | {line}" for line in shown)
