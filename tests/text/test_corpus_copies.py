"""Near-duplicate search and the overlap gate against brute force."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from stages.text.corpus.near_duplicates import BANDS, ROWS, BandFile, band_keys, jaccard, near_duplicates, shingles
from stages.text.corpus.overlap import Probe, overlaps
from stages.text.corpus.shingles import sequences, whole, word_hashes
from stages.text.corpus.spool import Spool

THRESHOLD = 0.8


def family(draw: random.Random, name: str) -> list[str]:
    """Return a text of 80 words and copies of it with 0 to 40 words changed."""
    words = [f"{name}{i}" for i in range(80)]
    copies = []
    for changes in (0, 1, 2, 5, 10, 40):
        copy = list(words)
        for place in draw.sample(range(80), changes):
            copy[place] = f"other{draw.randrange(10**6)}"
        copies.append(" ".join(copy))
    return copies


def word_sets(text: str) -> set[tuple[str, ...]]:
    """The five-word sequences, spelled out."""
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def true_jaccard(first: str, second: str) -> float:
    one, other = word_sets(first), word_sets(second)
    return len(one & other) / len(one | other)


def test_the_hashed_jaccard_index_is_the_true_one():
    texts = family(random.Random(0), "w")
    for first, second in combinations(texts, 2):
        assert jaccard(shingles(first), shingles(second)) == pytest.approx(true_jaccard(first, second))


def test_what_is_dropped_is_what_comparing_every_pair_drops(tmp_path: Path):
    draw = random.Random(1)
    texts = [text for number in range(12) for text in family(draw, f"f{number}x")]
    draw.shuffle(texts)
    expected: list[bool] = []
    for rank, text in enumerate(texts):
        kept = (texts[other] for other in range(rank) if not expected[other])
        expected.append(any(true_jaccard(text, other) >= THRESHOLD for other in kept))
    found = near_duplicates(BandFile(tmp_path / "bands", texts), texts.__getitem__, THRESHOLD)
    assert 12 < sum(expected) < 60
    assert found.tolist() == expected


def test_documents_meet_in_a_bucket_as_often_as_theory_says():
    draw = random.Random(2)
    met, wanted = 0, 0.0
    for number in range(150):
        base = family(draw, f"t{number}x")
        first, second = base[0], base[3]
        similarity = true_jaccard(first, second)
        wanted += 1 - (1 - similarity**ROWS) ** BANDS
        met += bool(np.any(band_keys(first) == band_keys(second)))
    assert met / 150 == pytest.approx(wanted / 150, abs=0.1)
    assert 0.1 < wanted / 150 < 0.95  # a similarity at which the test could fail either way


def test_texts_without_words_are_never_copies_of_each_other(tmp_path: Path):
    texts = ["...", "!!!", "?", "--- ---"]
    assert not near_duplicates(BandFile(tmp_path / "bands", texts), texts.__getitem__, THRESHOLD).any()


def test_short_texts_are_copies_when_their_words_are(tmp_path: Path):
    texts = ["Hello, world!", "hello world", "hello there"]
    assert near_duplicates(BandFile(tmp_path / "bands", texts), texts.__getitem__, THRESHOLD).tolist() == [False, True, False]


def test_scripts_without_spaces_are_compared_by_character(tmp_path: Path):
    text = "我能吞下玻璃而不伤身体" * 3 + "可是今天我不想吃它因为我已经吃饱了"
    texts = [text, text + "了", "今天天气很好我们去公园散步吧然后回家吃饭看书睡觉明天再来"]
    assert near_duplicates(BandFile(tmp_path / "bands", texts), texts.__getitem__, THRESHOLD).tolist() == [False, True, False]


def test_word_sequences_are_equal_exactly_when_the_words_are():
    words = word_hashes("a b c a b c d")
    runs = sequences(words, 3)
    assert len(runs) == 5
    assert runs[0] == runs[3]
    assert len(set(runs.tolist())) == 4
    assert whole(word_hashes("The cat.")) == whole(word_hashes("the CAT"))
    assert len(sequences(words, 8)) == 0


def test_overlap_counts_equal_and_contained_documents():
    passage = " ".join(f"p{i}" for i in range(30))
    other = " ".join(f"q{i}" for i in range(30))
    train = [f"before {passage} after", "Short one."]
    test = [passage, f"{passage} {other} {other}x", other, "short ONE", "something else"]
    found = overlaps({"test": test}, train)["test"]
    assert (found.num_documents, found.equal, found.contained) == (5, 1, 2)
    assert found.share == pytest.approx(2 / 5)
    assert found.sequence_share == pytest.approx(36 / (18 + 78 + 18))


def test_the_probe_looks_for_a_bounded_number_of_sequences():
    probe = Probe((" ".join(f"{i}x{j}" for j in range(100)) for i in range(1000)), most_sequences=500)
    assert probe.result().num_documents == 5


def test_the_spool_sorts_and_removes_copies_in_any_order_of_arrival(tmp_path: Path):
    rows = [{"text": f"text {i % 50}\n\u2028 line", "title": f"{i}"} for i in range(100)]
    found = []
    for order in (rows, rows[::-1]):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        spool = Spool(folder)
        for row in order:
            spool.add(dict(row))
        found.append(spool.sort())
    first, second = (list(documents) for documents in found)
    assert first == second
    assert [digest for digest, _ in first] == sorted({digest for digest, _ in first})
    assert len(first) == len(found[0]) == 50
    assert found[0].num_copies == 50
    assert [found[0].text(rank) for rank in (0, 49, 7)] == [first[rank][1]["text"] for rank in (0, 49, 7)]


def test_a_copy_that_went_takes_nothing_with_it(tmp_path: Path):
    """The second is a copy of the first, the third only of the second: the third stays."""
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(words[start : start + 100]) for start in (0, 8, 16)]
    assert true_jaccard(texts[0], texts[1]) > THRESHOLD > true_jaccard(texts[0], texts[2])
    assert near_duplicates(BandFile(tmp_path / "bands", texts), texts.__getitem__, THRESHOLD).tolist() == [False, True, False]
