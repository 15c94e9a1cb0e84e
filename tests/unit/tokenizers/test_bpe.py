"""Byte pairs learnt from a text: tiktoken and Hugging Face's library, as two referees of each other."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import tokenizers
from harness.data.tokenizer_file import read_tokenizer_file, write_tokenizer_file
from harness.errors import ConfigError, DataError
from harness.tokenizers.bpe import END_OF_TEXT, BpeTokenizer
from harness.tokenizers.byte_alphabet import in_bytes, printable

TEXT = (
    """Before we proceed any further, hear me speak. We'll hear you; they've heard him, I'm sure.

\tdef hear(speech, times=12):  # 100 and 1000, then 1001
        return [speech + "!!" for _ in range(times)]

Größe, größer, am größten.  Привет, привет!  日本語の日本語。  🙂🙂 naïve café\u00a0café
"""
    * 3
)

OTHER_TEXTS = [
    "",
    " ",
    "  hear   me\n\n\n  speak\t\t",
    "it's they'll we've I'd you're 'tis 'S 'LL",
    "x = 3.14159e-10; y=[1,2,,3]  #!?!?",
    "größe GRÖSSE Grösse ß привет日本🙂\u200d🙂e\u0301",
    "<|endoftext|> and <|endoftext|>",
    "\0\x01\x7f\r\n\r\n\u2028\u3000 \ufeff",
    "hear" * 300 + " " * 300 + "!" * 300,
    TEXT[::-1],
]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return tokenizers.train_bpe([TEXT], 400)


@pytest.fixture(scope="module")
def hugging_face(bpe):
    """The same pieces and merges in Hugging Face's own encoder, learnt there once more."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=399, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator([TEXT], trainer)
    return learner


def test_every_byte_is_a_piece_and_the_end_of_text_is_the_last(bpe):
    assert bpe.vocab_size == len(bpe.pieces) == 400
    assert sorted(bpe.pieces[:256]) == [bytes([byte]) for byte in range(256)]
    assert bpe.end_of_text == 399
    assert bpe.pieces[399] == END_OF_TEXT == b"<|endoftext|>"
    assert b" hear" in bpe.pieces, "a frequent word is one piece"
    assert len(bpe.encode(TEXT)) < len(TEXT.encode()) / 2


@pytest.mark.parametrize("text", [TEXT, *OTHER_TEXTS], ids=lambda text: repr(text[:12]))
def test_tiktoken_and_hugging_face_give_the_same_ids(bpe, hugging_face, text):
    assert bpe.encode(text).tolist() == hugging_face.encode(text).ids


ALPHABET = "abehrs 'HIXß\n\t,.!1290日я🙂é"


@settings(max_examples=150)
@given(st.text(alphabet=ALPHABET, max_size=60))
def test_they_agree_on_any_order_of_characters(bpe, hugging_face, text):
    assert bpe.encode(text).tolist() == hugging_face.encode(text).ids


@settings(max_examples=150)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
@example("<|endoftext|>")
@example(TEXT)
def test_what_is_encoded_decodes_to_itself(bpe, text):
    ids = bpe.encode(text)
    assert ids.dtype == np.int32
    assert bpe.end_of_text not in ids, "special text is not parsed"
    assert bpe.decode(ids) == text
    assert bpe.encode(text.encode()).tolist() == ids.tolist()


def test_the_same_text_gives_the_same_pieces(bpe):
    assert tokenizers.train_bpe([TEXT.encode()], 400) == bpe
    assert tokenizers.train_bpe([TEXT], 400).sha256 == bpe.sha256
    assert tokenizers.train_bpe([TEXT[::-1]], 400) != bpe


def test_the_first_piece_learnt_is_the_most_frequent_pair():
    bpe = tokenizers.train_bpe(["ababab cab"], 300)
    assert bpe.pieces[256:259] == (b"ab", b"abab", END_OF_TEXT)


def test_no_piece_reaches_from_one_text_into_the_next():
    assert b"xy" not in tokenizers.train_bpe(["x", "y"] * 5, 300).pieces
    assert b"xy" in tokenizers.train_bpe(["xy"] * 5, 300).pieces


def test_a_text_without_more_pairs_that_repeat_gives_a_smaller_vocabulary():
    assert tokenizers.train_bpe(["abc"], 2000).vocab_size == 257
    assert tokenizers.train_bpe(["abc abc"], 2000).vocab_size == 259  # ab, abc


def test_it_is_a_tiktoken_encoding(bpe):
    import tiktoken

    assert isinstance(bpe.encoding, tiktoken.Encoding)
    assert bpe.encoding.n_vocab == 400
    assert bpe.encoding.eot_token == 399
    assert bpe.encoding.encode("<|endoftext|>", allowed_special="all") == [399]
    assert bpe.encoding.decode(bpe.encode(TEXT).tolist()) == TEXT


def test_half_a_character_decodes_to_a_replacement(bpe):
    half = bpe.pieces.index("🙂".encode()[:1])
    assert bpe.decode([half]) == "\N{REPLACEMENT CHARACTER}"
    assert bpe.decode([]) == ""
    assert bpe.decode([399]) == "<|endoftext|>"


@pytest.mark.parametrize("id", [-1, 400])
def test_an_id_outside_the_vocabulary_is_refused(bpe, id):
    with pytest.raises(DataError, match=f"token id {id} is outside"):
        bpe.decode([id])


def test_text_that_is_not_utf8_is_refused_with_its_place(bpe):
    for use in (bpe.encode, lambda data: tokenizers.train_bpe([data])):
        with pytest.raises(DataError, match="not UTF-8") as caught:
            use(b"caf\xe9")
        assert caught.value.facts["found"].startswith("byte 0xE9 at offset 3")


def test_a_run_of_blanks_that_tiktoken_gives_up_on_is_a_data_error(bpe, capfd):
    with pytest.raises(DataError, match="could not encode") as caught:
        bpe.encode(" " * 1_000_000 + "x", where="a.txt")
    assert caught.value.facts["where"] == "a.txt"


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 65_537])
def test_a_vocabulary_that_cannot_be_is_refused(vocab_size):
    with pytest.raises(ConfigError, match="no byte-pair vocabulary has") as caught:
        tokenizers.train_bpe([TEXT], vocab_size)
    assert "257" in caught.value.facts["expected"]


@pytest.mark.parametrize("texts", [[], [""], [b"", ""]])
def test_no_text_is_refused(texts):
    with pytest.raises(DataError, match="an empty text"):
        tokenizers.train_bpe(texts)


def test_bytes_are_printable_as_in_gpt2_s_vocabulary():
    assert printable(b" the\n") == "ĠtheĊ"  # as in OpenAI's encoder.json
    assert printable(b"\0\x7f\xad\xff") == "Āġ" + "\u0143" + "ÿ"
    everything = bytes(range(256))
    assert len(set(printable(everything))) == 256
    assert printable(everything).isprintable()
    assert in_bytes(printable(everything)) == everything


def test_the_bytes_characters_are_those_of_hugging_face():
    from tokenizers import pre_tokenizers

    assert set(printable(bytes(range(256)))) == set(pre_tokenizers.ByteLevel.alphabet())


# The file


@pytest.fixture
def file(bpe, tmp_path):
    write_tokenizer_file(tmp_path / "tokenizer.json", bpe)
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize("name", tokenizers.NAMES)
def test_every_tokenizer_comes_back_from_its_file(name, tmp_path):
    tokenizer = tokenizers.get(name, TEXT, 300)
    write_tokenizer_file(tmp_path / "tokenizer.json", tokenizer)
    assert read_tokenizer_file(tmp_path / "tokenizer.json") == tokenizer
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_file_is_json_that_other_programs_can_read(file, bpe):
    record = json.loads(file.read_text(encoding="utf-8"))
    assert list(record) == ["format", "version", "name", "vocab_size", "sha256", "pieces"]
    assert record["pieces"][bpe.pieces.index(b" hear")] == "Ġhear"
    assert record["sha256"] == bpe.sha256
    assert "Ġhear" in file.read_text(encoding="utf-8"), "legible, not escaped"


CHANGES = {
    "another format": lambda r: r.update(format="tiktoken"),
    "another version": lambda r: r.update(version=2),
    "another name": lambda r: r.update(name="wordpiece"),
    "another hash": lambda r: r.update(sha256="0" * 64),
    "another size": lambda r: r.update(vocab_size=401),
    "no size": lambda r: r.pop("vocab_size"),
    "a huge size": lambda r: r.update(vocab_size=10**30),
    "another tokenizer": lambda r: r.update(name="char"),
    "a size for numbers": lambda r: r.update(name="numbers", vocab_size=2**24),
    "no pieces": lambda r: r.pop("pieces"),
    "pieces that are no list": lambda r: r.update(pieces="abc"),
    "a piece that is missing": lambda r: r["pieces"].pop(300),
    "a byte that is missing": lambda r: r["pieces"].pop(7),
    "a piece that is twice there": lambda r: r["pieces"].__setitem__(300, r["pieces"][301]),
    "an empty piece": lambda r: r["pieces"].__setitem__(300, ""),
    "a piece that is a number": lambda r: r["pieces"].__setitem__(300, 5),
    "a piece that is too long": lambda r: r["pieces"].__setitem__(300, "a" * 256),
    "a piece with a blank": lambda r: r["pieces"].__setitem__(300, "a b"),
    "no end of text": lambda r: r["pieces"].__setitem__(-1, "Ġend"),
    "too many pieces": lambda r: r["pieces"].extend(["a"] * 65_536),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_one_data_error(file, change):
    record = json.loads(file.read_text(encoding="utf-8"))
    change(record)
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match="not a whole tokenizer file") as caught:
        read_tokenizer_file(file)
    assert str(file) in caught.value.headline
    assert len(str(caught.value)) < 1500, "the error does not print the file"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"[" * 200_000, b"9" * 10_000),
        *(b'{"format": "harness tokenizer"}', b"{}" + b" " * (4 << 20)),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_tokenizer_s_file_is_a_data_error(tmp_path, data):
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(DataError, match="not a whole tokenizer file"):
        read_tokenizer_file(tmp_path / "t.json")


def test_hugging_face_s_file_is_recognised(tmp_path, hugging_face):
    hugging_face.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError) as caught:
        read_tokenizer_file(tmp_path / "tokenizer.json")
    assert "Hugging Face" in caught.value.facts["found"]


def test_every_cut_of_the_file_is_a_data_error(file):
    data = file.read_bytes()
    for size in range(0, len(data) - 1, 97):  # without the last newline it is still whole
        file.write_bytes(data[:size])
        with pytest.raises(DataError):
            read_tokenizer_file(file)


def test_a_missing_file_or_a_folder_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no such tokenizer file"):
        read_tokenizer_file(tmp_path / "none.json")
    with pytest.raises(DataError, match="a folder"):
        read_tokenizer_file(tmp_path)


@pytest.mark.parametrize("blanks", [True, False])
def test_a_text_that_is_one_word_is_learnt_from_in_seconds(blanks):
    import time

    letters = np.random.default_rng(0).integers(97, 123, 200_000, np.uint8).tobytes().decode()
    text = "a" * 300_000 + (" " if blanks else "") + letters
    begin = time.perf_counter()
    bpe = tokenizers.train_bpe([text], 2000)
    assert time.perf_counter() - begin < 7  # 0.6 s; 65 s with words of any length
    assert bpe.vocab_size == 2000
    part = text[299_000:302_000]
    assert bpe.decode(bpe.encode(part)) == part


def test_words_as_people_write_them_give_the_pieces_of_the_library_alone(hugging_face, bpe):
    # The fixture learns without stretches, and TEXT has no word of more than 1,000 bytes.
    ids = hugging_face.get_vocab()
    theirs = [in_bytes(piece) for piece in sorted(ids, key=ids.__getitem__)]
    assert list(bpe.pieces[:-1]) == theirs


def test_two_thousand_pieces_of_a_megabyte_take_less_than_a_minute(shared_data):
    import time

    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    begin = time.perf_counter()
    bpe = tokenizers.train_bpe([text], 2000)
    assert time.perf_counter() - begin < 60
    assert bpe.vocab_size == 2000
    assert bpe.decode(bpe.encode(text)) == text
