"""An adapter is written as peft keeps it, and read back; whatever else is there is one clear error.

The referee of the layout is the safetensors library, and in tests/integration peft itself.
"""

import json
import os
import struct

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from harness.errors import CheckpointError, HarnessError, NumericsError, ResourceError
from harness.interchange.huggingface.peft import load_peft, save_peft
from harness.models.gpt2 import GPT2
from harness.models.lora import Lora

MODEL = GPT2(layers=2, heads=2, channels=8, positions=6, vocab_size=30)
LORAS = [
    Lora(4, 8.0, ("q", "v")),
    Lora(2, 3.5, ("k",)),
    Lora(2, 0.1, ("q", "k", "v")),
    Lora(6, 1.0, ("qkv",)),
    Lora(1, 1.0, ("fcproj",)),
    Lora(3, 0.7, ("q", "k", "attproj", "fc", "fcproj")),
    Lora(5, -2.0, ("qkv", "attproj")),
    Lora(2, 1e15, ("q", "k", "v", "fc")),
    Lora(2, -1e-15, ("q", "k", "v")),
]
of_each = pytest.mark.parametrize("lora", LORAS, ids=str)


def random_pairs(lora, seed=0):
    rng = np.random.default_rng(seed)
    shapes = lora.shapes(MODEL).items()
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes}


def save(folder, lora, arrays=None):
    arrays = random_pairs(lora) if arrays is None else arrays
    save_peft(folder, lora, MODEL, arrays.__getitem__, "gpt2")
    return arrays


def same(first, second):
    return first.keys() == second.keys() and all(
        first[n].shape == second[n].shape and first[n].tobytes() == second[n].tobytes()
        for n in first
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "adapter"


@pytest.fixture
def edited(folder):
    """An adapter whose config or tensors were changed."""

    def edit(lora=LORAS[0], config=None, tensors=None):
        save(folder, lora)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
        weights = folder / "adapter_model.safetensors"
        arrays = load_file(weights)
        if tensors is not None:
            tensors(arrays)
            save_file(arrays, weights)
        return folder

    return edit


def refused(folder, error, slug):
    with pytest.raises(HarnessError) as caught:
        load_peft(folder, MODEL)
    assert type(caught.value) is error and caught.value.slug == slug, caught.value
    return str(caught.value)


# -- there and back -------------------------------------------------------------------------------


@of_each
def test_an_adapter_comes_back_as_it_was(folder, lora):
    arrays = save(folder, lora)
    found, read = load_peft(folder, MODEL)
    assert found.rank == lora.rank and found.targets == lora.targets
    assert found.alpha == pytest.approx(lora.alpha, rel=1e-15)
    assert same(read, arrays)


@of_each
def test_an_adapter_whose_b_is_still_zero_comes_back_too(folder, lora):
    arrays = random_pairs(lora)
    for name in arrays:
        if name.startswith("lora_b"):
            arrays[name][...] = 0
    save(folder, lora, arrays)
    found, read = load_peft(folder, MODEL)
    assert found.targets == lora.targets and same(read, arrays)


@of_each
def test_blocks_alone_tell_the_slices_when_the_note_is_lost(folder, lora):
    arrays = save(folder, lora)
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights)
    found, read = load_peft(folder, MODEL)
    assert found.targets == lora.targets and same(read, arrays)


def test_a_note_that_the_blocks_contradict_is_not_believed(folder):
    save(folder, LORAS[0])
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights, {"targets": "q,k"})
    assert load_peft(folder, MODEL)[0].targets == ("q", "v")


def test_a_pair_that_is_no_longer_made_of_blocks_is_one_of_the_whole_weight(edited):
    def fill(arrays):
        arrays["base_model.model.transformer.h.1.attn.c_attn.lora_B.weight"][9, 0] = 1

    lora, arrays = load_peft(edited(tensors=fill), MODEL)
    assert (lora.rank, lora.alpha, lora.targets) == (8, 16.0, ("qkv",))
    assert arrays["lora_b.qkv.1"].shape == (24, 8) and arrays["lora_b.qkv.1"][9, 0] == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_is_taken_up_to_float32(edited, dtype):
    def narrow(arrays):
        for name in arrays:
            arrays[name] = arrays[name].astype(dtype)

    _, read = load_peft(edited(tensors=narrow), MODEL)
    expected = random_pairs(LORAS[0])["lora_a.v.1"].astype(dtype).astype(np.float32)
    assert read["lora_a.v.1"].dtype == np.float32 and (read["lora_a.v.1"] == expected).all()


# -- the layout ------------------------------------------------------------------------------------


def test_slices_become_one_pair_of_blocks_and_alpha_over_rank_stays(folder):
    lora = LORAS[0]
    arrays = save(folder, lora)
    stored = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.transformer.h.1.attn.c_attn.lora_"
    A, B = stored[f"{prefix}A.weight"], stored[f"{prefix}B.weight"]
    assert len(stored) == 4 and A.shape == (8, 8) and B.shape == (24, 8)
    for rows, columns, target in (
        (slice(0, 8), slice(0, 4), "q"),
        (slice(16, 24), slice(4, 8), "v"),
    ):
        assert (A[columns] == arrays[f"lora_a.{target}.1"]).all()
        assert (B[rows, columns] == arrays[f"lora_b.{target}.1"]).all()
    assert np.count_nonzero(B) == 2 * 8 * 4
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] / config["r"] == lora.alpha / lora.rank
    assert config["target_modules"] == ["attn.c_attn"] and config["fan_in_fan_out"] is True
    with safetensors.safe_open(folder / "adapter_model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "targets": "q,v"}


def test_modules_of_other_ranks_are_told_by_patterns(folder):
    save(folder, Lora(3, 6.0, ("q", "k", "fc")))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 6)
    assert config["rank_pattern"] == {"attn.c_attn": 6}
    assert config["alpha_pattern"] == {"attn.c_attn": 12}


# -- writing -----------------------------------------------------------------------------------------


def test_an_adapter_replaces_an_earlier_one_and_leaves_nothing_beside_it(folder):
    save(folder, LORAS[0])
    save(folder, LORAS[1])
    assert load_peft(folder, MODEL)[0] == LORAS[1]
    assert os.listdir(folder.parent) == ["adapter"]


def test_a_folder_with_something_else_is_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ResourceError) as caught:
        save(folder, LORAS[0])
    assert caught.value.slug == "adapter-folder-taken"
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("failing", ["write_safetensors", "write_file"])
def test_a_disk_that_fails_leaves_the_earlier_adapter(folder, monkeypatch, failing):
    save(folder, LORAS[0])

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"harness.interchange.huggingface.peft.{failing}", fail)
    with pytest.raises(ResourceError) as caught:
        save(folder, LORAS[1])
    assert caught.value.slug == "adapter-not-written"
    assert load_peft(folder, MODEL)[0] == LORAS[0]
    assert os.listdir(folder.parent) == ["adapter"]


def test_a_rename_that_fails_leaves_the_earlier_adapter(folder, monkeypatch):
    save(folder, LORAS[0])
    rename = os.rename

    def fail(source, target):
        if source.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr("os.rename", fail)
    with pytest.raises(ResourceError):
        save(folder, LORAS[1])
    assert load_peft(folder, MODEL)[0] == LORAS[0]
    assert os.listdir(folder.parent) == ["adapter"]


def test_nan_is_not_written(folder):
    arrays = random_pairs(LORAS[0])
    arrays["lora_a.q.0"][0, 0] = np.nan
    with pytest.raises(NumericsError, match=r"lora_a\.q\.0"):
        save(folder, LORAS[0], arrays)
    assert not folder.exists()


# -- bad files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "slug", "said"),
    [
        ({"use_dora": True}, "adapter-unsupported", "use_dora=True"),
        ({"use_rslora": True}, "adapter-unsupported", "use_rslora=True"),
        ({"bias": "all"}, "adapter-unsupported", "bias=all"),
        ({"modules_to_save": ["wte"]}, "adapter-unsupported", "modules_to_save"),
        ({"peft_type": "IA3"}, "adapter-unsupported", "peft_type=IA3"),
        ({"layers_to_transform": [0]}, "adapter-unsupported", "layers_to_transform"),
        ({"rank_pattern": {"(a+)+$": 4}}, "adapter-unsupported", "(a+)+$"),
        ({"rank_pattern": {"c_attn": -1}}, "checkpoint-damaged", "rank_pattern"),
        ({"rank_pattern": [8]}, "checkpoint-damaged", "rank_pattern, an object"),
        ({"rank_pattern": {"h.1.attn.c_attn": 4}}, "adapter-ranks-differ", "h.1.attn.c_attn"),
        ({"alpha_pattern": {"h.1.attn.c_attn": 4}}, "adapter-ranks-differ", "h.1.attn.c_attn"),
        ({"r": 0}, "checkpoint-damaged", "a rank of 1 or more"),
        ({"r": 10**30}, "checkpoint-damaged", "a rank of 1 or more"),
        ({"r": True}, "checkpoint-damaged", "a rank of 1 or more"),
        ({"r": None}, "checkpoint-damaged", "a rank of 1 or more"),
        ({"lora_alpha": "8"}, "checkpoint-damaged", "lora_alpha"),
        ({"lora_alpha": float("nan")}, "checkpoint-damaged", "lora_alpha"),
        ({"lora_alpha": 0}, "checkpoint-damaged", "lora_alpha"),
        ({"r": 4}, "adapter-tensors-misfit", "shape (4, 8)"),
        ({"lora_alpha": 1e300}, "checkpoint-damaged", "an alpha of 1e-15 to 1e+15"),
        ({"lora_alpha": 5e-324}, "checkpoint-damaged", "an alpha of 1e-15 to 1e+15"),
        ({"layers_to_transform": 0}, "adapter-unsupported", "layers_to_transform=0"),
        ({"use_dora": 0}, "adapter-unsupported", "use_dora=0"),
        ({"eva_config": {"rho": 2.0}}, "adapter-unsupported", "eva_config"),
        ({"invented_later": 0.5}, "adapter-unsupported", "invented_later=0.5"),
        ({"x" * 10**5: [1]}, "adapter-unsupported", "xxx...=[1]"),
    ],
)
def test_a_config_that_is_not_plain_lora_is_refused_by_name(edited, config, slug, said):
    assert said in refused(edited(config=config), CheckpointError, slug)


@pytest.mark.parametrize(
    "begins",
    [
        *("pissa", "pissa_niter_16", "olora", "corda", "loftq", "eva", "lora_ga", "orthogonal"),
        *("mica", "invented later", 1, ["gaussian"]),
    ],
    ids=str,
)
def test_an_adapter_that_may_have_changed_its_base_is_refused(edited, begins):
    folder = edited(config={"init_lora_weights": begins})
    said = f"init_lora_weights={begins}"
    assert said in refused(folder, CheckpointError, "adapter-unsupported")


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"invented_later": None, "also_later": False, "and": {}, "more": [], "": ""},
        {"qalora_group_size": 16, "megatron_core": "megatron.core", "peft_version": "0.21.2"},
        {"auto_mapping": {"base_model_class": "GPT2LMHeadModel"}, "revision": "main"},
        {"target_modules": "all-linear", "fan_in_fan_out": False, "task_type": None},
    ],
    ids=lambda config: next(iter(config)),
)
def test_options_that_are_off_or_do_not_change_what_is_computed_are_read(edited, config):
    assert load_peft(edited(config=config), MODEL)[0] == LORAS[0]


def test_dropout_is_of_training_and_does_not_matter(edited):
    assert load_peft(edited(config={"lora_dropout": 0.1}), MODEL)[0] == LORAS[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"r": 1, "r": 2}', "[" * 10**5, '{"r": "\\ud800'])
def test_a_config_that_is_not_json_is_damaged(edited, text):
    folder = edited()
    (folder / "adapter_config.json").write_text(text)
    assert "adapter_config.json" in refused(folder, CheckpointError, "checkpoint-damaged")


NAME = "base_model.model.transformer.h.{}.attn.c_attn.lora_{}.weight"


@pytest.mark.parametrize(
    ("change", "error", "slug", "said"),
    [
        (
            lambda t: t.pop(NAME.format(1, "B")),
            CheckpointError,
            "adapter-tensors-misfit",
            "no such",
        ),
        (lambda t: t.clear(), CheckpointError, "adapter-tensors-misfit", "at least one pair"),
        (
            lambda t: t.update({NAME.format(2, "A"): t[NAME.format(1, "A")]}),
            CheckpointError,
            "adapter-tensors-misfit",
            "the model has 2 layers",
        ),
        (
            lambda t: t.update({"base_model.model.lm_head.weight": np.zeros((2, 2))}),
            CheckpointError,
            "adapter-tensors-misfit",
            "lm_head",
        ),
        (
            lambda t: t.update({NAME.format(1, "A"): np.zeros((8, 9), np.float32)}),
            CheckpointError,
            "adapter-tensors-misfit",
            "(8, 9)",
        ),
        (
            lambda t: t.update({NAME.format(1, "A"): np.zeros((8, 8), np.int32)}),
            CheckpointError,
            "adapter-tensors-misfit",
            "int32",
        ),
        (
            lambda t: t[NAME.format(0, "A")].__setitem__((7, 7), np.nan),
            NumericsError,
            "adapter-not-finite",
            "lora_a.v.0",
        ),
        (
            lambda t: t.update({NAME.format(0, "A"): np.full((8, 8), 1e300)}),
            NumericsError,
            "adapter-not-finite",
            "lora_a.q.0",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(edited, change, error, slug, said):
    assert said in refused(edited(tensors=change), error, slug)


def test_a_transposed_pair_is_refused_and_not_turned(edited):
    def turn(arrays):
        name = NAME.format(0, "B")
        arrays[name] = np.ascontiguousarray(arrays[name].T)

    refused(edited(tensors=turn), CheckpointError, "adapter-tensors-misfit")


def test_pairs_of_the_packed_weight_and_of_another_must_agree_in_rank(folder):
    lora = Lora(3, 6.0, ("q", "k", "fc"))
    save(folder, lora)
    path = folder / "adapter_model.safetensors"
    arrays = load_file(path)
    arrays[NAME.format(0, "B")][:] = 1  # no blocks any more: rank 6 beside rank 3
    save_file(arrays, path)
    refused(folder, CheckpointError, "adapter-ranks-differ")


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    refused(tmp_path / "adapter", CheckpointError, "adapter-missing")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_file_that_is_not_there_is_named(edited, name):
    folder = edited()
    (folder / name).unlink()
    assert name in refused(folder, CheckpointError, "checkpoint-damaged")


def test_whatever_is_done_to_a_file_is_one_clear_error_or_a_whole_adapter(folder):
    """A sample of mutants: bytes flipped, cut, repeated; lengths and offsets that promise much."""
    save(folder, LORAS[5])
    rng = np.random.default_rng(0)
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    refusals = 0
    for turn in range(300):
        data = bytearray(whole)
        at = int(rng.integers(8 + length if turn % 3 else len(data)))
        match turn % 4:
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = data[: int(rng.integers(1, 64))]
            case 3:
                data[:8] = struct.pack("<Q", int(rng.integers(1 << 62)))
        path.write_bytes(data)
        try:
            load_peft(folder, MODEL)
        except HarnessError:
            refusals += 1
    assert refusals > 200
