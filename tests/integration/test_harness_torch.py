"""The plugin of experiments/plugins/harness-torch, installed as a newcomer would do it.

It is built and installed into a folder of its own; processes that have the folder on their path have the
plugin, and this one does not. What computes needs PyTorch, and is skipped without it.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "experiments" / "plugins" / "harness-torch"
TIMEOUT_S = 300
MICRO = [
    *("model=micro", "data=counting", "steps=6", "batch_size=2"),
    *("optimizer.lr=1e-2", "schedule=constant"),
    *("sample.every=0", "baselines=false", "validate_every=0", "checkpoint_every=0"),
]

has_torch = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not has_torch, reason="PyTorch is not installed")
each_way = pytest.mark.parametrize("way", ["bfloat16", "float32"])


def test_without_the_plugin_the_mix_says_what_is_missing(train, monkeypatch):
    from harness.plugins import loading as plugins

    found = {name: p for name, p in plugins.installed().items() if name != "torch"}
    monkeypatch.setattr(plugins, "installed", lambda group=plugins.BACKENDS: found)
    outcome = train("ops=cpu_bf16", *MICRO, small=False)
    assert outcome.code == 5
    assert "error[unknown-backend] no backend is called 'torch'" in outcome.err
    assert "pip install" in outcome.err


def test_the_mix_is_bfloat16_with_products_of_torch_and_the_rest_of_numba(tmp_path):
    from harness.config import command_line

    (run,) = command_line.check(["ops=cpu_bf16"])
    chosen = {key: name for key, name in vars(run.ops).items() if name is not None}
    assert chosen == {"every_op": "numba", "matmul": "torch", "matmul_cross_entropy": "expand"}
    assert run.precision == "bf16"
    (run,) = command_line.check(["ops=cpu_bf16", "precision=fp32"])
    assert run.precision == "fp32"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that the package, and nothing else, was installed into."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "site"
    if shutil.which("uv"):
        installer = ["uv", "pip", "install", "--python", sys.executable]
    elif importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    else:
        pytest.skip("there is neither uv nor pip to install it with")
    command = [*installer, "--no-deps", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode and unreachable(done.stderr):
        pytest.skip("hatchling, which builds it, cannot be downloaded here")
    assert done.returncode == 0, done.stderr
    return target


def unreachable(text: str) -> bool:
    words = ("connection", "network", "dns", "timed out", "unreachable", "resolve host")
    return any(word in text.lower() for word in words)


@pytest.fixture
def child(site, tmp_path):
    """A command in a process that has the plugin: its exit code, output and errors."""

    def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run


def test_installed_it_is_listed_with_its_distribution(child):
    done = child("harness.cli", "backends")
    assert done.returncode == 0, done.stderr
    (line,) = [row for row in done.stdout.splitlines() if row.split()[:1] == ["torch"]]
    assert line.split() == ["torch", "harness-torch", "0.1.0", "harness_torch.plugin"]


@pytest.mark.skipif(has_torch, reason="PyTorch is installed")
def test_without_torch_it_says_so_and_breaks_nobody_else(child):
    done = child("harness.cli", "check", "torch::matmul")
    assert done.returncode == 5
    assert "error[plugin-import-failed] the backend 'torch' of harness-torch 0.1.0" in done.stderr
    assert "No module named 'torch'" in done.stderr
    assert child("harness.cli", "check", "numpy::cast").returncode == 0


@needs_torch
@pytest.mark.slow
@each_way
def test_it_conforms_whichever_way_its_products_go(child, way):
    done = child("harness.cli", "check", "torch", HARNESS_TORCH_BF16=way)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout, "cast and both halves of matmul, in two precisions"


@needs_torch
def test_an_unknown_way_is_refused(child):
    done = child("harness.cli", "check", "torch", HARNESS_TORCH_BF16="int4")
    assert done.returncode == 5 and "choose bfloat16 or float32" in done.stderr


@needs_torch
@pytest.mark.slow
@each_way
def test_the_mix_trains_as_float32_numpy_does_and_records_who_computed(child, train, tmp_path, way):
    done = child("harness.train", "ops=cpu_bf16", *MICRO, "name=mix", HARNESS_TORCH_BF16=way)
    assert done.returncode == 0, done.stderr
    assert "library   torch: PyTorch " in done.stdout
    assert f"bfloat16 products in {way}" in done.stdout
    assert train("backend=numpy", *MICRO, "name=plain", small=False).code == 0
    mix, plain = losses_of(tmp_path, "mix"), losses_of(tmp_path, "plain")
    assert len(mix) == 6 and plain[-1] < 0.8 * plain[0], "it learns"
    assert mix == pytest.approx(plain, rel=0.02)
    (path,) = tmp_path.glob("runs/mix-*/resolved.json")
    rows = [row for row in json.loads(path.read_text())["ops"] if row["backend"] == "torch"]
    assert {row["hook"] for row in rows} == {"matmul_forward", "matmul_backward"}
    assert {row["source"] for row in rows} == {"harness-torch 0.1.0"}
    assert all("harness_torch/matmul.py:" in row["where"] for row in rows)


def losses_of(folder: Path, name: str) -> list[float]:
    (path,) = folder.glob(f"runs/{name}-*/metrics.jsonl")
    records = map(json.loads, path.read_text().splitlines())
    return [float(record["loss"]) for record in records if record["kind"] == "step"]
