"""The yardsticks are probabilities: they sum to one, and agree with a count by hand."""

import math

import numpy as np
import pytest

from stages.common.token_store import write_token_store
from stages.text.pretrain.yardsticks import bigram_bits, unigram_bits

VOCAB = 5


@pytest.fixture
def train(tmp_path):
    return write_token_store(tmp_path / "train", [[[1, 2, 1, 2], [], [3, 1]]], vocab_size=VOCAB)


def store_of(tmp_path, documents):
    return write_token_store(tmp_path / f"test{len(list(tmp_path.iterdir()))}", [documents], vocab_size=VOCAB)


def test_unigram_counts_one_more_of_each(train, tmp_path):
    bits = unigram_bits(train, store_of(tmp_path, [[1, 4]]), VOCAB, num_documents=1)
    assert bits == pytest.approx(-math.log2(4 / 11) - math.log2(1 / 11))


@pytest.mark.parametrize("before", range(VOCAB))
def test_bigram_probabilities_sum_to_one_after_every_token(train, tmp_path, before):
    documents = [[before, after] for after in range(VOCAB)]
    first = bigram_bits(train, store_of(tmp_path, [[before]]), VOCAB, bos_id=0, num_documents=1)
    total = sum(2 ** -(bigram_bits(train, store_of(tmp_path, [d]), VOCAB, bos_id=0, num_documents=1) - first) for d in documents)
    assert total == pytest.approx(1.0)


def test_bigram_is_witten_bell_by_hand(train, tmp_path):
    # 1 is followed by 2 twice (in "1 2 1 2"); 2 by 1 once. After 1: c = 2, t = 1, p(2) = 3/11.
    bits = bigram_bits(train, store_of(tmp_path, [[1, 2]]), VOCAB, bos_id=0, num_documents=1)
    start = (1 + 2 * 4 / 11) / (2 + 2)  # documents begin with 1 and with 3: t = 2
    assert bits == pytest.approx(-math.log2(start) - math.log2((2 + 3 / 11) / (2 + 1)))


def test_only_the_first_documents_of_test_are_asked_for(train, tmp_path):
    """A model scores no more than these of a large split, and all are divided by the bytes of the same documents."""
    both, first = store_of(tmp_path, [[1, 2], [3, 1, 2]]), store_of(tmp_path, [[1, 2]])
    assert unigram_bits(train, both, VOCAB, num_documents=1) == unigram_bits(train, first, VOCAB, num_documents=1)
    bits = [bigram_bits(train, store, VOCAB, bos_id=0, num_documents=1) for store in (both, first)]
    assert bits[0] == bits[1] < bigram_bits(train, both, VOCAB, bos_id=0, num_documents=2)


def test_training_tokens_are_capped_and_those_of_test_are_not(train, tmp_path, monkeypatch):
    test = store_of(tmp_path, [[1, 2, 1, 2, 1]])
    everything = bigram_bits(train, test, VOCAB, bos_id=0, num_documents=1)
    monkeypatch.setattr("stages.text.pretrain.yardsticks.MOST_TOKENS", 2)
    assert bigram_bits(train, test, VOCAB, bos_id=0, num_documents=1) > everything


def test_document_borders_are_no_bigrams(train):
    from stages.text.pretrain.yardsticks import _pairs

    assert sorted(_pairs(train, VOCAB, 0, 100).tolist()) == sorted([0 * 5 + 1, 7, 11, 7, 0 * 5 + 3, 16])
    assert np.all(_pairs(train, VOCAB, 0, 100) < VOCAB**2)
