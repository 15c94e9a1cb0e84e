"""Our adapters are peft's: it loads what we write, we load what it writes, and the numbers are the same.

The referee is peft on transformers' GPT2LMHeadModel; these tests need the extra [reference].
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CheckpointError
from harness.interchange.huggingface.peft import load_peft, save_peft
from harness.interchange.merged import merged
from harness.models.gpt2 import GPT2
from harness.models.lora import Lora
from harness.plugins.loading import all_ops
from harness.training.optimizer import OptimizerSettings
from harness.training.trainer import Trainer, TrainerSettings

LOGITS_TOLERANCE = 1e-5  # relative L2, both in float32
GRADIENT_TOLERANCE = 1e-4  # relative L2; CONFORMANCE's for whole models
LORAS = [
    Lora(4, 8.0, ("q", "v")),
    Lora(2, 3.0, ("k",)),
    Lora(3, 2.0, ("q", "k", "v", "attproj", "fc", "fcproj")),
    Lora(4, 6.0, ("qkv", "fcproj")),
]

# peft 0.21 asks transformers 5 for a name that is deprecated there; it is theirs, and harmless.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

for library in ("torch", "transformers", "peft"):
    pytest.importorskip(library, reason=f"{library} is not installed, which is the referee here")


def _make_module():
    """golden/make.py, whichever folder the tests are run from."""
    path = Path(__file__).parent / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_make_for_peft", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = _make_module()
CASE = make.random_case(make.SHAPES["small"], seed=77)
SHAPE = CASE.shape
MODEL = GPT2(SHAPE.layers, SHAPE.heads, SHAPE.channels, SHAPE.positions, SHAPE.vocab_size)


class Stored:
    """The case's weights as a model file."""

    path, description, model, dtype, tokenizer = Path("case"), "case", MODEL, np.float32, None

    def read_into(self, name, out):
        kind, _, layer = name.partition(".")
        value = CASE.weights[kind][int(layer)] if layer else CASE.weights[kind]
        out[...] = 0  # the vocabulary's padding
        out[: len(value)] = value

    def close(self):
        pass


def base():
    return make._model(CASE).float().eval()


def trainer_of(lora):
    settings = TrainerSettings(
        MODEL, SHAPE.B, SHAPE.T, {"every_op": "numpy"},
        OptimizerSettings("sgd", weight_decay=0.0), clip_norm=None, adapter=lora,
    )  # fmt: skip
    return Trainer(settings, all_ops(), Stored())


def put(trainer, pairs):
    trainer.parameters.from_host(trainer.parameters.to_host() | pairs)
    trainer.executor.refresh()


def random_pairs(lora):
    rng = np.random.default_rng(5)
    shapes = lora.shapes(MODEL).items()
    return {n: (0.1 * rng.standard_normal(s)).astype(np.float32) for n, s in shapes}


def our_logits(trainer):
    executor = trainer.another(SHAPE.B, SHAPE.T, head="logits")
    executor.write("tokens", CASE.tokens)
    executor.forward()
    return executor.read()[..., : SHAPE.vocab_size]


def their_logits(model):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(CASE.tokens.astype(np.int64))).logits.numpy()


def relative(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("lora", LORAS, ids=str)
def test_peft_loads_what_we_write_and_has_our_logits(lora, tmp_path, record_property):
    from peft import PeftModel

    trainer, pairs = trainer_of(lora), random_pairs(lora)
    put(trainer, pairs)
    save_peft(tmp_path / "adapter", lora, MODEL, trainer.state()["model"].__getitem__, "gpt2")
    model = PeftModel.from_pretrained(base(), tmp_path / "adapter").eval()
    loaded = model.load_adapter(tmp_path / "adapter", "again")
    assert not [name for name in loaded.missing_keys if "again" in name]
    assert not loaded.unexpected_keys
    theirs = {n for n, _ in model.named_parameters() if "lora_" in n and ".default." in n}
    kinds = {"qkv" if target in ("q", "k", "v") else target for target in lora.targets}
    assert len(theirs) == 2 * len(kinds) * SHAPE.layers
    error = relative(our_logits(trainer), their_logits(model))
    record_property("logits", f"{error:.1e}")
    print(f"logits {error:.1e}")
    assert error <= LOGITS_TOLERANCE
    assert relative(their_logits(base()), their_logits(model)) > 1e-2


@pytest.fixture
def theirs(tmp_path):
    """(peft's model, the folder it saved): pairs for each linear layer, none of them zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    modules = ["c_attn", "c_proj", "c_fc"]
    config = LoraConfig(r=5, lora_alpha=7, target_modules=modules, fan_in_fan_out=True)
    model = get_peft_model(base(), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(tmp_path / "theirs")
    return model.eval(), tmp_path / "theirs"


def test_we_load_what_peft_writes_and_have_its_logits_and_gradients(theirs):
    import torch

    model, folder = theirs
    lora, pairs = load_peft(folder, MODEL)
    assert lora == Lora(5, 7.0, ("qkv", "attproj", "fc", "fcproj"))
    trainer = trainer_of(lora)
    put(trainer, pairs)
    assert relative(our_logits(trainer), their_logits(model)) <= LOGITS_TOLERANCE

    targets = torch.from_numpy(np.where(CASE.targets < 0, -100, CASE.targets).astype(int))
    logits = model(torch.from_numpy(CASE.tokens.astype(np.int64))).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    result = trainer.step(CASE.tokens, CASE.targets, 0.0)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    gradients = trainer.parameters.to_host("gradient")
    names = {"qkv": "attn.c_attn", "attproj": "attn.c_proj"}
    names |= {"fc": "mlp.c_fc", "fcproj": "mlp.c_proj"}
    found = dict(model.named_parameters())
    for name, gradient in gradients.items():
        half, target, layer = name.removeprefix("lora_").split(".")
        module = f"base_model.model.transformer.h.{layer}.{names[target]}"
        expected = found[f"{module}.lora_{half.upper()}.default.weight"].grad.numpy()
        assert relative(gradient, expected) <= GRADIENT_TOLERANCE, name
    assert len(gradients) == 2 * 4 * SHAPE.layers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False, "lora_dropout": 0.1, "task_type": "CAUSAL_LM"},
        {"rank_pattern": {"c_attn": 3, "c_fc": 3}, "alpha_pattern": {"c_attn": 9, "c_fc": 9}},
    ],
    ids=str,
)
def test_plain_adapters_of_peft_are_read_however_they_began(tmp_path, options):
    from peft import LoraConfig, get_peft_model

    settings = {"r": 3, "lora_alpha": 9, "target_modules": ["c_attn", "c_fc"]} | options
    if "rank_pattern" in options:
        settings |= {"r": 5, "lora_alpha": 7}
    model = get_peft_model(base(), LoraConfig(fan_in_fan_out=True, **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(tmp_path)
    lora, pairs = load_peft(tmp_path, MODEL)
    assert lora == Lora(3, 9.0, ("qkv", "fc"))
    trainer = trainer_of(lora)
    put(trainer, pairs)
    assert relative(our_logits(trainer), their_logits(model.eval())) <= LOGITS_TOLERANCE


@pytest.mark.parametrize("begins", ["pissa", "olora"])
def test_an_adapter_that_changed_the_base_is_refused(tmp_path, begins):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, target_modules=["c_fc"], init_lora_weights=begins, fan_in_fan_out=True)
    model = get_peft_model(base(), config)
    name = "base_model.model.transformer.h.0.mlp.c_fc.base_layer.weight"
    left, whole = model.state_dict()[name], base().state_dict()["transformer.h.0.mlp.c_fc.weight"]
    assert relative(left.numpy(), whole.numpy()) > 1e-2
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"init_lora_weights={begins}"):
        load_peft(tmp_path, MODEL)


def test_our_merged_weights_are_those_that_peft_merges(theirs):
    model, folder = theirs
    lora, pairs = load_peft(folder, MODEL)
    whole = model.merge_and_unload().state_dict()
    view = merged(Stored(), lora, pairs.__getitem__)
    for kind in ("qkvw", "attprojw", "fcw", "fcprojw", "qkvb"):
        for layer in range(SHAPE.layers):
            name = make.KINDS[kind].format(layer)
            expected = whole[name].numpy()
            expected = expected.T if kind in make.TRANSPOSED else expected
            found = np.empty(expected.shape, np.float32)
            view.read_into(f"{kind}.{layer}", found)
            # Float32 products there, float64 here; weights are about 0.2.
            assert np.abs(found - expected).max() < 1e-6, name
