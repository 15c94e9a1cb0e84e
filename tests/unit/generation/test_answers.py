"""Rows are made when their batch begins, and each is the row that it would have been."""

from types import SimpleNamespace

from harness.decoding.continuation import LENGTH, Row
from harness.decoding.sampling import row_stream
from harness.generation.answers import Answers


class Generator:
    """Ends each row at once; counts the rows that were made when a batch began."""

    def __init__(self, samples, batch_size):
        self.config = SimpleNamespace(samples=samples)
        self.prompting = SimpleNamespace(
            tokenizer=SimpleNamespace(decode=str, end_of_text=None), shown=str
        )
        self.batch_size = batch_size
        self.made, self.at_batch, self.stops_at = [], [], None

    def row(self, prompt, index):
        self.made.append((tuple(prompt), index))
        return Row(prompt, row_stream(0, index))

    def run(self, rows):
        self.at_batch.append(len(self.made))
        if len(self.at_batch) == self.stops_at:
            raise KeyboardInterrupt
        for row in rows:
            row.tokens, row.ended = [7], LENGTH
        yield rows


class Kept:
    def __init__(self):
        self.rows = []

    def add(self, rows, first, prompting):
        self.rows += [(first + i, tuple(row.prompt)) for i, row in enumerate(rows)]


def test_every_sample_of_every_prompt_has_its_row_and_number(capsys):
    generator, kept = Generator(samples=3, batch_size=2), Kept()
    answers = Answers(generator, kept, lambda line: None)
    assert answers.to_prompts([[1], [2]]) == 0
    expected = [(0, (1,)), (1, (1,)), (2, (1,)), (3, (2,)), (4, (2,)), (5, (2,))]
    assert kept.rows == expected
    assert generator.made == [(prompt, index) for index, prompt in expected]
    assert generator.at_batch == [2, 4, 6]
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--")]
    assert titles[2].startswith("-- prompt 1 of 2, sample 3 of 3")
    assert titles[3].startswith("-- prompt 2 of 2, sample 1 of 3")


def test_two_million_samples_that_are_stopped_at_once_make_one_batch():
    generator, kept = Generator(samples=2_000_000, batch_size=8), Kept()
    generator.stops_at = 1
    assert Answers(generator, kept, lambda line: None).to_prompts([[1]]) == 130
    assert len(generator.made) == 8
