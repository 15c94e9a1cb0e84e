"""transformers writes a GPT-2, and we compute its logits; we write one, and it computes ours."""

import copy
import json

import numpy as np
import pytest

from harness import tokenizers
from harness.errors import CheckpointError
from harness.interchange.huggingface.folder import HuggingFaceModel
from harness.interchange.huggingface.writing import write_huggingface
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes
from harness.plugins.loading import all_ops
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

WHY = "the extra [reference] is not installed"
TOLERANCE = 1e-5  # absolute: our float32 against their float64, on logits of deviation 1.4
B, T = 2, 16
SIZES = {"vocab_size": 257, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4}
MODEL = GPT2(layers=3, heads=4, channels=48, positions=32, vocab_size=257)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason=WHY)


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers", reason=WHY)


@pytest.fixture(scope="module")
def theirs(transformers, torch):
    """A model with weights large enough that every one of them shows in the logits."""
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        **SIZES, initializer_range=0.2, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias") or ".ln_" in name:
                values += 0.1 * torch.randn_like(values)
    return model


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, MODEL.vocab_size, (B, T)).astype(np.int32)


def their_logits(model, tokens):
    import torch

    with torch.no_grad():
        return copy.deepcopy(model).double()(torch.from_numpy(tokens).long()).logits.numpy()


def our_logits(folder, tokens):
    settings = TrainerSettings(
        model=MODEL,
        batch_size=B,
        sequence_length=T,
        ops={"every_op": "numpy"},
        optimizer=OptimizerSettings("adamw", 0.9, 0.999, 1e-8, 0.0, decay="matrices"),
        clip_norm=None,
    )
    trainer = Trainer(settings, all_ops())
    with HuggingFaceModel(folder) as source:
        assert source.model == MODEL
        arrays = {}
        for name, shape in tensor_shapes(MODEL).items():
            arrays[name] = np.empty(shape, np.float32)
            source.read_into(name, arrays[name])
    trainer.parameters.from_host(arrays)
    trainer.executor.refresh()
    executor = trainer.another(B, T, head="logits")
    executor.write("tokens", tokens)
    executor.forward()
    return executor.read()[..., : MODEL.vocab_size]


def load(transformers, folder):
    """The model that transformers makes of folder; nothing missing, unexpected or converted."""
    model, report = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[what], f"{what}: {report[what]}"
    assert not report.get("error_msgs")
    return model.eval()


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "60KB"}], ids=["one file", "several files"])
def test_we_compute_the_logits_of_a_folder_of_transformers(theirs, tokens, tmp_path, how):
    theirs.save_pretrained(tmp_path, **how)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == bool(how)
    np.testing.assert_allclose(
        our_logits(tmp_path, tokens), their_logits(theirs, tokens), rtol=0, atol=TOLERANCE
    )


def test_a_folder_without_the_head_is_the_same_model(theirs, tokens, tmp_path):
    theirs.transformer.save_pretrained(tmp_path)
    np.testing.assert_allclose(
        our_logits(tmp_path, tokens), their_logits(theirs, tokens), rtol=0, atol=TOLERANCE
    )


OTHER_NAMES = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_sizes_by_their_other_names_are_those_that_transformers_takes(
    transformers, theirs, tokens, tmp_path
):
    def rename(config):
        for other, name in OTHER_NAMES.items():
            config[other] = config.pop(name)

    theirs.save_pretrained(tmp_path)
    assert transformers.GPT2Config.attribute_map == OTHER_NAMES
    edit_config(tmp_path, rename)
    np.testing.assert_array_equal(
        their_logits(load(transformers, tmp_path), tokens), their_logits(theirs, tokens)
    )
    np.testing.assert_allclose(
        our_logits(tmp_path, tokens), their_logits(theirs, tokens), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("change", [{"num_attention_heads": 2}, {"is_causal": False}], ids=str)
def test_what_transformers_would_compute_otherwise_is_refused(
    transformers, theirs, tokens, tmp_path, change
):
    theirs.save_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config.update(change))
    others = their_logits(load(transformers, tmp_path), tokens)
    assert np.abs(others - their_logits(theirs, tokens)).max() > 0.1
    with pytest.raises(CheckpointError, match=next(iter(change))):
        HuggingFaceModel(tmp_path)


def test_transformers_computes_the_logits_of_a_folder_of_ours(
    transformers, theirs, tokens, tmp_path
):
    theirs.save_pretrained(tmp_path / "theirs")
    with HuggingFaceModel(tmp_path / "theirs") as source:
        write_huggingface(tmp_path / "ours", source)
    again = load(transformers, tmp_path / "ours")
    np.testing.assert_array_equal(their_logits(again, tokens), their_logits(theirs, tokens))
    np.testing.assert_allclose(
        our_logits(tmp_path / "ours", tokens), their_logits(again, tokens), rtol=0, atol=TOLERANCE
    )


def test_a_folder_comes_back_from_transformers_with_the_same_bytes(transformers, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    with HuggingFaceModel(tmp_path / "theirs") as source:
        write_huggingface(tmp_path / "ours", source)
        load(transformers, tmp_path / "ours").save_pretrained(tmp_path / "again")
        with HuggingFaceModel(tmp_path / "again") as again:
            assert again.model == source.model
            for name, shape in tensor_shapes(MODEL).items():
                values = [np.empty(shape, np.float32) for _ in range(2)]
                source.read_into(name, values[0])
                again.read_into(name, values[1])
                assert values[0].tobytes() == values[1].tobytes(), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_torchs(transformers, torch, theirs, tmp_path, dtype):
    theirs.save_pretrained(tmp_path / "theirs")
    with HuggingFaceModel(tmp_path / "theirs") as source:
        write_huggingface(tmp_path / "ours", source, dtype)
    ours = load(transformers, tmp_path / "ours")
    expected = theirs.state_dict()
    for name, values in ours.state_dict().items():
        rounded = expected[name].to(getattr(torch, dtype))
        assert torch.equal(values.to(rounded.dtype), rounded), name


def test_transformers_finds_the_tokenizer_beside_the_model(transformers, tmp_path):
    pytest.importorskip("tokenizers", reason=WHY)
    text = "the bread, they said: the other\tthe end\n" * 3
    tokenizer = _byte_pairs(text)
    write_huggingface(tmp_path / "ours", _Zeros(tokenizer))
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert found(text)["input_ids"] == tokenizer.encode(text).tolist()
    assert found.eos_token_id == tokenizer.end_of_text
    config = load(transformers, tmp_path / "ours").config
    assert config.eos_token_id == config.bos_token_id == tokenizer.end_of_text


def test_a_model_without_an_end_of_text_has_none_in_transformers(transformers, tmp_path):
    write_huggingface(tmp_path / "ours", _Zeros(tokenizers.get("bytes")))
    config = load(transformers, tmp_path / "ours").config
    assert (config.eos_token_id, config.bos_token_id) == (None, None)


def _byte_pairs(text):
    from harness.tokenizers.bpe_training import train_bpe

    return train_bpe([text], 280)


class _Zeros:
    """A stored model whose weights do not matter."""

    path, description, dtype = "zeros", "zeros", np.dtype(np.float32)

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.model = GPT2(1, 2, 8, 8, tokenizer.vocab_size)

    def read_into(self, name, out):
        out[:] = 0
