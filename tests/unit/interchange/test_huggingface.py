"""Folders of Hugging Face's, made by the safetensors package, read by us."""

import json
import random

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import CheckpointError, DataError, HarnessError, NumericsError
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.opening import open_model
from tests.unit.interchange import huggingface_by_hand as by_hand
from tests.unit.interchange.huggingface_by_hand import BFLOAT16, CONFIG, MODEL, C, V, refusal

WEIGHTS = by_hand.random_weights()
FULL = by_hand.prefixed(WEIGHTS)
QKV = "transformer.h.1.attn.c_attn.weight"


def all_of(found):
    """Every tensor that a model file gives, each into memory that held NaN."""
    arrays = {}
    for name, expected in by_hand.ours(WEIGHTS).items():
        arrays[name] = np.full(expected.shape, np.nan, np.float32)
        found.read_into(name, arrays[name])
    return arrays


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], strict=True, err_msg=name)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gpt2"


@pytest.mark.parametrize("arrays", [WEIGHTS, FULL], ids=["without a head", "with the prefix"])
def test_a_folder_is_read_by_our_names_and_turned_around(folder, arrays):
    with HuggingFaceModel(by_hand.write_folder(folder, arrays)) as found:
        assert found.model == MODEL
        assert found.dtype == np.float32
        assert found.description == "Hugging Face GPT-2, float32"
        assert found.path == folder
        assert found.tokenizer is None
        assert_same(all_of(found), by_hand.ours(WEIGHTS))


def test_several_files_are_read_as_one(folder):
    with HuggingFaceModel(by_hand.write_shards(folder, FULL)) as found:
        assert found.description == "Hugging Face GPT-2, float32, 3 files"
        assert_same(all_of(found), by_hand.ours(WEIGHTS))


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_sixteen_bits_are_read_as_the_numbers_they_stand_for(folder, dtype):
    weights = by_hand.random_weights(dtype=dtype)
    with HuggingFaceModel(by_hand.write_folder(folder, weights)) as found:
        assert found.dtype == dtype
        assert_same(all_of(found), by_hand.ours(weights))


def test_a_folder_of_two_formats_is_float32(folder):
    weights = WEIGHTS | {"wpe.weight": WEIGHTS["wpe.weight"].astype(BFLOAT16)}
    with HuggingFaceModel(by_hand.write_folder(folder, weights)) as found:
        assert found.dtype == np.float32
        assert_same(all_of(found), by_hand.ours(weights))


def test_the_masks_of_old_files_are_not_read(folder):
    masks = {"h.0.attn.bias": np.ones((1, 1, 5, 5), np.uint8), "h.0.attn.masked_bias": np.ones(())}
    with HuggingFaceModel(by_hand.write_folder(folder, WEIGHTS | masks)) as found:
        assert found.dtype == np.float32
        assert_same(all_of(found), by_hand.ours(WEIGHTS))


def test_a_head_that_is_the_token_embedding_is_no_surprise(folder):
    head = {"lm_head.weight": WEIGHTS["wte.weight"]}
    with HuggingFaceModel(by_hand.write_folder(folder, FULL | head)) as found:
        assert_same(all_of(found), by_hand.ours(WEIGHTS))


def test_a_head_of_its_own_is_refused(folder):
    head = WEIGHTS["wte.weight"].copy()
    head[77, 3] += 1
    error = refusal(by_hand.write_folder(folder, FULL | {"lm_head.weight": head}))
    assert (type(error), error.slug) == (CheckpointError, "huggingface-head-not-tied")
    assert "row 77" in error.facts["found"]


def test_any_path_of_a_model_may_be_such_a_folder(folder):
    with open_model(by_hand.write_folder(folder, FULL)) as found:
        assert_same(all_of(found), by_hand.ours(WEIGHTS))


def test_a_vocabulary_of_gpt2s_size_has_its_tokenizer(folder):
    weights = WEIGHTS | {"wte.weight": np.zeros((50_257, C), np.float32)}
    config = CONFIG | {"vocab_size": 50_257}
    with HuggingFaceModel(by_hand.write_folder(folder, weights, config)) as found:
        assert found.tokenizer == tokenizers.get("gpt2")


def test_our_own_record_of_a_tokenizer_is_read(folder):
    tokenizer = tokenizers.get("char", "to be or not")
    by_hand.write_folder(folder, FULL)
    (folder / "harness_tokenizer.json").write_text(json.dumps(tokenizer.to_dict()))
    with HuggingFaceModel(folder) as found:
        assert found.tokenizer == tokenizer


def test_a_tokenizer_beyond_the_vocabulary_is_refused(folder):
    tokenizer = tokenizers.get("bytes")
    assert tokenizer.vocab_size > V
    by_hand.write_folder(folder, FULL)
    (folder / "harness_tokenizer.json").write_text(json.dumps(tokenizer.to_dict()))
    error = refusal(folder)
    assert error.slug == "huggingface-config-invalid"
    (folder / "harness_tokenizer.json").write_text("{}")
    assert isinstance(refusal(folder), DataError)


# -- what is no such folder ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop(QKV), "h.1.attn.c_attn.weight"),
        (lambda arrays: arrays.pop("transformer.wte.weight"), "wte.weight"),
        (lambda arrays: arrays.update({"score.weight": np.ones(3)}), "score.weight"),
        (lambda arrays: arrays.update({"wpe.weight": WEIGHTS["wpe.weight"]}), "wpe.weight"),
        (lambda arrays: arrays.update({QKV: arrays[QKV].T.copy()}), "(6, 18)"),
        (lambda arrays: arrays.update({QKV: arrays[QKV].astype(np.float64)}), "float64"),
        (lambda arrays: arrays.update({QKV: np.ones((C, 3 * C), np.int8)}), "int8"),
        (lambda arrays: arrays.update({"lm_head.weight": np.ones((V, C + 1))}), "lm_head.weight"),
        (lambda arrays: arrays.clear(), "12 tensors for each of 2 layers"),
    ],
    ids=[
        "missing",
        "embedding",
        "unexpected",
        "prefix",
        "transposed",
        "float64",
        "int8",
        "head",
        "empty",
    ],
)
def test_tensors_that_are_not_the_models_are_named(folder, change, words):
    arrays = dict(FULL)
    change(arrays)
    error = refusal(by_hand.write_folder(folder, arrays))
    assert (type(error), error.slug) == (CheckpointError, "huggingface-misfit")
    assert words in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16, np.dtype(np.float16)], ids=str)
def test_a_weight_that_is_not_finite_is_found_where_it_is_stored(folder, value, dtype):
    arrays = {name: values.astype(dtype) for name, values in FULL.items()}
    arrays[QKV][2, 11] = value
    error = refusal(by_hand.write_folder(folder, arrays))
    assert (type(error), error.slug) == (NumericsError, "huggingface-not-finite")
    assert error.headline == f"not a finite number: {QKV}[2, 11]"


@pytest.mark.parametrize("cut", [1, 100, 20_000])
def test_a_file_that_was_cut_is_refused_when_it_is_opened(folder, cut):
    file = by_hand.write_folder(folder, FULL) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(CheckpointError) as caught:
        HuggingFaceModel(folder)
    assert caught.value.slug == "checkpoint-damaged"


def test_a_file_that_shrinks_while_it_is_open_is_one_error(folder):
    file = by_hand.write_folder(folder, FULL) / "model.safetensors"
    with HuggingFaceModel(folder) as found:
        file.write_bytes(file.read_bytes()[:3000])
        with pytest.raises(CheckpointError, match="damaged"):
            found.check()


def test_overlapping_tensors_are_refused(folder):
    file = by_hand.write_folder(folder, FULL) / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    name, other = "transformer.ln_f.weight", "transformer.ln_f.bias"
    header[name]["data_offsets"] = header[other]["data_offsets"]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    error = refusal(folder)
    assert (type(error), error.slug) == (CheckpointError, "checkpoint-damaged")


def test_a_pickle_is_not_opened_and_the_way_out_is_told(folder):
    by_hand.write_folder(folder, FULL)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.slug == "huggingface-pickled"
    assert "save_pretrained(FOLDER, safe_serialization=True)" in error.facts["do"]


def test_a_folder_without_weights_or_config_is_one_error(folder):
    by_hand.write_folder(folder, FULL)
    (folder / "model.safetensors").unlink()
    assert refusal(folder).slug == "huggingface-weights-missing"
    (folder / "config.json").unlink()
    assert isinstance(refusal(folder), CheckpointError)


# -- several files -----------------------------------------------------------------------------


@pytest.fixture
def shards(folder):
    by_hand.write_shards(folder, FULL)
    return json.loads((folder / "model.safetensors.index.json").read_text())


def write_index(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/passwd", "a\\b.safetensors", "a\0.safetensors", "", ".safetensors",
     "pytorch_model.bin", "x" * 300 + ".safetensors", 3, None, ["a.safetensors"], "\ud800.safetensors"],
    ids=repr,
)  # fmt: skip
def test_an_index_names_files_beside_it_and_nothing_else(folder, shards, name):
    shards["weight_map"][QKV] = name
    write_index(folder, shards)
    error = refusal(folder)
    assert (type(error), error.slug) == (CheckpointError, "huggingface-config-invalid")


def test_a_tensor_is_in_the_file_that_the_index_says(folder, shards):
    there = shards["weight_map"][QKV]
    other = next(name for name in shards["weight_map"].values() if name != there)
    shards["weight_map"][QKV] = other
    write_index(folder, shards)
    error = refusal(folder)
    assert error.slug == "huggingface-config-invalid"
    assert error.facts["found"] == f"in {there}"


def test_an_index_and_its_files_name_the_same_tensors(folder, shards):
    file = shards["weight_map"].pop(QKV)
    write_index(folder, shards)
    assert QKV in refusal(folder).facts["found"]
    shards["weight_map"] |= {QKV: file, "transformer.more": file}
    write_index(folder, shards)
    assert refusal(folder).facts["found"] == "in none of the files"


def test_a_tensor_in_two_files_is_refused(folder, shards):
    shard = shards["weight_map"][QKV]
    other = next(name for name in shards["weight_map"].values() if name != shard)
    names = [name for name, file in shards["weight_map"].items() if file == other]
    by_hand.save(folder / other, {name: FULL[name] for name in [*names, QKV]})
    error = refusal(folder)
    assert error.slug == "huggingface-misfit" and "every tensor once" in str(error)


def test_a_file_that_the_index_names_and_is_not_there_is_one_error(folder, shards):
    (folder / shards["weight_map"][QKV]).unlink()
    assert refusal(folder).slug == "checkpoint-damaged"


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {}}, "text"], ids=str)
def test_an_index_that_is_none_is_one_error(folder, shards, index):
    write_index(folder, index)
    assert refusal(folder).slug == "huggingface-config-invalid"


def test_an_index_of_a_thousand_files_is_refused_before_one_is_opened(folder, shards):
    write_index(folder, {"weight_map": {f"t{i}": f"{i}.safetensors" for i in range(1000)}})
    assert refusal(folder).facts["expected"] == "at most 256 files"


# -- any change at all -------------------------------------------------------------------------

MARKS = [b'"', b"{", b"}", b"[", b"-1", b"9" * 30, b"null", b"NaN", b"1e999", rb"\ud800", b"\0"]


@pytest.mark.parametrize("write", [by_hand.write_folder, by_hand.write_shards])
def test_a_mutant_is_read_or_refused_with_one_error(folder, write):
    write(folder, FULL | {"lm_head.weight": WEIGHTS["wte.weight"]})
    record = tokenizers.get("char", "to be").to_dict()
    (folder / "harness_tokenizer.json").write_text(json.dumps(record))
    originals = {file: file.read_bytes() for file in sorted(folder.iterdir())}
    rng, outcomes = random.Random(1), set()
    for _ in range(150):
        file = rng.choice(list(originals))
        file.write_bytes(_mutant(rng, originals[file]))
        try:
            with HuggingFaceModel(folder) as found:
                found.check()
            outcomes.add("read")
        except HarnessError as error:
            outcomes.add(error.slug)
        file.write_bytes(originals[file])
    assert {"read", "checkpoint-damaged", "huggingface-config-invalid"} <= outcomes


def _mutant(rng, raw):
    raw = bytearray(raw)
    reach = len(raw) if rng.random() < 0.2 else min(len(raw), 4000)  # most of them in the header
    for _ in range(rng.randint(1, 4)):
        place, mark = rng.randrange(reach), rng.choice([*MARKS, rng.randbytes(1)])
        raw[place : place + rng.choice([0, len(mark), 50])] = mark
    return raw if rng.random() < 0.9 else raw[: rng.randrange(reach)]
