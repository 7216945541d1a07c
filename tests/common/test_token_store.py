"""The token store: what is written is read back, bounds are checked, half a store is refused."""

import numpy as np
import pytest

from pipeline.errors import Damaged, DataError
from stages.common.token_store import TokenStore, write_token_store

DOCUMENTS = [[[1, 2, 3], []], [[299], [0, 0, 7, 8]]]


def test_documents_come_back_as_written(tmp_path):
    store = write_token_store(tmp_path / "train", DOCUMENTS, vocab_size=300, identity={"corpus": "abc"})
    assert [store.document(i).tolist() for i in range(store.num_documents)] == [[1, 2, 3], [], [299], [0, 0, 7, 8]]
    assert (store.num_tokens, store.lengths.tolist()) == (8, [3, 0, 1, 4])
    assert TokenStore(tmp_path / "train").description["identity"] == {"corpus": "abc"}


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_the_smallest_sufficient_integer_is_used(tmp_path, vocab_size, dtype):
    store = write_token_store(tmp_path / "s", [[[vocab_size - 1]]], vocab_size=vocab_size)
    assert store.tokens.dtype == dtype
    assert store.document(0).tolist() == [vocab_size - 1]


@pytest.mark.parametrize("token", [300, -1])
def test_an_id_outside_the_vocabulary_names_its_document(tmp_path, token):
    with pytest.raises(DataError, match=f"document 3: token id {token} is outside the vocabulary of 300"):
        write_token_store(tmp_path / "s", [[[1], [2], [3]], [[4, token]]], vocab_size=300)
    assert not (tmp_path / "s").exists()


def test_a_split_without_a_token_is_refused(tmp_path):
    with pytest.raises(DataError, match="not one token"):
        write_token_store(tmp_path / "s", [[[], []]], vocab_size=300)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "store.json"])
def test_a_truncated_store_is_refused(tmp_path, name):
    write_token_store(tmp_path / "s", DOCUMENTS, vocab_size=300)
    content = (tmp_path / "s" / name).read_bytes()
    (tmp_path / "s" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(Damaged):
        TokenStore(tmp_path / "s")


def test_a_leftover_of_a_killed_build_is_replaced(tmp_path):
    (tmp_path / ".s.partial").mkdir()
    (tmp_path / ".s.partial" / "tokens.bin").write_bytes(b"half")
    assert write_token_store(tmp_path / "s", DOCUMENTS, vocab_size=300).num_tokens == 8
    assert not (tmp_path / ".s.partial").exists()
