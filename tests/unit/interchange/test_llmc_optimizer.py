"""The CUDA trainer's optimizer states, and the sets of files that it leaves."""

import itertools
import os

import numpy as np
import pytest

from harness.errors import CheckpointError, ConfigError, HarnessError, NumericsError
from harness.interchange.llmc.checkpoint_set import checkpoint_set, newest_set, write_checkpoint_set
from harness.interchange.llmc.model import LlmcModel
from harness.interchange.llmc.optimizer import (
    LlmcOptimizerState,
    RankState,
    optimizer_state_bytes,
    write_optimizer_state,
)
from tests.unit.interchange import llmc_by_hand as by_hand
from tests.unit.interchange.llmc_by_hand import GPT2_124M, MODEL, changed

MOMENTS = {name: by_hand.random_kinds(seed) for seed, name in enumerate(("m", "v", "master"))}
LONGS = [(80, 2**64 - 3), (88, 12345678901), (120, 2), (128, 2**40)]
ORDER = by_hand.shuffle_order([2, 0, 1], [4, 1, 0, 2, 3])


def files_by_hand(processes=1, shared=False, master=False, shuffle=False):
    """The bytes of each rank's file."""
    files = []
    for rank in range(processes):
        data = by_hand.state_header(processes, rank, master, shuffle, step=7, longs=LONGS)
        for name in ("m", "v", "master") if master else ("m", "v"):
            kinds = MOMENTS[name]
            data += (
                by_hand.part_of_rank(kinds, rank, processes) if shared else by_hand.float32(kinds)
            )
        files.append(data + (ORDER if shuffle else b""))
    return files


@pytest.fixture
def write(tmp_path):
    def write(*files):
        paths = [tmp_path / f"state_{rank}.bin" for rank in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        return paths

    return write


FORMS = pytest.mark.parametrize(
    ("processes", "shared", "master", "shuffle"),
    [
        (*of_ranks, master, shuffle)
        for of_ranks in ((1, False), (2, False), (2, True), (4, True))
        for master, shuffle in itertools.product((False, True), repeat=2)
    ],
)


@FORMS
def test_files_written_by_hand_are_read_and_go_round(
    write, tmp_path, processes, shared, master, shuffle
):
    files = files_by_hand(processes, shared, master, shuffle)
    again = [tmp_path / f"again_{rank}.bin" for rank in range(processes)]
    with LlmcOptimizerState(write(*files), MODEL) as found:
        assert (found.step, found.processes) == (7, processes)
        assert (found.shared, found.has_master) == (shared, master)
        assert found.moments == (("m", "v", "master") if master else ("m", "v"))
        for state in found.ranks:
            assert (state.random, state.random_before_update) == (2**64 - 3, 12345678901)
            assert (state.shard, state.sample) == (2, 2**40)
            assert (state.shuffle is not None) == shuffle
            if shuffle:
                assert state.shuffle.shards.tolist() == [2, 0, 1]
                assert state.shuffle.samples.tolist() == [4, 1, 0, 2, 3]
        for moment in found.moments:
            for name, expected in by_hand.tensors(MOMENTS[moment]).items():
                out = np.full(expected.shape, np.nan, np.float32)
                found.read_into(moment, name, out)
                assert np.array_equal(out, expected), (moment, name)

        def read(moment, name):
            out = np.empty(by_hand.tensors(MOMENTS[moment])[name].shape, np.float32)
            found.read_into(moment, name, out)
            return out

        write_optimizer_state(
            again, MODEL, found.step, read, ranks=found.ranks, master=master, shared=shared
        )
    assert [path.read_bytes() for path in again] == files


def test_the_state_of_gpt2_124m_has_its_published_sizes():
    assert optimizer_state_bytes(GPT2_124M, master=False) == 995_808_256
    assert optimizer_state_bytes(GPT2_124M, master=True) == 1_493_711_872


WHOLE = files_by_hand()[0]
SHUFFLED = files_by_hand(shuffle=True)[0]
AT = len(WHOLE)  # where the order begins
DAMAGED = {
    "empty": (b"", "llmc-file-unknown"),
    "header cut": (WHOLE[:1023], "llmc-file-unknown"),
    "a model": (changed(WHOLE, 0, "<i", 20240326), "llmc-file-unknown"),
    "version": (changed(WHOLE, 4, "<i", 2), "llmc-version"),
    "no processes": (changed(WHOLE, 8, "<i", 0), "llmc-header-damaged"),
    "other processes": (changed(WHOLE, 8, "<i", 3), "llmc-ranks-disagree"),
    "another rank": (changed(WHOLE, 12, "<i", 1), "llmc-ranks-disagree"),
    "master of 2": (changed(WHOLE, 16, "<i", 2), "llmc-header-damaged"),
    "master not there": (changed(WHOLE, 16, "<i", 1), "llmc-file-size"),
    "shuffle of 2": (changed(WHOLE, 20, "<i", 2), "llmc-header-damaged"),
    "shuffle not there": (changed(WHOLE, 20, "<i", 1), "llmc-file-size"),
    "shuffle not said": (changed(SHUFFLED, 20, "<i", 0), "llmc-file-size"),
    "step": (changed(WHOLE, 40, "<i", -1), "llmc-header-damaged"),
    "unused slot": (changed(WHOLE, 44, "<i", 1), "llmc-header-damaged"),
    "a byte less": (WHOLE[:-1], "llmc-file-size"),
    "a byte more": (WHOLE + b"\0", "llmc-file-size"),
    "order cut": (SHUFFLED[:-1], "llmc-file-size"),
    "order longer": (SHUFFLED + b"\0", "llmc-file-size"),
    "order cut in a count": (SHUFFLED[: AT + 4], "llmc-file-size"),
    "many shards": (changed(SHUFFLED, AT, "<Q", 2**62), "llmc-file-size"),
    "a shard twice": (changed(SHUFFLED, AT + 8, "<i", 0), "llmc-file-size"),
    "a sample that is not": (changed(SHUFFLED, AT + 28, "<i", 5), "llmc-file-size"),
}


@pytest.mark.parametrize(("data", "slug"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(write, data, slug):
    with pytest.raises(CheckpointError) as caught:
        LlmcOptimizerState(write(data), MODEL)
    assert caught.value.slug == slug


def test_ranks_of_different_steps_are_refused(write):
    first, second = files_by_hand(processes=2, shared=True)
    for wrong in (changed(second, 40, "<i", 8), first):
        with pytest.raises(CheckpointError, match="not of one step") as caught:
            LlmcOptimizerState(write(first, wrong), MODEL)
        assert "2 processes, rank 1, step 7" in caught.value.facts["expected"]
    with pytest.raises(CheckpointError, match="not of one step"):
        LlmcOptimizerState(write(first), MODEL)
    whole = files_by_hand(processes=2, shared=False)
    with pytest.raises(CheckpointError, match="not of one step"):
        LlmcOptimizerState(write(first, whole[1]), MODEL)


def test_a_number_that_is_not_finite_is_refused_by_its_name(write):
    data = changed(WHOLE, len(WHOLE) - 4, "<f", np.nan)
    with LlmcOptimizerState(write(data), MODEL) as found:
        with pytest.raises(NumericsError, match=r"v of lnfb\[7\]"):
            found.check()
        found.read_into("m", "lnfb", np.empty(8, np.float32))


def test_a_mutant_is_read_or_refused_with_one_typed_error(write):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        where = rng.random()
        low, high = (0, 50) if where < 0.5 else (AT, AT + 40) if where < 0.8 else (1024, AT)
        byte = int(rng.integers(low, high))
        try:
            mutant = changed(SHUFFLED, byte, "<I", int(rng.integers(0, 2**32)))
            with LlmcOptimizerState(write(mutant), MODEL) as state:
                state.check()
        except HarnessError:
            refused += 1
    assert refused > 50


def test_nothing_is_half_written(tmp_path):
    paths = [tmp_path / "state.bin"]

    def fails(moment, name):
        if (moment, name) == ("v", "fcw.2"):
            raise RuntimeError("no fcw.2")
        return by_hand.tensors(MOMENTS[moment])[name]

    with pytest.raises(RuntimeError, match=r"no fcw\.2"):
        write_optimizer_state(paths, MODEL, 7, fails, ranks=[RankState()])
    with pytest.raises(NumericsError, match=r"m of wte\[0"):
        write_optimizer_state(
            paths,
            MODEL,
            7,
            lambda m, n: by_hand.tensors(MOMENTS[m])[n] * np.float64(1e300),
            ranks=[RankState()],
        )
    assert os.listdir(tmp_path) == []


def test_tensors_that_do_not_divide_among_the_ranks_are_refused(tmp_path):
    paths = [tmp_path / f"{rank}.bin" for rank in range(3)]
    with pytest.raises(ConfigError, match="3 processes cannot share tensors of 8 numbers"):
        write_optimizer_state(
            paths, MODEL, 7, lambda m, n: None, ranks=[RankState()] * 3, shared=True
        )


# -- sets of files ------------------------------------------------------------------------------


def read(moment, name):
    return by_hand.tensors(MOMENTS[moment])[name]


@pytest.fixture
def folder(tmp_path):
    source = by_hand.InMemory(MOMENTS["master"])
    for step in (7, 20):
        ranks = [RankState(sample=step)] * 2
        write_checkpoint_set(tmp_path, step, source, read, ranks=ranks, shared=True)
    return tmp_path


def test_a_set_has_llm_c_s_names_and_bytes(folder):
    names = ["DONE_00000007", "model_00000007.bin", "state_00000007_00000.bin"]
    assert [name for name in sorted(os.listdir(folder)) if "07" in name] == [
        *names,
        "state_00000007_00001.bin",
    ]
    assert (folder / "DONE_00000007").read_bytes() == b""
    model = (folder / "model_00000007.bin").read_bytes()
    assert model == by_hand.model_file(MOMENTS["master"])
    for rank in range(2):
        header = by_hand.state_header(2, rank, longs=[(128, 7)])
        parts = [by_hand.part_of_rank(MOMENTS[moment], rank, 2) for moment in ("m", "v")]
        state = folder / f"state_00000007_0000{rank}.bin"
        assert state.read_bytes() == header + b"".join(parts)


def test_the_newest_set_is_found_and_opens(folder):
    found = newest_set(folder)
    assert found.step == 20
    with LlmcModel(found.model) as model, LlmcOptimizerState(found.states, model.model) as state:
        assert state.step == 20
        assert [rank.sample for rank in state.ranks] == [20, 20]
        state.check()


@pytest.mark.parametrize(
    "name",
    ["DONE_00000020", "model_00000020.bin", "state_00000020_00000.bin", "state_00000020_00001.bin"],
)
def test_a_set_that_lacks_a_file_is_passed_over(folder, name):
    os.unlink(folder / name)
    assert newest_set(folder).step == 7
    with pytest.raises(CheckpointError):
        checkpoint_set(folder, 20)


def test_a_set_whose_header_promises_many_ranks_is_passed_over_at_once(folder):
    path = folder / "state_00000020_00000.bin"
    path.write_bytes(changed(path.read_bytes(), 8, "<i", 2**31 - 1))
    assert newest_set(folder).step == 7


def test_a_set_that_is_being_replaced_is_not_whole(folder):
    source = by_hand.InMemory(MOMENTS["master"], fails_at="lnfw")
    with pytest.raises(RuntimeError):
        write_checkpoint_set(folder, 20, source, read)
    assert newest_set(folder).step == 7


def test_a_folder_without_a_set_is_explained(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"no whole checkpoint of llm\.c's") as caught:
            newest_set(folder)
        assert caught.value.slug == "llmc-set-missing"
