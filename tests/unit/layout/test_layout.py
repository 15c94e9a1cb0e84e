"""One word, one file: what the folders look like, and what no source file may contain."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract import core_ops

ROOT = Path(__file__).resolve().parents[3]
OPS = core_ops()
BACKENDS = sorted(plugin.parent for plugin in (ROOT / "backends").glob("*/plugin.py"))
SOURCES = sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])

LONGEST_FILE = 500  # lines; a reader holds no more at once
NOT_OPS = {"__init__", "plugin"}

REFUSED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
REFUSED_CALLS = {"eval", "exec", "compile"}
REFUSED_ATTRIBUTES = {"extractall", "unpack_archive"}
REFUSED_QUALIFIED = {"torch.load", "yaml.load", "numpy.load", "np.load"}
EXECUTES_CODE = {
    "harness/plugins.py": "a backend that is a file is code by intent, and what was hashed is what runs",
    "harness/conformance/mutate.py": "mutants of a backend's own source, which is imported anyway",
    "harness/conformance/delegation.py": "a function's code can only be replaced by compiled code;"
    " the template is in the file, and takes only names of hooks",
}

of_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda folder: folder.name)


def test_each_danger_is_recognised(line):
    assert any(dangers(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize("line", ["point.load()", "json.loads(text)", "re.compile('x')", "load(x)"])
def test_harmless_namesakes_are_not(line):
    assert not any(dangers(node) for node in ast.walk(ast.parse(line)))


def dangers(node: ast.AST) -> list[str]:
    """What of a syntax node could run code that came as data."""
    if isinstance(node, ast.Import):
        return [a.name for a in node.names if a.name.partition(".")[0] in REFUSED_MODULES]
    if isinstance(node, ast.ImportFrom):
        module = (node.module or "").partition(".")[0]
        return [module] if module in REFUSED_MODULES else []
    if isinstance(node, ast.keyword):
        return ["allow_pickle"] if node.arg == "allow_pickle" else []
    if not isinstance(node, ast.Call):
        return []
    called = ast.unparse(node.func)
    if called in REFUSED_CALLS | REFUSED_QUALIFIED:
        return [called]
    attribute = called.rpartition(".")[2]
    return [attribute] if attribute in REFUSED_ATTRIBUTES and "." in called else []


@pytest.mark.parametrize(
    "module", ["harness", "harness.errors", "harness.cli", "harness.plugin_list"]
)
def test_a_first_import_loads_nothing_heavy(module):
    heavy = "{'numpy', 'hydra', 'omegaconf', 'rich', 'pytest', 'tiktoken', 'backends'}"
    loaded = f"sorted({heavy} & {{name.partition('.')[0] for name in sys.modules}})"
    program = f"import sys, {module}; print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_listing_backends_imports_none_of_them():
    program = (
        "import sys; from harness.cli import main; main(['backends']); "
        "print([name for name in sys.modules if name.partition('.')[0] in ('backends', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
