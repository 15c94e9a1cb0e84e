"""`harness import`, `export` and `adapter` as a user types them."""

import numpy as np
import pytest

from harness.cli import main
from harness.interchange.initial_model import InitialModel
from harness.interchange.llmc.model import write_llmc_model
from harness.interchange.llmc.tokenizer import read_llmc_tokenizer
from harness.interchange.opening import open_model
from harness.models.gpt2 import GPT2
from harness.models.kinds import tensor_shapes

MICRO = GPT2(layers=1, heads=2, channels=32, positions=16, vocab_size=256, init="uniform")
LORA = ["adapter=lora", "adapter.rank=2", "adapter.targets=[q,v,fc]", "optimizer.lr=0.05"]


def tensor(path, name):
    with open_model(path) as source:
        out = np.empty(tensor_shapes(source.model)[name], np.float32)
        source.read_into(name, out)
        return out


@pytest.fixture
def base(workplace):
    write_llmc_model(workplace / "base.bin", InitialModel(MICRO))
    return "base.bin"


@pytest.fixture
def tuned(train, base):
    """A run that trained an adapter beside base.bin."""
    settings = [
        *("data=text", "data.path=text.txt", "steps=5", "batch_size=2", "sample.every=0"),
        *("baselines=false", "validate_every=0", "checkpoint_every=0", "schedule=constant"),
    ]
    outcome = train(*settings, f"model_from={base}", *LORA, small=False)
    assert outcome.code == 0, outcome.err
    assert "of 16,480 parameters" not in outcome.out
    return outcome.folder


def test_an_adapter_leaves_alone_and_comes_back_into_its_base(tuned, base):
    assert main(["export", "peft", str(tuned), "alone"]) == 0
    assert main(["adapter", "merge", base, "alone", "merged"]) == 0
    assert main(["export", "hf", str(tuned), "sum"]) == 0
    for name in ("qkvw.0", "fcw.0", "attprojw.0"):
        found = tensor("merged", name)
        assert found.tobytes() == tensor("sum", name).tobytes()
        assert np.array_equal(found, tensor(base, name)) == (name == "attprojw.0")
    # k is no target: its rows are the base's.
    C = MICRO.channels
    assert np.array_equal(tensor("merged", "qkvw.0")[C : 2 * C], tensor(base, "qkvw.0")[C : 2 * C])


def test_what_was_merged_can_be_taken_out_again_to_a_unit_in_the_last_place(tuned, base):
    adapter = str(tuned / "adapter")
    assert main(["adapter", "merge", base, adapter, "merged"]) == 0
    assert main(["adapter", "unmerge", "merged", adapter, "again"]) == 0
    for name in tensor_shapes(MICRO):
        before, merged, after = (tensor(path, name) for path in (base, "merged", "again"))
        unit = np.spacing(np.abs(before) + np.abs(merged - before))
        assert (np.abs(after - before) <= unit).all(), name
        assert np.array_equal(after, before) or name in ("qkvw.0", "fcw.0")


def test_generating_with_an_adapter_is_generating_with_the_merged_model(tuned, base, capfd):
    from harness import generate

    texts = []
    for settings in (
        [f"model_from={base}", f"adapter_from={tuned / 'adapter'}"],
        ["model_from=merged"],
    ):
        if "merged" in settings[0]:
            assert main(["adapter", "merge", base, str(tuned / "adapter"), "merged"]) == 0
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            words = [*settings, "tokenizer=bytes", "prompt=The quick", "length=12", "temperature=0"]
            patch.setattr("sys.argv", ["generate", *words])
            assert generate.main() == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("The quick")


def test_the_tokenizer_goes_to_llmc_beside_the_model(train):
    run = train().folder
    assert main(["export", "llmc", str(run), "out.bin"]) == 0
    pieces = read_llmc_tokenizer("out_tokenizer.bin").pieces
    assert list(pieces) == [bytes([byte]) for byte in range(256)]


def test_a_trained_tokenizer_comes_back_from_llmc_and_can_encode(train, workplace):
    run = train("data.tokenizer=bpe", "data.bpe_vocab_size=280").folder
    assert main(["export", "llmc", str(run), "out.bin"]) == 0
    with open_model(run) as before, open_model("out.bin") as after:
        assert before.tokenizer.name == "bpe"
        assert after.tokenizer.sha256 == before.tokenizer.sha256
        text = "The lazy dog"
        assert list(after.tokenizer.encode(text)) == list(before.tokenizer.encode(text))


def test_a_run_in_the_place_of_its_adapter_is_told_where_that_is(tuned, base, capfd):
    assert main(["adapter", "merge", base, str(tuned), "new"]) == 4
    assert f"{tuned / 'adapter'}   the one that the run trained" in capfd.readouterr().err


def test_an_adapter_is_never_added_twice(tuned, train, capfd):
    adapter = str(tuned / "adapter")
    assert main(["adapter", "merge", str(tuned), adapter, "twice"]) == 2
    assert "adapter-twice" in capfd.readouterr().err
    outcome = train(*("data=text", "data.path=text.txt", f"model_from={tuned}", *LORA), small=False)
    assert outcome.code == 2 and "adapter-twice" in outcome.err
    assert len(outcome.folders) == 1


@pytest.mark.parametrize(
    "words, code, slug",
    [
        (["export", "llmc", "base.bin", "taken.bin"], 4, "model-exists"),
        (["export", "hf", "base.bin", "taken"], 2, "huggingface-target-taken"),
        (["import", "llmc", "base.bin", "taken"], 4, "model-exists"),
        (["import", "hf", "base.bin", "new"], 2, "import-of-another-kind"),
        (["import", "llmc", "text.txt", "new"], 4, "llmc-file-unknown"),
        (["export", "peft", "base.bin", "new"], 4, "run-without-checkpoint"),
        (["export", "hf", "base.bin", "new", "--state"], 2, "export-option"),
        (["export", "peft", "base.bin", "new", "--dtype", "float32"], 2, "export-option"),
        (["export", "hf", "nowhere", "new"], 4, "model-missing"),
        (["export", "hf", "auto", "new"], 4, "no-run-to-take-a-model-from"),
        (["adapter", "merge", "base.bin", "taken", "new"], 4, "adapter-missing"),
    ],
)
def test_what_cannot_be_done_is_named_and_nothing_is_touched(
    base, workplace, capfd, words, code, slug
):
    (workplace / "taken.bin").write_text("years of work")
    (workplace / "taken").mkdir()
    (workplace / "taken" / "thesis.txt").write_text("years of work")
    before = sorted(path for path in workplace.rglob("*"))
    assert main(words) == code
    assert slug in capfd.readouterr().err
    assert sorted(path for path in workplace.rglob("*")) == before
    assert (workplace / "taken.bin").read_text() == "years of work"


def test_an_existing_set_of_the_same_step_is_left_alone(train, capfd):
    run = str(train().folder)
    assert main(["export", "llmc", run, "set", "--state"]) == 0
    assert main(["export", "llmc", run, "set", "--state"]) == 4
    assert "model-exists" in capfd.readouterr().err
