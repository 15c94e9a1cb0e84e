"""Whatever is asked wrongly gives one clear error, its exit code, and no folder of a run."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from harness.data.token_files import write_token_file

CONFIG, DATA, CHECKPOINT, PLUGIN, RESOURCE = 2, 3, 4, 5, 7

# (what is typed, exit code, slug, words that the error holds)
REFUSED = [
    ("steps=abc", CONFIG, "config-misfit", "'abc' of type 'str' could not be converted to Integer"),
    ("steps=null", CONFIG, "config-misfit", "steps=null"),
    ("steps=0", CONFIG, "value-too-small", "steps=0 must be at least 1"),
    ("steps", CONFIG, "override-unreadable", "key=value"),
    ("batch_size=0", CONFIG, "value-too-small", "batch_size=0"),
    ("seed=-1", CONFIG, "value-too-small", "seed=-1"),
    ("seed=99999999999999999999", CONFIG, "value-too-large", "seed="),
    ("optimizer.lr=-1", CONFIG, "value-too-small", "optimizer.lr=-1.0"),
    ("optimizer.lr=nan", CONFIG, "value-not-finite", "optimizer.lr=nan"),
    ("optimizer.lr=inf", CONFIG, "value-not-finite", "optimizer.lr=inf"),
    ("optimizer.beta1=1", CONFIG, "value-too-large", "below 1"),
    ("optimizer.eps=0", CONFIG, "value-too-small", "more than 0"),
    ("clip_norm=0", CONFIG, "value-too-small", "more than 0"),
    ("clip_norm=null on_nonfinite=skip", CONFIG, "skip-without-norm", "clip_norm=1"),
    ("lr=1", CONFIG, "unknown-key", "optimizer.lr"),
    ("stepz=1", CONFIG, "unknown-key", "nearest  steps"),
    ("+stepz=1", CONFIG, "unknown-key", "a + adds keys only under ops"),
    ("++x=1", CONFIG, "unknown-key", "'x'"),
    ("ops.layernrm=numpy", CONFIG, "unknown-key", "ops.layernorm"),
    ("+ops.layernrm=numpy", CONFIG, "unknown-key", "ops.layernorm"),
    ("+precision_of.layernrm=fp32", CONFIG, "unknown-key", "precision_of.layernorm"),
    ("~ops.layernorm", CONFIG, "key-refused", "nothing can be deleted"),
    ("ops.gelu=expand", CONFIG, "not-a-fused-op", "gelu is not a fused op"),
    ("model=huge", CONFIG, "unknown-option", "gpt2_124m"),
    ("data=text.txt", CONFIG, "unknown-option", "data=text data.path=text.txt"),
    ("experiment=none", CONFIG, "unknown-option", "micro_gpt2"),
    ("optimizer.name=lion", CONFIG, "unknown-optimizer", "adamw, adam, sgd"),
    ("optimizer=adam optimizer.weight_decay=0.1", CONFIG, "adam-has-no-decay", "optimizer=adamw"),
    ("schedule.decay=cosin", CONFIG, "unknown-decay", "cosine"),
    ("precision=fp16", CONFIG, "unknown-precision", "bf16"),
    ("transfer=maybe", CONFIG, "unknown-value", "refuse, allow"),
    ("loss_gradient=max", CONFIG, "unknown-value", "mean, sum"),
    ("on_nonfinite=explode", CONFIG, "unknown-value", "stop, skip"),
    ("data.tokenizer=word", CONFIG, "tokenizer-unknown", "bytes, char, bpe, gpt2"),
    ("data.validation_fraction=1", CONFIG, "validation-fraction-out-of-range", "below 1"),
    ("data.path=null", CONFIG, "source-needs-path", "data.path=FILE"),
    ("model.heads=3", CONFIG, "heads-do-not-divide", "model.heads=3"),
    ("model.vocab_size=-5", CONFIG, "value-too-small", "model.vocab_size"),
    ("sequence_length=17", CONFIG, "too-long-for-model", "a model of more positions"),
    ("backend=numpy ops.every_op=python", CONFIG, "backend-and-ops-disagree", "leave backend out"),
    ("name=a/b", CONFIG, "run-name-invalid", "'a/b'"),
    ('name="ünï"', CONFIG, "run-name-invalid", "ünï"),
    ("name=ünï", CONFIG, "override-unreadable", "'name=\"ünï\"'"),
    ("runs_dir=", CONFIG, "runs-dir-invalid", "runs_dir=runs"),
    ("runs_dir=text.txt", CONFIG, "runs-unreadable", "Not a directory"),
    ("hydra.run.dir=/tmp", CONFIG, "hydra-key-refused", "hydra.run.dir"),
    ("hydra/launcher=joblib", CONFIG, "hydra-key-refused", "hydra/launcher"),
    ("+model._target_=os.system", CONFIG, "config-code-refused", "_target_"),
    ("name=${oc.env:HOME}", CONFIG, "config-code-refused", "plain values"),
    ('name="${oc.decode:${model.name}}"', CONFIG, "config-code-refused", "plain values"),
    ("seed=1,2", CONFIG, "sweep-without-multirun", "-m seed=1,2"),
    ("-m seed=interval(1,2)", CONFIG, "sweep-without-end", "seed=a,b"),
    ("--config-dir=/tmp", CONFIG, "flag-refused", "experiment=NAME"),
    ("--stepz", CONFIG, "unknown-flag", "--stepz"),
    ("--cfg", CONFIG, "flag-value", "job, hydra, all"),
    ("-m --cfg job", CONFIG, "flags-disagree", "exclude each other"),
    ("data.path=/nonexistent", DATA, "data-file-missing", "/nonexistent"),
    ("data.path=empty", DATA, "data-folder-empty", "no data files"),
    ("data.path='*.none'", DATA, "data-glob-empty", "*.none"),
    ("data.path=empty.txt", DATA, "data-empty", "0 bytes"),
    ("data.path=short.txt", DATA, "data-too-short", "33 tokens: B*T + 1"),
    ("data.path=binary.dat data.tokenizer=char", DATA, "text-not-utf8", "offset 128"),
    ("data=tokens", DATA, "token-file-unknown", "data.source=text if it is text"),
    ("data=tokens data.path=tokens.bin", DATA, "token-id-out-of-range", "0 to 50,256"),
    ("data.tokenizer=char sample.every=1 sample.prompt='%'", DATA, "character-unknown", "'%'"),
    ("data=counting sample.every=1", DATA, "not-numbers", "sample.prompt"),
    ("resume=nowhere", CHECKPOINT, "run-missing", "nowhere"),
    ("resume=empty", CHECKPOINT, "run-without-checkpoint", "resume=never"),
    ("backend=numpi", PLUGIN, "unknown-backend", "numpy"),
    ("ops.layernorm=numpi", PLUGIN, "unknown-backend", "numpy"),
    ("ops.layernorm=./missing.py", PLUGIN, "backend-file-missing", "missing.py"),
    ("ops.layernorm=./broken.py", PLUGIN, "plugin-import-failed", "SyntaxError"),
    ("ops.layernorm=./half.py", PLUGIN, "op-not-implemented", "ops.layernorm_backward=NAME"),
    ("wrappers=[nowhere]", PLUGIN, "unknown-wrapper", "nowhere"),
    ("wrappers=[./half.py]", PLUGIN, "not-a-wrapper", "wrap_op"),
    ("backend=python precision=bf16", PLUGIN, "precision-unsupported", "supported  fp32"),
    ("data=counting batch_size=1000000000000", RESOURCE, "memory-too-small", "batch_size="),
    ("model.layers=1000000000", RESOURCE, "memory-too-small", "nothing was allocated"),
]


@pytest.fixture
def materials(workplace):
    (workplace / "empty").mkdir()
    (workplace / "empty.txt").touch()
    (workplace / "short.txt").write_text("four")
    (workplace / "binary.dat").write_bytes(bytes(range(256)) * 20)
    write_token_file(workplace / "tokens.bin", np.full(1000, 60_000))
    (workplace / "broken.py").write_text("def layernorm_forward(:\n")
    (workplace / "half.py").write_text(
        "from harness import hookimpl\n\n\n"
        "@hookimpl\n"
        "def layernorm_forward(out_NC, mean_N, rstd_N, x_NC, weight_C, bias_C, eps):\n"
        "    out_NC[...] = x_NC\n"
    )


def typed(text: str) -> list[str]:
    """The arguments as a shell would hand them over, but for double quotes, which Hydra reads."""
    return [word.replace("'", "") if "data.path='" in word else word for word in text.split()]


@pytest.mark.parametrize(
    ("text", "code", "slug", "words"), REFUSED, ids=[case[0] for case in REFUSED]
)
def test_it_is_refused_with_one_error_and_its_exit_code(materials, train, text, code, slug, words):
    outcome = train(*typed(text))
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith(f"error[{slug}] ")
    assert words in outcome.err
    assert_one_error(outcome.err)
    assert outcome.out == "" and not Path("runs").exists()


def assert_one_error(text: str) -> None:
    """A headline, then one fact a line, each label in a column of its own."""
    headline, *facts = text.splitlines()
    assert re.fullmatch(r"error\[[a-z0-9-]+\] \S.*", headline)
    assert all(line.startswith("  ") for line in facts), text
    assert "Traceback" not in text


def test_every_exit_code_of_bad_input_is_tried():
    assert {code for _, code, _, _ in REFUSED} == {2, 3, 4, 5, 7}


def test_a_folder_that_cannot_be_made_is_named(train, workplace):
    (workplace / "file").touch()
    outcome = train("runs_dir=file/runs")
    assert outcome.code in (CONFIG, RESOURCE)
    assert "file/runs" in outcome.err
    assert_one_error(outcome.err)


def test_a_disk_that_is_read_only_is_an_error_of_resources(train, monkeypatch):
    def refuse(path, *arguments, **settings):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("os.mkdir", refuse)
    outcome = train()
    assert outcome.code == RESOURCE
    assert outcome.err.startswith("error[run-folder-not-made]")
    assert "Read-only file system" in outcome.err


def test_too_little_memory_names_the_largest_tensors_and_ways_to_shrink(train, monkeypatch):
    monkeypatch.setattr("harness.planning.memory_budget.available_bytes", lambda: 400_000)
    outcome = train("batch_size=8")
    assert outcome.code == RESOURCE
    assert_one_error(outcome.err)
    text = " ".join(outcome.err.split())
    assert re.search(r"needs [\d.]+ MiB of memory, and there are 0.4 MiB", text)
    assert "0.1 MiB matmul_gelu.6.out (128, 128) float32" in text
    for way in ("model.layers", "optimizer=sgd"):
        assert way in text
    assert outcome.folders == []


def test_the_batch_that_memory_has_room_for_is_one_that_it_takes(train, monkeypatch):
    monkeypatch.setattr("harness.planning.memory_budget.available_bytes", lambda: 1_500_000)
    refused = train("batch_size=64", "data=counting")
    assert refused.code == RESOURCE
    batch, accumulation = re.search(
        r"(batch_size=\d+) (gradient_accumulation=\d+)", refused.err
    ).groups()
    assert train(batch, accumulation, "data=counting", "data.validation_fraction=0").code == 0


def test_memory_that_runs_out_all_the_same_is_an_error_of_resources(train, faulty):
    outcome = train(f"ops.gelu_forward={faulty('gelu_forward', 'raise MemoryError(123)', 1)}")
    assert outcome.code == RESOURCE
    assert outcome.err.startswith("error[out-of-memory]")
    assert_one_error(outcome.err)


@pytest.mark.parametrize("statement", ["raise ValueError('no luck')", "raise SystemExit(0)"])
def test_an_op_that_raises_is_named_with_its_line(train, faulty, statement):
    outcome = train(
        f"ops.gelu_forward={faulty('gelu_forward', statement, 2)}", "checkpoint_every=1"
    )
    assert outcome.code == PLUGIN
    assert outcome.err.startswith("error[op-raised] gelu_forward of backend ")
    assert "faulty_gelu_forward.py:14" in outcome.err
    assert_one_error(outcome.err)
    assert len(outcome.records()) == 1


def test_a_wrapper_that_raises_is_named(train, workplace):
    (workplace / "wrapper.py").write_text(
        "from harness import hookimpl\n\n\n"
        "@hookimpl\n"
        "def wrap_op(op, backend, call):\n"
        "    raise KeyError(op)\n"
    )
    outcome = train("wrappers=[./wrapper.py]")
    assert outcome.code == PLUGIN
    assert "wrapper.py:6" in outcome.err
    assert outcome.folders == []


def test_a_traceback_is_shown_where_it_is_asked_for(train, monkeypatch):
    monkeypatch.setenv("HARNESS_TRACEBACK", "1")
    outcome = train("data.path=/nonexistent")
    assert outcome.code == DATA
    assert "Traceback" in outcome.err
    assert "\nerror[data-file-missing]" in outcome.err
