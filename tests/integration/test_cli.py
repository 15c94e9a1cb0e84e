"""The two commands as they are typed: `python -m harness.train` and `harness ...`."""

import subprocess
import sys

import pytest

from harness import __version__, cli, train
from harness.config import command_line

TEXT = ["model=micro", "data=text", "data.path=text.txt", "batch_size=2"]


@pytest.fixture
def harness(workplace, capfd):
    """`harness ...` in this process: its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(list(arguments))
        except SystemExit as stop:
            code = stop.code
        found = capfd.readouterr()
        return code, found.out, found.err

    return run


@pytest.fixture
def trainer(workplace, capfd, monkeypatch):
    """`python -m harness.train ...` in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = train.main()
        found = capfd.readouterr()
        return code, found.out, found.err

    return run


def test_a_single_run_is_composed_once(trainer, monkeypatch):
    composed, compose_for = [], command_line.compose_for

    def counted(application, overrides):
        composed.append(overrides)
        return compose_for(application, overrides)

    def by_hydra(outcomes, count):
        raise AssertionError("Hydra composes it twice more")

    monkeypatch.setattr(command_line, "compose_for", counted)
    monkeypatch.setattr(train, "_hydra_main", by_hydra)
    assert trainer("experiment=micro_gpt2", "backend=numpi")[0] == 5
    assert composed == [["experiment=micro_gpt2", "backend=numpi"]]


def test_the_version_is_the_harnesses(trainer):
    assert trainer("--version") == (0, f"harness {__version__}\n", "")


def test_a_refused_command_line_never_reaches_hydra(trainer, workplace):
    code, out, errors = trainer("hydra.run.dir=elsewhere", "steps=1")
    assert (code, out) == (2, "")
    assert errors.startswith("error[hydra-key-refused]")
    assert not (workplace / "elsewhere").exists()


def test_help_lists_keys_and_groups_and_trains_nothing(workplace):
    text = _command("--help")
    for word in ("batch_size: 12", "gpt2_124m", "python -m harness.train -m", "every_op"):
        assert word in text
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("flags", [["-c", "job"], ["--cfg=job", "--resolve"]])
def test_the_configuration_can_be_shown(flags, workplace):
    text = _command("steps=77", *flags, "model=micro")
    assert "steps: 77\n" in text and "channels: 32\n" in text
    assert not (workplace / "runs").exists()


def test_a_closed_pipe_does_not_stop_a_run(workplace):
    command = [sys.executable, "-m", "harness.train", *TEXT, "backend=numpy", "steps=30"]
    settings = ["sample.every=0", "baselines=false", "name=piped"]
    with subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=-1) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")
    assert list(workplace.glob("runs/piped-*/checkpoints/step-00000030/manifest.json"))


def test_a_command_line_is_checked_without_being_run(harness, workplace):
    code, out, _ = harness("config", "check", "steps=5", "model=micro")
    assert code == 0 and "steps: 5\n" in out
    code, out, errors = harness("config", "check", "stepz=5")
    assert (code, out) == (2, "") and errors.startswith("error[unknown-key]")
    assert not (workplace / "runs").exists()


def test_the_plan_lists_every_call_with_its_backend(harness):
    code, out, _ = harness("plan", *TEXT, "backend=numpy", "ops.attention=python")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    backends = {line[1]: line[2] for line in lines if len(line) > 2 and line[0].isdigit()}
    assert backends["attention_forward"] == backends["attention_backward"] == "python"
    assert backends["layernorm_forward"] == "numpy"
    assert "-- optimizer" in out and "roofline    not known" in out


def test_options_may_stand_among_the_settings(harness):
    code, out, _ = harness("plan", *TEXT[:2], "--totals", *TEXT[2:])
    assert code == 0 and "-- forward" not in out and "parameters" in out


def test_the_plans_memory_is_what_the_trainer_takes(harness):
    from harness.config import command_line
    from harness.config.config import model_of, trainer_settings
    from harness.plugins.loading import all_ops
    from harness.run.data import load_data
    from harness.training.trainer import Trainer

    run = command_line.compose(TEXT)
    settings = trainer_settings(run, model_of(run, load_data(run).vocab_size))
    trainer = Trainer(settings, all_ops())
    assert sum(trainer.plan.arena_bytes.values()) == trainer.parameters.nbytes
    assert tuple(trainer.plan.arena_bytes) == trainer.parameters.arenas


def test_installed_backends_are_listed(harness):
    code, out, _ = harness("backends")
    assert code == 0
    for name in ("numpy", "python", "reference"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["plan", "--totalz", "steps=1"], "unrecognized arguments: --totalz"),
        (["backends", "steps=1"], "unrecognized arguments: steps=1"),
        (["config", "chek"], "invalid choice: 'chek'"),
    ],
)
def test_a_wrong_command_exits_2(harness, arguments, words):
    code, out, errors = harness(*arguments)
    assert (code, out) == (2, "") and words in errors


def test_without_a_command_the_commands_are_listed(harness):
    code, out, _ = harness()
    assert code == 0 and "plan" in out and "bench" in out


def _command(*arguments: str) -> str:
    command = [sys.executable, "-m", "harness.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
