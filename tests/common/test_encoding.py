"""Encoding of data: special tokens are text, nothing is added, and settings of the tokenizer neither leak in nor out."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.errors import DataError
from stages.common import encoding
from stages.common.encoding import boundary_ids, byte_alphabet, count_bytes, encode_texts, special_ids, token_bytes

HARD = [
    "",
    "plain",
    "caf\u00e9 cafe\u0301",
    "\u4f60\u597d",
    "\U0001f469\u200d\U0001f4bb",
    "\u05e9\u05dc\u05d5\u05dd",
    "a\x00b\r\n\tc",
    "\ufeff",
]


def tiny(**settings) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["plain words and plain numbers 1234"] * 9, trainer)
    names = {"bos_token": special[0], "eos_token": special[0], "pad_token": special[1]} | settings
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def test_text_that_looks_like_a_special_token_stays_text():
    tokenizer = tiny()
    (row,) = encode_texts(tokenizer, ["a <|endoftext|> b <|pad|>"])
    assert special_ids(tokenizer) == {0, 1}
    assert not special_ids(tokenizer) & set(row)
    assert tokenizer.decode(row) == "a <|endoftext|> b <|pad|>"
    assert 0 in tokenizer.encode("a <|endoftext|> b")  # what the tokenizer does by itself


def test_hard_unicode_comes_back_exactly():
    tokenizer = tiny()
    assert [tokenizer.decode(row) for row in encode_texts(tokenizer, HARD)] == HARD


def test_rows_keep_their_order_over_batches(monkeypatch):
    tokenizer, texts = tiny(), [f"number {value}" for value in range(25)]
    expected = encode_texts(tokenizer, texts)
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 70)
    assert [stop - start for start, stop in encoding._batches(texts)] == [8, 8, 7, 2]
    assert encode_texts(tokenizer, texts) == expected
    assert [tokenizer.decode(row) for row in expected] == texts


def test_padding_and_truncation_of_an_earlier_call_neither_leak_in_nor_get_lost():
    tokenizer = tiny()
    before = encode_texts(tokenizer, ["plain words", "x"])
    tokenizer(["plain words", "x"], padding=True, truncation=True, max_length=2)
    settings = tokenizer.backend_tokenizer.to_str()
    assert tokenizer.backend_tokenizer.padding is not None
    assert encode_texts(tokenizer, ["plain words", "x"]) == before
    assert tokenizer.backend_tokenizer.to_str() == settings
    assert tokenizer.backend_tokenizer.encode_special_tokens is False


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("ok \ud83d end", "text 3 has a lone surrogate U\\+D83D at character 3"),
        (None, "text 3 is NoneType, not a string"),
        (7, "text 3 is int, not a string"),
    ],
)
def test_a_text_that_cannot_be_encoded_is_named(bad, message, monkeypatch):
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 2)
    tokenizer = tiny()
    with pytest.raises(DataError, match=message):
        encode_texts(tokenizer, ["a", "b", "c", bad])
    assert tokenizer.backend_tokenizer.encode_special_tokens is False


def test_token_bytes_join_to_the_bytes_of_the_text():
    tokenizer = tiny()
    table = token_bytes(tokenizer)
    assert sorted(table[2:258]) == [bytes([byte]) for byte in range(256)]
    assert table[0] == table[1] == b""
    for text, row in zip(HARD, encode_texts(tokenizer, HARD), strict=True):
        assert b"".join(table[index] for index in row) == text.encode()
    assert count_bytes(HARD).tolist() == [len(text.encode()) for text in HARD]


def test_the_byte_alphabet_is_the_one_of_tokenizers():
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_a_tokenizer_that_is_not_byte_level_is_refused():
    backend = Tokenizer(models.WordLevel({"hello world": 0, "\u4f60": 1}, unk_token="hello world"))
    with pytest.raises(DataError, match=r"token 0 .* is not byte-level"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_document_opens_with_bos_or_else_with_eos_and_needs_an_end():
    assert boundary_ids(tiny()) == (0, 0)
    assert boundary_ids(tiny(bos_token=None, eos_token="<|pad|>")) == (1, 1)
    with pytest.raises(DataError, match="no end token"):
        boundary_ids(tiny(eos_token=None))
