"""The pytest plugin `harness`: options and a fixture, all namespaced, for our own items only.

    pytest --pyargs harness.conformance --harness-backend NAME_OR_FILE [--harness-effort full]

Every pytest run in an environment with this package imports this file, so it imports nothing heavy,
and without our tests it does nothing.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parent
VERDICT = "harness_verdict"
FIXTURE = "harness_backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness", "conformance of GPT-2 kernels")
    group.addoption(
        "--harness-backend",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="judge this backend; repeatable (without it: every installed one that can run here)",
    )
    group.addoption(
        "--harness-effort",
        choices=("quick", "full"),
        default="quick",
        help="how many cases: about 40 for each half-op, or some 500 and a real GPT-2 shape",
    )
    group.addoption(
        "--harness-report",
        metavar="DIR",
        help="write the verdicts there: JSON, Markdown and a badge",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect our own tests where a third party's `python_files=` would not."""
    if not _ours(file_path) or parent.session.isinitpath(file_path):
        return None
    patterns = parent.config.getini("python_files")
    if any(fnmatch(file_path.name, pattern) for pattern in patterns):
        return None  # pytest's own collector asks pytest_pycollect_makemodule
    return parent.ihook.pytest_pycollect_makemodule(module_path=file_path, parent=parent)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    """Our modules name their tests test_*, whatever `python_functions=` says."""
    return OurModule.from_parent(parent, path=module_path) if _ours(module_path) else None


class OurModule(pytest.Module):
    """A test module of this package."""

    def funcnamefilter(self, name: str) -> bool:
        return name.startswith("test_")


def _ours(path: Path) -> bool:
    return path.parent == PACKAGE and path.name.startswith("test_") and path.suffix == ".py"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `harness_backend` to each test that asks for it, once for each backend."""
    if FIXTURE not in metafunc.fixturenames:
        return
    metafunc.parametrize(FIXTURE, backend_names(metafunc.config), indirect=True)


def backend_names(config: pytest.Config) -> list[str]:
    """The backends that were asked for, or all that are installed."""
    asked: list[str] = list(config.getoption("--harness-backend"))
    if asked:
        return list(dict.fromkeys(asked))
    from harness.plugins import installed

    return sorted(installed())


@pytest.fixture
def harness_backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A loaded backend, for each one in turn. One that nobody asked for and cannot load is skipped."""
    from harness.errors import PluginError
    from harness.plugins import all_ops, load

    try:
        yield load(request.param, all_ops())
    except PluginError as error:
        if request.config.getoption("--harness-backend"):
            raise
        pytest.skip(f"not run: {error.headline} ({error.facts.get('reason', error.slug)})")


def _rows(terminalreporter: Any) -> list[Any]:
    """The verdicts that the reports of our tests carry, as rows. From pytest-xdist's workers too."""
    from harness.conformance.report import Row

    found = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == VERDICT and getattr(report, "when", "") == "call":
                    found.append(Row(**value))
    return found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A compact table: for each backend and precision, how many half-ops have which status."""
    carried = (
        key == VERDICT
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, _ in getattr(report, "user_properties", ())
    )
    if not any(carried):
        return
    from harness.conformance.report import summary_lines, write_report

    rows = _rows(terminalreporter)
    terminalreporter.section("conformance")
    for line in summary_lines(rows):
        terminalreporter.write_line(line)
    folder = config.getoption("--harness-report")
    if folder:
        terminalreporter.write_line(f"report  {write_report(folder, rows)}")
