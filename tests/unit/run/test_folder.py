"""Each run has a folder of its own, and the newest one is found whatever the clock says."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from harness.errors import ConfigError, ResourceError
from harness.machine import provenance
from harness.run import folder as run_folder


def test_the_folder_is_named_after_the_run_and_the_time(tmp_path):
    run = run_folder.create(tmp_path / "runs", "tiny")
    assert re.fullmatch(r"tiny-\d{8}-\d{6}-[0-9a-f]{4}", run.name)
    assert run.parent == tmp_path / "runs"
    assert json.loads((run / "run.json").read_text())["order"] == 1


def test_twenty_starts_in_one_second_give_twenty_folders(tmp_path, monkeypatch):
    # Everybody draws the same suffixes in the same second, so that all of them meet, again and again.
    drawn = threading.local()

    def draw(size):
        drawn.count = getattr(drawn, "count", -1) + 1
        return f"{drawn.count:04x}"

    monkeypatch.setattr(run_folder.secrets, "token_hex", draw)
    monkeypatch.setattr(run_folder.time, "strftime", lambda form: "20250131-142530")
    together, made = threading.Barrier(20), []

    def start():
        together.wait()
        made.append(run_folder.create(tmp_path, "tiny"))

    threads = [threading.Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20
    assert all((run / "run.json").exists() for run in made)


def test_names_that_are_all_taken_are_an_error_and_not_a_shared_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda size: "0000")
    monkeypatch.setattr(run_folder.time, "strftime", lambda form: "20250131-142530")
    run_folder.create(tmp_path, "tiny")
    with pytest.raises(ResourceError):
        run_folder.create(tmp_path, "tiny")


def test_the_newest_run_is_the_one_made_last_though_the_clock_went_back(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.time, "strftime", lambda form: "20250131-142530")
    run_folder.create(tmp_path, "tiny")
    monkeypatch.setattr(run_folder.time, "strftime", lambda form: "19700101-000000")
    last = run_folder.create(tmp_path, "tiny")
    os.utime(last / "run.json", ns=(0, 0))
    assert run_folder.find_newest(tmp_path, "tiny") == last


def test_runs_that_started_together_are_ordered_by_time_then_name(tmp_path):
    runs = [run_folder.create(tmp_path, "tiny") for _ in range(3)]
    for run in runs:
        (run / "run.json").write_text('{"order": 1}')
        os.utime(run / "run.json", ns=(5, 5))
    assert run_folder.find_newest(tmp_path, "tiny") == max(runs)
    os.utime(min(runs) / "run.json", ns=(9, 9))
    assert run_folder.find_newest(tmp_path, "tiny") == min(runs)


def test_a_later_file_in_an_old_run_does_not_make_it_newer(tmp_path):
    old, new = (run_folder.create(tmp_path, "tiny") for _ in range(2))
    (old / "report.html").write_text("")
    assert run_folder.find_newest(tmp_path, "tiny") == new


def test_only_runs_of_exactly_this_name_are_found(tmp_path):
    run_folder.create(tmp_path, "tiny-big")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny-20250131-142530-9f3c").write_text("a file")
    assert run_folder.find_newest(tmp_path, "tiny") is None
    assert run_folder.find_newest(tmp_path / "none", "tiny") is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"order": "9"}', "[" * 100_000])
def test_a_run_that_was_not_written_down_comes_last(tmp_path, content):
    good, broken = (run_folder.create(tmp_path, "tiny") for _ in range(2))
    (broken / "run.json").unlink()
    if content is not None:
        (broken / "run.json").write_text(content)
    assert run_folder.find_newest(tmp_path, "tiny") == good


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-rf", "a b", "x" * 101, "a\n"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError) as caught:
        run_folder.create(tmp_path, name)
    assert caught.value.slug == "run-name-invalid"


def test_the_versions_say_what_ran(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    run_folder.write_versions(tmp_path)
    found = json.loads((tmp_path / "versions.json").read_text())
    assert found["python"].endswith(sys.version.split()[0])
    assert found["numpy"]["version"] == np.__version__
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["distributions"]["numpy"] == np.__version__
    assert found["cpu"]
    pools = threadpoolctl.threadpool_info()
    assert [pool["num_threads"] for pool in found["numpy"]["thread_pools"]] == [
        pool["num_threads"] for pool in pools
    ]


def test_a_distribution_that_is_installed_meanwhile_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "meanwhile" not in provenance.versions()["distributions"]
    information = tmp_path / "Meanwhile-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: Meanwhile\nVersion: 1.5\n")
    assert provenance.versions()["distributions"]["meanwhile"] == "1.5"


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_our_own_checkout(tmp_path, monkeypatch):
    ours = tmp_path / "folder.py"
    ours.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(ours))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None, "no checkout"
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    assert provenance.commit() is None, "somebody else's checkout"
    git(tmp_path, "add", "folder.py")
    git(tmp_path, "commit", "-m", "ours")
    assert re.fullmatch("[0-9a-f]{40}", provenance.commit())
    ours.write_text("changed")
    assert re.fullmatch(r"[0-9a-f]{40}\+", provenance.commit())
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None, "no git"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    run_folder.write_json_atomically(path, {"a": 1})
    run_folder.write_json_atomically(path, {"a": 2})

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError) as caught:
        run_folder.write_json_atomically(path, {"a": 3})
    assert caught.value.slug == "run-file-not-written"
    assert json.loads(path.read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_configuration_is_written_as_it_is(tmp_path):
    run_folder.write_config(tmp_path, "seed: 1  # é\n")
    assert Path(tmp_path, "config.yaml").read_bytes() == "seed: 1  # é\n".encode()


def test_importing_stays_light():
    code = "import sys, harness.run.folder; print([m for m in sys.modules if m in heavy])"
    heavy = "heavy = {'rich', 'threadpoolctl', 'safetensors', 'ml_dtypes', 'hydra'}; "
    done = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
