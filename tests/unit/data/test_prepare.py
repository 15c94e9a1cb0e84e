"""From text to files of token ids, and from the files to a run."""

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from harness import tokenizers
from harness.config import command_line
from harness.data import load, read_token_file, write_token_file
from harness.data.prepare import run_prepare
from harness.data.token_report import run_inspect
from harness.data.tokenizer_file import read_tokenizer_file, write_tokenizer_file
from harness.errors import ConfigError, DataError, ResourceError
from harness.run.data import load_data

TEXT = "".join(f"line {n} of a text that repeats, and {n * n} is a number\n\n" for n in range(60))


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with text.txt, to stand in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def prepare(workplace, capsys):
    """`harness data prepare SOURCE key=value ...`: what it prints."""

    def prepare(*arguments: str) -> str:
        assert run_prepare(arguments[0], list(arguments[1:])) == 0
        return capsys.readouterr().out

    return prepare


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# What is written


def test_tiny_shakespeare_in_gpt2_has_llm_c_s_numbers_of_tokens(prepare, shared_data, gpt2_files):
    file = shared_data / "tinyshakespeare.txt"
    prepare("tinyshakespeare", f"path={file}", "tokenizer=gpt2", "out=ts")
    train = read_token_file("ts/tinyshakespeare_train.bin")
    validation = read_token_file("ts/tinyshakespeare_val.bin")
    assert (len(train), len(validation)) == (305_260, 32_768)
    # Every section of the text has one mark before it, and no character is lost or added.
    tokens = np.concatenate([validation, train])
    text = file.read_text(encoding="utf-8")
    assert tokens[0] == 50_256
    assert (tokens == 50_256).sum() == text.count("\n\n") + 1
    assert tokenizers.get("gpt2").decode(tokens).replace("<|endoftext|>", "") == text


def test_a_section_keeps_its_blank_line_and_the_last_has_none(prepare, monkeypatch, gpt2_files):
    monkeypatch.setattr("harness.data.splits.LLMC_VALIDATION_TOKENS", 4)
    Path("plays.txt").write_text("Hello world\n\nHello\n\n\nworld")
    prepare("plays.txt", "tokenizer=gpt2", "split=llmc", "out=p")
    tokens = [*read_token_file("p/plays_val.bin"), *read_token_file("p/plays_train.bin")]
    # 15496 Hello, 995 " world", 628 "\n\n", 198 "\n", 6894 world: ids as OpenAI published them.
    expected = [50256, 15496, 995, 628, 50256, 15496, 628, 50256, 198, 6894]
    assert tokens == expected


@pytest.mark.parametrize("tokenizer", ["bytes", "char", "bpe"])
def test_what_is_prepared_is_what_the_text_itself_gives(prepare, workplace, tokenizer):
    prepare("text.txt", f"tokenizer={tokenizer}")
    direct = load("text", "text.txt", tokenizer, 0.1, workplace)
    folder = f"data/text-{tokenizer}"
    assert sorted(os.listdir(folder)) == ["text_train.bin", "text_val.bin", "tokenizer.json"]
    assert read_token_file(f"{folder}/text_train.bin").tolist() == direct.train.tolist()
    assert read_token_file(f"{folder}/text_val.bin").tolist() == direct.validation.tolist()
    again = load("tokens", folder, "auto", 0.5, workplace)
    assert again.sha256 == direct.sha256
    assert again.tokenizer == direct.tokenizer
    assert again.tokenizer.to_dict()["sha256"] == direct.tokenizer.sha256


def test_the_ids_decode_to_the_text_and_bpe_is_learnt_from_the_training_part_alone(prepare):
    Path("two.txt").write_text(TEXT + "zyzyzy" * 60)
    prepare("two.txt", "tokenizer=bpe", "vocab_size=500", "validation_fraction=0.1", "out=p")
    bpe = read_tokenizer_file("p/tokenizer.json")
    train = bpe.decode(read_token_file("p/two_train.bin"))
    validation = bpe.decode(read_token_file("p/two_val.bin"))
    text = Path("two.txt").read_text()
    assert train + validation == text
    assert len(train) == int(len(text) * 0.9)
    assert "zyzy" in validation
    assert not any(b"zy" in piece for piece in bpe.pieces)


def test_a_character_is_not_cut_in_two(prepare):
    Path("wide.txt").write_text("日本🙂é" * 101, encoding="utf-8")
    prepare("wide.txt", "tokenizer=bpe", "validation_fraction=0.37", "out=p")
    bpe = read_tokenizer_file("p/tokenizer.json")
    parts = [bpe.decode(read_token_file(f"p/wide_{part}.bin")) for part in ("train", "val")]
    assert "".join(parts) == "日本🙂é" * 101


def test_end_of_text_stands_between_two_documents_and_not_at_the_cut(workplace):
    (workplace / "a.txt").write_text("abab")
    (workplace / "b.txt").write_text("abab")
    for fraction, ends in ((0.5, 0), (0.1, 1)):
        both = load("text", f"{workplace}/[ab].txt", "bpe", fraction, workplace)
        tokens = [*both.train, *both.validation]
        assert tokens.count(both.tokenizer.end_of_text) == ends


def test_shards_hold_the_same_tokens_in_order(prepare, workplace):
    prepare("text.txt", "out=one")
    prepare("text.txt", "out=many", "shard_tokens=1000")
    names = sorted(os.listdir("many"))
    assert names[:2] == ["text_train_000000.bin", "text_train_000001.bin"]
    assert names[-2:] == ["text_val.bin", "tokenizer.json"]
    assert all(len(read_token_file(f"many/{name}")) <= 1000 for name in names[:-1])
    one = load("tokens", "one", "auto", 0.1, workplace)
    assert load("tokens", "many", "auto", 0.1, workplace).sha256 == one.sha256
    by_glob = load("tokens", "many/*_train_*.bin", "auto", 0, workplace)
    assert by_glob.train.tolist() == one.train.tolist()


def test_a_saved_tokenizer_encodes_another_text(prepare):
    prepare("text.txt", "tokenizer=bpe", "out=first")
    Path("other.txt").write_text("another text\n\n" * 20)
    prepare("other.txt", "tokenizer=first/tokenizer.json", "out=second")
    assert content("second")["tokenizer.json"] == content("first")["tokenizer.json"]


def test_the_hashes_that_are_printed_are_those_of_the_files(prepare):
    printed = prepare("text.txt", "out=p")
    for name, data in content("p").items():
        assert f"p/{name}" in printed
        assert hashlib.sha256(data).hexdigest() in printed
    assert "train      python -m harness.train data=tokens data.path=p" in printed


def test_a_vocabulary_that_the_text_does_not_fill_is_said(prepare):
    printed = prepare("text.txt", "tokenizer=bpe", "vocab_size=5000", "out=p")
    size = read_tokenizer_file("p/tokenizer.json").vocab_size
    assert 257 < size < 5000
    assert f"vocabulary {size:,} (of 5,000 asked for" in printed


def test_without_validation_there_is_no_validation_file(prepare):
    prepare("text.txt", "validation_fraction=0", "out=p")
    assert sorted(os.listdir("p")) == ["text_train.bin", "tokenizer.json"]


# The folder


def test_the_same_again_changes_nothing(prepare):
    prepare("text.txt", "tokenizer=bpe")
    before, inode = content("data/text-bpe"), os.stat("data/text-bpe/text_train.bin").st_ino
    assert "there is" in prepare("text.txt", "tokenizer=bpe")
    assert content("data/text-bpe") == before
    assert os.stat("data/text-bpe/text_train.bin").st_ino == inode
    assert os.listdir("data") == ["text-bpe"], "no temporary folder is left"


def test_other_files_are_kept_unless_overwrite_is_true(prepare):
    prepare("text.txt", "out=p", "shard_tokens=1000")
    before = content("p")
    with pytest.raises(ConfigError, match="has files already") as caught:
        run_prepare("text.txt", ["out=p"])
    assert "overwrite=true" in caught.value.facts["do"]
    assert content("p") == before
    prepare("text.txt", "out=p", "overwrite=true")
    assert sorted(content("p")) == ["text_train.bin", "text_val.bin", "tokenizer.json"]


@pytest.mark.parametrize("stranger", ["thesis.tex", "model.bin", "other_train.bin", ".git"])
def test_a_folder_with_other_files_is_never_replaced(workplace, stranger):
    (workplace / "p").mkdir()
    (workplace / "p" / stranger).write_text("mine")
    with pytest.raises(ConfigError, match="other files in it"):
        run_prepare("text.txt", ["out=p", "overwrite=true"])
    assert content("p") == {stranger: b"mine"}


def test_the_folder_that_one_stands_in_and_a_file_are_refused(workplace):
    for out in (".", "..", "text.txt"):
        with pytest.raises(ConfigError, match=r"own|a file where"):
            run_prepare("text.txt", [f"out={out}"])
    assert os.listdir(workplace) == ["text.txt"]


def test_an_empty_folder_is_taken(prepare):
    os.mkdir("p")
    prepare("text.txt", "out=p")
    assert len(content("p")) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_where_one_may_not_write_is_a_resource_error(workplace):
    (workplace / "p").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="can't be written"):
        run_prepare("text.txt", ["out=p/q"])


def test_a_folder_below_a_file_is_a_resource_error(workplace):
    with pytest.raises(ResourceError, match="can't be written"):
        run_prepare("text.txt", ["out=text.txt/p"])
    assert os.listdir(workplace) == ["text.txt"]


def test_a_failure_at_any_write_leaves_all_of_it_or_none(prepare, monkeypatch):
    """fsync and rename fail in turn: the folder is as it was before, and nothing lies beside it."""
    prepare("text.txt", "out=p")
    before = content("p")
    outcomes = []
    for name in ("fsync", "replace", "rename"):
        for failing in range(1, 30):
            counter = iter(range(1, 1000))
            real = getattr(os, name)

            def fails(*arguments, counter=counter, failing=failing, real=real, **settings):
                if next(counter) == failing:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **settings)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, fails)
                try:
                    run_prepare("text.txt", ["tokenizer=char", "out=p", "overwrite=true"])
                except ResourceError:
                    outcomes.append(content("p"))
                else:
                    break
            run_prepare("text.txt", ["out=p", "overwrite=true"])
            assert sorted(os.listdir()) == ["p", "text.txt"]
    assert len(outcomes) >= 8, "each write was made to fail"
    run_prepare("text.txt", ["tokenizer=char", "out=q"])
    assert all(outcome in (before, content("q")) for outcome in outcomes)


# What is asked for


@pytest.mark.parametrize(
    ("arguments", "slug", "word"),
    [
        (["tokeniser=bpe"], "unknown-key", "tokenizer"),
        (["data.tokenizer=bpe"], "unknown-key", "tokenizer"),
        (["vocab_size=many", "tokenizer=bpe"], "setting-unreadable", "a number"),
        (["overwrite=yes"], "setting-unreadable", "true or false"),
        (["out="], "setting-unreadable", "a word"),
        (["name=../x"], "setting-unreadable", "letters"),
        (["shard_tokens=0"], "setting-unreadable", "2 GiB"),
        (["shard_tokens=2000000000"], "setting-unreadable", "2 GiB"),
        (["vocab_size=300"], "setting-without-effect", "tokenizer=bpe"),
        (["vocab_size=256", "tokenizer=bpe"], "bpe-vocabulary-out-of-range", "257"),
        (["vocab_size=70000", "tokenizer=bpe"], "bpe-vocabulary-out-of-range", "65,536"),
        (["split=head"], "split-unknown", "tail, llmc"),
        (["split=llmc", "tokenizer=bpe"], "split-misfit", "split=tail"),
        (["split=llmc"], "split-needs-end-of-text", "split=tail"),
        (["split=llmc", "tokenizer=gpt2", "validation_fraction=0.2"], "setting-without-effect", ""),
        (["validation_fraction=1"], "validation-fraction-out-of-range", "validation_fraction=0.1"),
        (["validation_fraction=nan"], "validation-fraction-out-of-range", "below 1"),
        (["tokenizer=gtp2"], "tokenizer-unknown", "gpt2"),
        (["path=text.txt"], "two-sources", "tinyshakespeare"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_nothing_is_written(
    workplace, arguments, slug, word
):
    with pytest.raises(ConfigError) as caught:
        run_prepare("text.txt", arguments)
    assert caught.value.slug == slug
    assert word in str(caught.value)
    assert os.listdir(workplace) == ["text.txt"]


@pytest.mark.parametrize(
    ("data", "arguments", "slug"),
    [
        (b"", ["tokenizer=bytes"], "data-empty"),
        (b"", ["tokenizer=bpe"], "data-empty"),
        (b"a", ["tokenizer=bytes"], "text-too-short"),
        (b"a", ["tokenizer=bpe"], "bpe-without-text"),
        (b"caf\xe9", ["tokenizer=bpe"], "text-not-utf8"),
        (b"caf\xe9", ["tokenizer=char"], "text-not-utf8"),
        (b"caf\xe9", ["tokenizer=gpt2"], "text-not-utf8"),
        (b"caf\xe9", ["tokenizer=gpt2", "split=llmc"], "text-not-utf8"),
        (b"cafe", ["tokenizer=gpt2", "split=llmc"], "split-leaves-nothing"),
        (b"cafe", ["tokenizer=none.json"], "tokenizer-file-missing"),
    ],
)
def test_a_text_that_will_not_do_is_refused_and_nothing_is_written(
    workplace, gpt2_files, data, arguments, slug
):
    (workplace / "text.txt").write_bytes(data)
    with pytest.raises(DataError) as caught:
        run_prepare("text.txt", arguments)
    assert caught.value.slug == slug
    assert os.listdir(workplace) == ["text.txt"]


def test_a_missing_file_or_an_empty_folder_is_refused(workplace):
    (workplace / "empty").mkdir()
    for source, slug in (("none.txt", "data-file-missing"), ("empty", "data-folder-empty")):
        with pytest.raises(DataError) as caught:
            run_prepare(source, [])
        assert caught.value.slug == slug


def test_more_characters_than_a_uint16_can_number_are_refused(workplace):
    points = [p for p in range(32, 0x12000) if not 0xD800 <= p < 0xE000]
    (workplace / "text.txt").write_text("".join(map(chr, points)), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        run_prepare("text.txt", ["tokenizer=char"])
    assert caught.value.slug == "vocabulary-too-large"
    assert "65,536" in caught.value.facts["expected"]


# Which tokenizer belongs to the files


def test_files_without_a_tokenizer_beside_them_are_gpt2_s_as_llm_c_s_are(workplace):
    write_token_file("a.bin", [50_256] * 20)
    assert load("tokens", "a.bin", "auto", 0.1, workplace).tokenizer == tokenizers.get("gpt2")


def test_files_of_two_tokenizers_are_not_mixed(prepare, workplace):
    prepare("text.txt", "tokenizer=char")
    prepare("text.txt", "tokenizer=bytes")
    with pytest.raises(DataError, match="different tokenizers") as caught:
        load("tokens", "data", "auto", 0.1, workplace)
    assert "text-char" in caught.value.facts["found"]


def test_a_token_that_the_tokenizer_beside_it_does_not_know_is_refused(prepare, workplace):
    prepare("text.txt", "tokenizer=char", "out=p")
    write_token_file("p/text_val.bin", [200])
    with pytest.raises(DataError, match="token id 200 is outside"):
        load("tokens", "p", "auto", 0.1, workplace)


def test_a_text_whose_name_has_val_in_it_is_still_split(prepare, workplace):
    Path("my_value.txt").write_text(TEXT)
    prepare("my_value.txt", "out=p")
    assert len(load("tokens", "p", "auto", 0.5, workplace).validation) == len(TEXT) - int(
        len(TEXT) * 0.9
    )


def test_a_text_can_be_read_with_a_saved_tokenizer(workplace):
    bpe = tokenizers.train_bpe([TEXT], 300)
    write_tokenizer_file("t.json", bpe)
    assert load("text", "text.txt", "t.json", 0.1, workplace).tokenizer == bpe
    assert load("text", "text.txt", "bpe", 0.1, workplace, 270).tokenizer.vocab_size == 270


# What is in a file


@pytest.fixture
def inspect(capsys):
    def inspect(path: str | Path) -> list[str]:
        assert run_inspect(path) == 0
        return capsys.readouterr().out.splitlines()

    return inspect


def test_a_token_file_is_told_with_its_beginning_decoded(prepare, inspect):
    prepare("text.txt", "tokenizer=bpe", "out=p")
    lines = inspect("p/text_train.bin")
    ids = read_token_file("p/text_train.bin")
    said = dict(line.split(maxsplit=1) for line in lines[1:])
    assert lines[0] == "p/text_train.bin: token data in llm.c's format, version 1"
    assert said["tokens"] == f"{len(ids):,}"
    assert said["distinct"] == f"{len(set(ids.tolist())):,} ids"
    assert said["ids"] == f"{min(ids)} to {max(ids)}"
    assert said["sha256"] == hashlib.sha256(Path("p/text_train.bin").read_bytes()).hexdigest()
    assert "tokenizer.json beside it" in said["tokenizer"]
    assert said["text"].startswith("'line 0 of a text")
    assert said["first"].split()[1:4] == [str(id) for id in ids[:3]]


def test_ids_that_the_tokenizer_beside_them_did_not_make_are_told(prepare, inspect):
    prepare("text.txt", "tokenizer=bytes", "out=p")
    write_token_file("p/text_val.bin", [1, 2, 999])
    assert any("1 tokens are not in this vocabulary" in line for line in inspect("p/text_val.bin"))


def test_without_tiktoken_s_files_the_rest_is_told(workplace, inspect, monkeypatch):
    import tiktoken

    def no_files(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", no_files)
    write_token_file("a.bin", [50_256, 7])
    lines = inspect("a.bin")
    assert any("there is no tokenizer.json beside it" in line for line in lines)
    assert lines[-1].split(maxsplit=1)[1].startswith("not shown")


def test_control_characters_do_not_reach_the_terminal(workplace, inspect):
    write_token_file("a.bin", list(b"\x1b[31mred\x07"))
    write_tokenizer_file("tokenizer.json", tokenizers.get("bytes"))
    assert "\x1b" not in "".join(inspect("a.bin"))


def test_a_file_without_tokens_is_told(workplace, inspect):
    write_token_file("a.bin", [])
    assert "tokens      0" in inspect("a.bin")


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ([20240326, 3, 64, 50257, 2, 2, 8, 50304], ["a model", "layers          2"]),
        ([20240327, 2, 4, 64], ["a debug state", "T               64"]),
        ([20240328, 2, 50257, 50256], ["a tokenizer", "end of text     50,256"]),
        ([20240522, 1, 10042, 900], ["a multiple-choice evaluation", "10,042"]),
        ([20240527, 1, 8, 0], ["optimizer state", "processes       8"]),
    ],
)
def test_llm_c_s_other_files_are_recognised(workplace, inspect, slots, words):
    Path("x.bin").write_bytes(struct.pack("<256i", *slots, *[0] * (256 - len(slots))) + b"\0" * 99)
    text = "\n".join(inspect("x.bin"))
    assert all(word in text for word in words)


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (TEXT.encode(), "token-file-is-text"),
        ("é".encode() * 700, "token-file-is-text"),
        (np.arange(5000, dtype="<u2").tobytes(), "token-file-unknown"),
        (b"", "token-file-unknown"),
        (struct.pack("<256i", 20240520, 1, 9, *[0] * 253), "token-file-size"),
        (struct.pack("<256i", 20240520, 2, 0, *[0] * 253), "token-file-version"),
    ],
    ids=["text", "text cut in a character", "nanoGPT's", "empty", "truncated", "version"],
)
def test_what_is_no_file_of_llm_c_s_is_a_data_error(workplace, data, slug):
    Path("x.bin").write_bytes(data)
    with pytest.raises(DataError) as caught:
        run_inspect("x.bin")
    assert caught.value.slug == slug


def test_the_tokenizer_file_states_the_hash_that_a_run_records(prepare, workplace):
    prepare("text.txt", "tokenizer=bpe", "out=p")
    stated = json.loads(Path("p/tokenizer.json").read_text())["sha256"]
    assert load("tokens", "p", "auto", 0.1, workplace).tokenizer.to_dict()["sha256"] == stated


# As a run is told to


def test_a_run_finds_the_tokenizer_beside_its_files(prepare, workplace):
    prepare("text.txt", "tokenizer=bpe", "vocab_size=300", "out=p")
    run = command_line.compose(["model=micro", "data=tokens", "data.path=p"])
    assert load_data(run).tokenizer == read_tokenizer_file("p/tokenizer.json")


def test_a_run_learns_byte_pairs_from_its_text(workplace):
    keys = ["model=micro", "data=text", "data.path=text.txt", "data.tokenizer=bpe"]
    run = command_line.compose([*keys, "data.bpe_vocab_size=300"])
    assert load_data(run).tokenizer.vocab_size == 300
    with pytest.raises(ConfigError, match="no byte-pair vocabulary has 200 ids"):
        load_data(command_line.compose([*keys, "data.bpe_vocab_size=200"]))
