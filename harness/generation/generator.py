"""A stored model, ready to continue text: weights in memory, a decoder for a batch of rows.

Batches follow one another; rows of the last one that nobody asked for are computed and not looked at.
"""

import dataclasses
import time
from collections.abc import Generator as Steps

from harness.config.config import options_of
from harness.contract.precision import Precision
from harness.decoding.continuation import INTERRUPTED, Row, continuations
from harness.decoding.decoder import Decoder, NextToken, Recomputer
from harness.decoding.sampling import row_stream
from harness.device import HOST
from harness.execution.parameters import Parameters
from harness.generation.prompting import Prompting, Say
from harness.generation.settings import GenerateConfig, chosen
from harness.models.gpt2 import build
from harness.models.model_file import ModelFile
from harness.planning.layout import make_layout
from harness.planning.memory_budget import MemoryNeed
from harness.plugins.dispatch import Dispatch
from harness.plugins.loading import Backend, all_ops, load_wrapper


@dataclasses.dataclass
class Spent:
    """What generating took. tokens: drawn; steps: of the decoder, each for all rows of a batch."""

    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """128 tokens in 2.83 s  45.2 tok/s  22.1 ms a step"""
        seconds, steps = max(self.seconds, 1e-9), max(self.steps, 1)
        return (
            f"{self.tokens:,} tokens in {seconds:.2f} s  {self.tokens / seconds:.1f} tok/s  "
            f"{1e3 * seconds / steps:.1f} ms a step"
        )


class Generator:
    """Rows in, rows with their continuations out. `spent` adds up over all calls.

    longest: tokens of the longest prompt there will be, None where that is not known.
    rows: how many there will be at once.
    """

    def __init__(
        self,
        config: GenerateConfig,
        source: ModelFile,
        prompting: Prompting,
        rows: int,
        longest: int | None,
        say: Say,
    ) -> None:
        self.config = config
        self.prompting = prompting
        self.batch_size = min(config.batch_size, rows)
        self.spent = Spent()
        self._decoder = _make_decoder(config, source, self.batch_size, longest)
        if longest is not None:
            _say_what_is_forgotten(longest, config.length, source.model.positions, say)

    @property
    def backends(self) -> tuple[Backend, ...]:
        return self._decoder.dispatch.backends

    def row(self, prompt: list[int], index: int) -> Row:
        """A row that is to be continued. index: which of the seed's streams it draws from."""
        return Row(prompt, row_stream(self.config.seed, index))

    def run(self, rows: list[Row]) -> Steps[list[Row], None, None]:
        """Continue rows, a batch of them at most; after each step, those that have advanced.

        Rows that go on still when this is closed, as by Ctrl-C, are told to have been interrupted.
        """
        unasked = [self.row([0], 0) for _ in range(self.batch_size - len(rows))]
        for row in unasked:
            row.ended = INTERRUPTED
        config, prompting = self.config, self.prompting
        begin = time.perf_counter()
        try:
            for advanced in continuations(
                self._decoder,
                [*rows, *unasked],
                config.sampling,
                config.length,
                prompting.stop,
                prompting.vocab_size,
            ):
                self.spent.steps += 1
                self.spent.tokens += len(advanced)
                yield advanced
        finally:
            for row in rows:
                row.ended = row.ended or INTERRUPTED
            self.spent.seconds += time.perf_counter() - begin


def _say_what_is_forgotten(longest: int, length: int, positions: int, say: Say) -> None:
    kept = max(1, positions // 2)
    if longest > positions:
        say(
            f"prompt     {longest:,} tokens, and {positions:,} fit: only its last {kept:,} are seen"
        )
    elif longest + length > positions:
        say(f"context    {positions:,} tokens; a longer text goes on from its last {kept:,}")


def _make_decoder(
    config: GenerateConfig, source: ModelFile, B: int, longest: int | None
) -> NextToken:
    model, ops = source.model, all_ops()
    dispatch = Dispatch(ops, chosen(config.ops), options_of(config))
    wrappers = tuple(load_wrapper(name, ops) for name in config.wrappers)
    precision = Precision(config.precision, chosen(config.precision_of))
    program, _ = build(ops, model, 1, 1, head="logits")
    layout = make_layout(program)
    need = MemoryNeed(lambda needed, available: _ways_out(B))
    need.add("parameters", 4 * layout.total)
    need.check()
    home = dispatch.choose("matmul_forward").backend
    parameters = Parameters(program, HOST if home.device == "host" else home.open_device())
    capacity = model.positions
    if longest is not None:
        capacity = min(capacity, longest + config.length)
    kind = Decoder if config.cache else Recomputer
    decoder = kind(
        model,
        parameters,
        dispatch,
        B=B,
        capacity=capacity,
        precision=precision,
        wrappers=wrappers,
        transfer=config.transfer,
        memory=need,
    )
    # The weights come last: whatever else can be wrong is known by now.
    parameters.load(source)
    return decoder


def _ways_out(B: int) -> list[str]:
    fewer = ["batch_size=1   one row after another"] if B > 1 else []
    return [*fewer, "length=N   for fewer new tokens", "a smaller model"]
