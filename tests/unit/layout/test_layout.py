"""One word, one file: what the folders look like, and what no source file may contain."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract import core_ops
from harness.contract.precision import POLICIES

ROOT = Path(__file__).resolve().parents[3]
OPS = core_ops()
BACKENDS = sorted(plugin.parent for plugin in (ROOT / "backends").glob("*/plugin.py"))
SOURCES = sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])

NOT_OPS = {"__init__", "plugin"}

REFUSED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
REFUSED_CALLS = {"eval", "exec", "compile"}
REFUSED_ATTRIBUTES = {"extractall", "unpack_archive"}
REFUSED_QUALIFIED = {"torch.load", "yaml.load", "numpy.load", "np.load"}
EXECUTES_CODE = {
    "harness/plugins/loading.py": "a backend that is a file is code by intent: what was hashed is run",
    "harness/mutation/mutated_package.py": "mutants of a backend's own source, imported anyway",
    "harness/conformance/delegation.py": "a function's code can only be replaced by compiled code;"
    " the template is in the file, and takes only names of hooks",
}

of_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda folder: folder.name)


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def implemented(file: Path) -> set[str]:
    """The functions of a file that are marked @hookimpl."""
    return {
        node.name
        for node in tree_of(file).body
        if isinstance(node, ast.FunctionDef)
        and any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list)
    }


# -- one word, one file -------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_contract_and_its_page(op):
    assert (ROOT / "harness" / "ops" / f"{op}.py").is_file()
    assert (ROOT / "docs" / "ops" / f"{op}.md").is_file(), (
        "python -m harness.contract.op_docs begins it"
    )


def test_every_page_of_an_op_belongs_to_one():
    pages = {page.stem for page in (ROOT / "docs" / "ops").glob("*.md")}
    assert pages - {"README"} == set(OPS)


def test_there_are_backends_to_look_at():
    assert {"python_loops", "numpy_cpu"} <= {folder.name for folder in BACKENDS}


@of_backend
def test_a_file_of_a_backend_is_an_op_or_a_helper_with_an_underscore(backend):
    names = {file.stem for file in backend.glob("*.py")}
    strangers = {n for n in names - set(OPS) - NOT_OPS if not n.startswith("_")}
    assert not strangers, f"{backend.name}: neither ops nor helpers: {sorted(strangers)}"


@of_backend
def test_a_file_of_a_backend_implements_halves_of_its_own_op_only(backend):
    for file in sorted(backend.glob("*.py")):
        if file.stem in OPS:
            found = implemented(file)
            assert found, f"{file.name} implements nothing"
            assert found <= set(OPS[file.stem].hooks), file.name
        else:
            ours = {hook for hook in implemented(file) if hook in OPS.hooks}
            assert not ours, f"{file.name} implements {sorted(ours)}, which has a file of its own"


def is_variant(name: str, op: str) -> bool:
    """Whether a name is that of a half for one precision: matmul_forward_tf32."""
    hook, _, precision = name.rpartition("_")
    return precision in POLICIES and hook in OPS[op].hooks


@of_backend
def test_the_table_of_contents_lists_what_the_files_implement(backend):
    listed = {}
    for node in tree_of(backend / "plugin.py").body:
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, word = node.module.rpartition(".")
            if package == f"backends.{backend.name}" and word in OPS:
                listed[word] = {a.name for a in node.names if not is_variant(a.name, word)}
    files = {f.stem: implemented(f) for f in backend.glob("*.py") if f.stem in OPS}
    assert listed == files


@of_backend
def test_a_file_of_a_backend_opens_with_its_formula(backend):
    for file in sorted(backend.glob("*.py")):
        if file.stem not in OPS:
            continue
        opening = (ast.get_docstring(tree_of(file)) or "").partition("\n")[0]
        named = file.stem.replace("_", " ") in opening.lower()
        assert "=" in opening or named, f"{backend.name}/{file.name} opens with: {opening!r}"


@of_backend
def test_a_backend_says_what_it_teaches(backend):
    assert ast.get_docstring(tree_of(backend / "__init__.py"))


@of_backend
def test_a_backend_does_not_import_another(backend):
    others = {f"backends.{folder.name}" for folder in BACKENDS if folder != backend}
    for file in sorted(backend.glob("*.py")):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ImportFrom) and node.module:
                words = node.module.split(".")
                assert ".".join(words[:2]) not in others, f"{file.name}: {node.module}"


# -- every source file --------------------------------------------------------------------------


def test_a_file_begins_with_what_it_is_for():
    texts = {file: file.read_text(encoding="utf-8") for file in SOURCES}
    silent = [f for f, t in texts.items() if t.strip() and not ast.get_docstring(ast.parse(t))]
    assert not silent, "a module docstring"


def test_nothing_that_runs_code_from_data_is_used():
    found = [
        f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', '')}: {what}"
        for file in SOURCES
        for node in ast.walk(tree_of(file))
        for what in dangers(node)
        if not (what in REFUSED_CALLS and file.relative_to(ROOT).as_posix() in EXECUTES_CODE)
    ]
    assert not found


def test_the_exceptions_still_need_to_be_exceptions():
    for name in EXECUTES_CODE:
        nodes = ast.walk(tree_of(ROOT / name))
        assert any(what in REFUSED_CALLS for node in nodes for what in dangers(node)), name


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import os, marshal",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "yaml.load(text)",
        "np.load(path)",
        "archive.extractall(folder)",
        "read(path, allow_pickle=True)",
    ],
)
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
    "module", ["harness", "harness.errors", "harness.cli", "harness.plugins.listing"]
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
