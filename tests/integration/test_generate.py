"""`python -m harness.generate`: the same tokens on every backend, text as it comes, clear errors."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import __version__, generate
from harness.generation.settings import read_arguments
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.interchange.llmc.tokenizer import write_llmc_tokenizer
from harness.models.gpt2 import GPT2
from tests.integration.golden import make_generate

GOLDEN = json.loads((make_generate.FOLDER / "generate.json").read_text())["cases"]
MODEL = make_generate.FOLDER / "generate.bin"
OF_GOLDEN = [f"model_from={MODEL}", "tokenizer=bytes"]
TIMEOUT_S = 60

of_case = pytest.mark.parametrize("case", GOLDEN)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def asked(workplace, capfd, monkeypatch):
    """`python -m harness.generate ...` in this process. lines: what is typed into it."""

    def ask(*arguments: str, lines: str = "") -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = generate.main()
        found = capfd.readouterr()
        return Outcome(code, found.out, found.err)

    return ask


@pytest.fixture
def rows(asked, workplace):
    """The records of `out=`, for what the golden model makes of some settings."""

    def ask(*arguments: str) -> list[dict]:
        path = workplace / "rows.jsonl"
        path.unlink(missing_ok=True)
        found = asked(*OF_GOLDEN, f"out={path}", *arguments)
        assert found.code == 0, found.err
        return [json.loads(line) for line in path.read_text().splitlines()]

    return ask


def settings_of(case: str) -> list[str]:
    golden = GOLDEN[case]
    settings = {
        key: "null" if value is None else value for key, value in golden["settings"].items()
    }
    return [
        f"prompts={json.dumps(golden['prompts'])}",
        *(f"{key}={value}" for key, value in settings.items()),
    ]


# -- the same tokens everywhere ------------------------------------------------------------------


@of_case
@pytest.mark.parametrize("backend", ["python", "numpy", "reference"])
def test_every_backend_draws_the_golden_tokens(rows, case, backend):
    found = rows(*settings_of(case), f"backend={backend}")
    assert [row["tokens"] for row in found] == GOLDEN[case]["tokens"]


@of_case
def test_the_golden_tokens_are_those_of_transformers(case):
    pytest.importorskip("torch", reason="the referee is transformers; extra: [reference]")
    pytest.importorskip("transformers", reason="the referee is transformers; extra: [reference]")
    golden = GOLDEN[case]
    referee = make_generate.Referee(make_generate.read_bin(MODEL))
    settings = make_generate.Settings(**golden["settings"])
    for row, prompt in enumerate(golden["prompts"]):
        assert referee.continued(list(prompt.encode()), row, settings) == golden["tokens"][row]


@of_case
def test_no_golden_choice_was_a_close_one(case):
    gap, chance = GOLDEN[case]["smallest_gap"], GOLDEN[case]["smallest_chance"]
    assert gap is None or gap > make_generate.MIN_GAP
    assert chance is None or chance > make_generate.MIN_CHANCE
    assert (gap, chance) != (None, None)


def test_the_tokens_do_not_depend_on_cache_batch_or_neighbours(rows):
    changes = [("all", c) for c in ("cache=false", "batch_size=1", "batch_size=2")]
    for case, change in [*changes, ("greedy, past the positions", "cache=false")]:
        found = rows(*settings_of(case), change)
        assert [row["tokens"] for row in found] == GOLDEN[case]["tokens"], (case, change)


def test_a_seed_gives_its_texts_again_and_another_gives_others(rows):
    settings = ["prompt=The fox", "samples=3", "length=20"]
    texts = [row["text"] for row in rows(*settings, "seed=5")]
    assert [row["text"] for row in rows(*settings, "seed=5")] == texts
    assert len({*texts, *(row["text"] for row in rows(*settings, "seed=6"))}) == 6


# -- what is shown -------------------------------------------------------------------------------


def test_the_text_goes_to_the_output_and_the_rest_to_the_errors(asked):
    found = asked(*OF_GOLDEN, "prompt=The fox", "temperature=0", "length=16")
    assert (found.code, found.out) == (0, "The fox an and and and \n")
    assert "llm.c model, version 3, float32" in found.err
    assert "16 tokens in " in found.err and " tok/s  " in found.err and " ms a step" in found.err


def test_several_texts_are_told_apart(asked):
    found = asked(
        *OF_GOLDEN,
        'prompts=["The fox", "A tale of a "]',
        "samples=2",
        "temperature=0",
        "length=5",
    )
    assert found.out.splitlines() == [
        "-- prompt 1 of 2, sample 1 of 2: 5 tokens, as many as were asked for",
        "The fox an a",
        "-- prompt 1 of 2, sample 2 of 2: 5 tokens, as many as were asked for",
        "The fox an a",
        "-- prompt 2 of 2, sample 1 of 2: 5 tokens, as many as were asked for",
        "A tale of a toise",
        "-- prompt 2 of 2, sample 2 of 2: 5 tokens, as many as were asked for",
        "A tale of a toise",
    ]


def test_a_file_has_a_prompt_a_line(asked, workplace):
    (workplace / "prompts.txt").write_bytes(b"The fox\r\n\nA tale of a \n")
    found = asked(*OF_GOLDEN, "prompt_file=prompts.txt", "temperature=0", "length=1")
    assert found.out.splitlines()[1::2] == ["The fox ", "A tale of a t"]


@pytest.mark.parametrize(
    ("typed", "prompt"),
    [
        ("prompt=The fox, the crow: 'why?' (she) = ${x}", "The fox, the crow: 'why?' (she) = ${x}"),
        ('prompt="in quotes"', "in quotes"),
        (r'prompt="with \"quotes\" in it"', 'with "quotes" in it'),
        ('prompt="Hello," she said, "you"', '"Hello," she said, "you"'),
        ("prompt=${oc.env:HOME}", "${oc.env:HOME}"),
        ("prompt=null", "null"),
        ("prompt=1,2", "1,2"),
        ("prompt=ünï 🙂\n", "ünï 🙂\n"),
    ],
)
def test_a_prompt_is_taken_as_it_stands(typed, prompt):
    assert read_arguments([typed, "length=1"])[1].prompt == prompt


def test_the_results_hold_all_that_made_them(rows):
    (row,) = rows("prompt=The fox", "length=16", "temperature=0", "ops.gelu=python")
    assert row["text"] == " an and and and " and row["ended"] == "length" and row["row"] == 0
    assert row["model"] == str(MODEL) and row["tokenizer"] == "bytes"
    settings = row["settings"]
    assert settings["temperature"] == 0 and settings["seed"] == 0 and settings["top_k"] == 40
    assert settings["ops"]["gelu"] == "python" and settings["ops"]["every_op"] == "numpy"


def test_longer_texts_than_the_model_has_positions_are_told(asked):
    found = asked(*OF_GOLDEN, "prompt=The fox", "length=30")
    assert "context    32 tokens; a longer text goes on from its last 16" in found.err
    found = asked(*OF_GOLDEN, "prompt=" + "The fox and the crow. " * 3, "length=2")
    assert "prompt     66 tokens, and 32 fit: only its last 16 are seen" in found.err
    assert found.code == 0 and found.out.startswith("The fox and the crow. The")


def test_what_could_control_a_terminal_does_not_reach_one(workplace):
    ours, theirs = pty.openpty()
    command = [*_command(), *OF_GOLDEN, "prompt=\x1b[2J", "temperature=30", "top_k=null"]
    with subprocess.Popen([*command, "length=300"], stdout=theirs, stderr=-1) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    assert "·[2J".encode() in shown
    assert not [c for c in shown.decode() if c not in "\r\n\t" and (ord(c) < 32 or c == "\x7f")]


def test_text_appears_while_it_is_made(workplace):
    with _started("prompt=The fox", "backend=python", "length=4000") as process:
        assert process.stdout.read(9).startswith(b"The fox")
        assert process.poll() is None
        process.kill()


# -- the end of a text ---------------------------------------------------------------------------


@pytest.fixture
def ends_at_a_blank(workplace):
    """A tokenizer of bytes in llm.c's file, in which a blank ends a text."""
    pieces = [bytes([byte]) for byte in range(256)]
    pieces[0] = b"not a byte"  # so that it is not taken for the one that encodes
    path = workplace / "tokenizer.bin"
    write_llmc_tokenizer(path, pieces, ord(" "))
    return f"tokenizer={path}"


def test_a_text_ends_where_its_tokenizer_says(asked, ends_at_a_blank):
    ask = [f"model_from={MODEL}", ends_at_a_blank, "temperature=0.7", "seed=1"]
    found = asked(*ask, "samples=2", "length=60", "out=o.jsonl")
    assert found.code == 0 and "to the end of the text" in found.out
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert all(32 not in row["tokens"] for row in records)
    assert {row["ended"] for row in records} == {"end_of_text"}
    asked(*ask, "length=60", "stop=never", "out=never.jsonl")
    record = json.loads(Path("never.jsonl").read_text())
    assert record["ended"] == "length" and 32 in record["tokens"]
    assert record["tokens"][: len(records[0]["tokens"])] == records[0]["tokens"]


def test_an_empty_prompt_begins_a_text(asked, ends_at_a_blank):
    ask = [f"model_from={MODEL}", ends_at_a_blank, "temperature=0", "length=4", "stop=never"]
    found = asked(*ask, "out=o.jsonl")
    record = json.loads(Path("o.jsonl").read_text())
    assert (record["prompt"], record["prompt_tokens"]) == ("", [32])
    assert found.out == record["text"] + "\n"


def test_a_vocabulary_of_50257_tokens_without_a_tokenizer_is_taken_to_be_gpt2s(
    asked, workplace, gpt2_files
):
    model = GPT2(layers=1, heads=1, channels=2, positions=8, vocab_size=50_257)
    write_llmc_model(workplace / "small.bin", InitialModel(model))
    found = asked("model_from=small.bin", "prompt=Hello", "length=3", "out=o.jsonl")
    assert found.code == 0, found.err
    assert "tokenizer  gpt2: none came with the model" in found.err
    assert json.loads(Path("o.jsonl").read_text())["prompt_tokens"] == [15496]
    found = asked("model_from=small.bin", "length=3", "seed=1")
    assert found.code == 0, "an empty prompt begins after the end-of-text token"


# -- which model ---------------------------------------------------------------------------------


def test_without_a_path_the_newest_run_is_taken_and_named(asked, train):
    for steps in (1, 2):
        train(f"steps={steps}", f"name=run{steps}")
    newest = max(Path("runs").glob("*/run.json"), key=lambda p: p.stat().st_mtime_ns).parent
    found = asked("prompt=The", "length=5")
    assert found.code == 0, found.err
    assert (
        newest.name.startswith("run2") and f"runs/{newest.name}: checkpoint of step 2" in found.err
    )
    shutil.rmtree(newest / "checkpoints")
    assert "checkpoint of step 1" in asked("prompt=The", "length=5").err


def test_a_run_of_numbers_is_continued_in_numbers(asked, workplace, train):
    train("experiment=micro_gpt2", "steps=100", small=False)
    found = asked("prompt=0 1", "length=3", "temperature=0")
    assert (found.code, found.out) == (0, "0 1 2 3 4\n"), found.err


# -- a conversation ------------------------------------------------------------------------------


def test_every_line_is_answered_until_an_empty_one(asked):
    settings = [*OF_GOLDEN, "prompt=-", "temperature=0", "length=16"]
    found = asked(*settings, lines="The fox\nA tale of a \n\nnot read\n")
    assert (found.code, found.out) == (
        0,
        'The fox an and and and \nA tale of a toise," saisand \n',
    )
    assert asked(*settings, lines="").code == 0
    assert asked(*settings, lines="The fox").out == "The fox an and and and \n"


def test_the_same_line_is_answered_anew(asked):
    found = asked(*OF_GOLDEN, "prompt=-", "length=20", "out=o.jsonl", lines="The fox\nThe fox\n")
    first, second = found.out.splitlines()
    assert first != second
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [row["row"] for row in records] == [0, 1]


def test_a_line_that_cannot_be_taken_is_told_and_the_next_is_answered(asked):
    arguments = [f"model_from={MODEL}", "tokenizer=numbers", "prompt=-", "length=1"]
    found = asked(*arguments, "temperature=0", lines="84 104\n84 x\n84 104\n")
    assert found.code == 3 and "error[not-numbers]" in found.err and "line 2" in found.err
    first, second = found.out.splitlines()
    assert first == second and first.startswith("84 104 ")


def test_ctrl_c_stops_an_answer_and_the_next_line_is_answered(workplace):
    settings = ["prompt=-", "backend=python", "length=4000", "out=o.jsonl"]
    with _started(*settings, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"The fox\n")
        process.stdin.flush()
        assert process.stdout.read(9).startswith(b"The fox")
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"ZQZQ\n")  # which the model never writes
        process.stdin.flush()
        rest = b""
        while b"ZQZQ" not in rest:
            part = os.read(process.stdout.fileno(), 4096)
            assert part, rest
            rest += part
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        process.stdout.read()
        assert process.wait(TIMEOUT_S) == 0
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [row["ended"] for row in records] == ["interrupted"] * 2


def test_ctrl_c_ends_a_single_text_which_is_kept(workplace):
    with _started("prompt=The fox", "backend=python", "length=4000", "out=o.jsonl") as process:
        process.stdout.read(12)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(TIMEOUT_S) == 130
    record = json.loads(Path("o.jsonl").read_text())
    assert record["ended"] == "interrupted" and record["tokens"]


def test_a_closed_pipe_ends_it_quietly(workplace):
    with _started("prompt=The fox", "backend=python", "length=4000") as process:
        process.stdout.read(9)
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0
        assert b"Traceback" not in process.stderr.read()


# -- the command line ----------------------------------------------------------------------------


def test_help_lists_every_key_with_its_meaning(asked):
    from harness.config.overrides import known_keys
    from harness.generation.settings import GENERATE

    found = asked("--help")
    sections = ("ops", "precision_of")
    keys = {key for key in known_keys(GENERATE) if not key.startswith(sections)}
    assert found.code == 0 and found.err == ""
    indented = {key: "  " * (1 + key.count(".")) + key.rpartition(".")[2] for key in keys}
    assert [key for key, line in indented.items() if f"\n{line}: " not in found.out] == []
    assert asked("--version").out == f"harness {__version__}\n"


NO_MODEL = "model_from=nowhere"
"""The error comes before a model is looked for: those of the model itself name MODEL."""

REFUSED = [
    ("lenght=1", 2, "unknown-key", "nearest  length"),
    ("optimizer.lr=1", 2, "unknown-key", "optimizer.lr"),
    ("ops.atention=numpy", 2, "unknown-key", "ops.attention"),
    ("ops=fast", 2, "unknown-option", "default"),
    ("-m", 2, "unknown-flag", "-m"),
    ("--config-dir=x", 2, "flag-refused", "conf/"),
    ("hydra.run.dir=x", 2, "hydra-key-refused", "hydra"),
    ("out=${oc.env:HOME}", 2, "config-code-refused", "plain values"),
    ("seed=1,2", 2, "sweep-without-multirun", "[a,b]"),
    ("length=0", 2, "value-too-small", "length=0 must be at least 1"),
    ("length=x", 2, "config-misfit", "Integer"),
    ("temperature=-0.1", 2, "value-too-small", "at least 0"),
    ("temperature=nan", 2, "value-not-finite", "temperature"),
    ("top_k=0", 2, "value-too-small", "top_k=0 must be at least 1"),
    ("top_p=0", 2, "value-too-small", "more than 0"),
    ("top_p=1.01", 2, "value-too-large", "at most 1"),
    ("repetition_penalty=1e-310", 2, "value-too-small", "at least 0.001"),
    ("repetition_penalty=1e308", 2, "value-too-large", "at most 1000"),
    ("repetition_penalty=inf", 2, "value-not-finite", "repetition_penalty"),
    ("samples=0", 2, "value-too-small", "samples"),
    ("seed=-1", 2, "value-too-small", "seed"),
    ("stop=sometimes", 2, "unknown-value", "end_of_text, never"),
    ("transfer=maybe", 2, "unknown-value", "refuse, allow"),
    ("prompt=a prompts=[b]", 2, "prompts-disagree", "prompt and prompts"),
    ("prompt_file=none.txt", 3, "data-file-missing", "none.txt"),
    ("prompt_file=empty.txt", 3, "prompt-file-empty", "one prompt a line"),
    ("prompt_file=latin.txt", 3, "text-not-utf8", "0xE9"),
    ("tokenizer=word", 2, "tokenizer-not-found", "auto, bytes, gpt2, numbers"),
    ("out=text.txt", 2, "results-exist", "left as it is"),
    ("out=no/where.jsonl", 7, "results-not-writable", "No such file"),
    ("prompt=a", 4, "model-missing", "nowhere"),
]
REFUSED_OF_THE_MODEL = [
    ("prompt=a", 2, "tokenizer-not-stored", "256 tokens"),
    ("tokenizer=gpt2 prompt=a", 2, "tokenizer-larger-than-model", "50,257"),
    ("tokenizer=text.txt prompt=a", 3, "tokenizer-file-invalid", "text.txt"),
    ("tokenizer=bytes", 2, "prompt-empty", 'prompt="Once'),
    ("tokenizer=numbers prompt=256", 3, "token-id-out-of-range", "0 to 255"),
    ("tokenizer=bytes prompt=a backend=numpi", 5, "unknown-backend", "numpi"),
    ("tokenizer=bytes prompt=a precision=fp16", 2, "unknown-precision", "fp16"),
    ("tokenizer=bytes prompt=a ops.gelu=expand", 2, "not-a-fused-op", "gelu"),
]


@pytest.mark.parametrize(("typed", "code", "slug", "words"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_is_asked_wrongly_is_refused_before_a_model_is_opened(
    asked, workplace, typed, code, slug, words
):
    (workplace / "empty.txt").write_text("\n\n")
    (workplace / "latin.txt").write_bytes(b"caf\xe9\n")
    before = sorted(workplace.iterdir())
    found = asked(NO_MODEL, *_words(typed))
    assert (found.code, found.out) == (code, ""), found.err
    assert found.err.startswith(f"error[{slug}]") and words in found.err, found.err
    assert sorted(workplace.iterdir()) == before


@pytest.mark.parametrize(
    ("typed", "code", "slug", "words"), REFUSED_OF_THE_MODEL, ids=lambda value: str(value)[:60]
)
def test_what_does_not_fit_the_model_is_refused_before_its_weights_are_read(
    asked, monkeypatch, typed, code, slug, words
):
    monkeypatch.setattr("harness.execution.parameters.Parameters.load", None)
    found = asked(f"model_from={MODEL}", *_words(typed))
    assert (found.code, found.out) == (code, ""), found.err
    assert f"\nerror[{slug}]" in found.err and words in found.err, found.err


def test_without_any_run_it_is_said_how_to_get_a_model(asked):
    found = asked("prompt=a")
    assert found.code == 4 and "error[no-run-to-take-a-model-from]" in found.err
    assert "python -m harness.train" in found.err


def test_a_damaged_model_is_an_error_of_its_file(asked, workplace):
    (workplace / "cut.bin").write_bytes(MODEL.read_bytes()[:-4])
    found = asked("model_from=cut.bin", "prompt=a", "tokenizer=bytes")
    assert found.code == 4 and found.err.startswith("error["), found.err


def _words(typed: str) -> list[str]:
    return typed.split(" ")


def _command() -> list[str]:
    return [sys.executable, "-m", "harness.generate"]


def _started(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [*_command(), *OF_GOLDEN, *arguments], stdout=-1, stderr=subprocess.PIPE, **options
    )


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # what Linux says when the other side is closed
        return b""
