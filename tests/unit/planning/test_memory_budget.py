"""What is available: of the machine, or of the control group that this process is in."""

import psutil
import pytest

from harness.files import system
from harness.planning import memory_budget as memory_need


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write a control group below an empty root, where the process finds itself in job/part."""
    monkeypatch.setattr(system, "CGROUPS", tmp_path)

    def write(path: str, **files: object) -> None:
        folder = tmp_path / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    return write


def in_group(monkeypatch, line: str) -> None:
    read = system.Path.read_text

    def read_text(path, *arguments, **settings):
        return line if str(path) == "/proc/self/cgroup" else read(path, *arguments, **settings)

    monkeypatch.setattr(system.Path, "read_text", read_text)


def test_without_limits_it_is_the_machines(groups, monkeypatch):
    in_group(monkeypatch, "0::/job/part\n")
    groups("job/part", memory__max="max", memory__current=5)
    free = psutil.virtual_memory().available
    assert memory_need.available_bytes() == pytest.approx(free, rel=0.2)


def test_the_narrowest_of_the_groups_counts_and_read_files_do_not(groups, monkeypatch):
    in_group(monkeypatch, "0::/job/part\n")
    groups("job", memory__max=1000, memory__current=700, memory__stat="anon 1\ninactive_file 50")
    groups("job/part", memory__max=9000, memory__current=600, memory__stat="inactive_file 0")
    assert memory_need.available_bytes() == 350


def test_the_first_version_of_groups_is_read_too(groups, monkeypatch):
    in_group(monkeypatch, "9:cpu:/x\n4:memory:/job\n")
    groups(
        "memory/job",
        memory__limit_in_bytes=1000,
        memory__usage_in_bytes=900,
        memory__stat="inactive_file 1",
    )
    assert memory_need.available_bytes() == 101


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0.0 MiB"), (1_572_864, "1.5 MiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_readable(nbytes, text):
    assert memory_need.readable(nbytes) == text
