"""The metric modules: their mathematics on texts that can be counted by hand, and loading without network or home."""

import importlib
import math
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import evaluate
import numpy as np
import pytest

from stages.common import metrics
from stages.common.metric_modules import load_metric
from stages.common.metrics import bits_per_byte, novelty, perplexity, repetition
from stages.common.metrics.novelty import overlap

NAMES = sorted(path.stem for path in Path(metrics.__file__).parent.glob("[!_]*.py"))
FOX = "the quick brown fox jumps over the lazy dog and runs far away into the dark wood"


def test_bits_per_byte_is_nats_over_ln2_over_bytes_weighted_by_length():
    metric = load_metric(bits_per_byte)
    assert metric.compute(predictions=[80 * math.log(2)], references=[10]) == {"bits_per_byte": pytest.approx(8)}
    mixed = metric.compute(predictions=[math.log(2), 99 * math.log(2)], references=[1, 9])
    assert mixed["bits_per_byte"] == pytest.approx(10)  # not the mean of 1 and 11
    with pytest.raises(ValueError, match="at least one"):
        metric.compute(predictions=[0.0], references=[0])


def test_perplexity_of_a_uniform_guess_is_the_size_of_the_vocabulary():
    found = load_metric(perplexity).compute(predictions=[7 * math.log(50), 3 * math.log(50)], references=[7, 3])
    assert found == {"perplexity": pytest.approx(50), "nats_per_token": pytest.approx(math.log(50))}
    with pytest.raises(ValueError, match="at least one"):
        load_metric(perplexity).compute(predictions=[0.0], references=[0])


def test_repetition_counts_runs_within_a_text_and_distinct_ones_over_all():
    found = load_metric(repetition).compute(predictions=["a b a b a b", "x y z"], sizes=(2,))
    assert found["repeated_2"] == pytest.approx((1 - 2 / 5 + 0) / 2)
    assert found["distinct_2"] == pytest.approx(4 / 7)
    assert found["num_words"] == 9
    again = load_metric(repetition).compute(predictions=["x y z", "x y z"], sizes=(2,))
    assert (again["repeated_2"], again["distinct_2"]) == (0, 0.5)
    with pytest.raises(ValueError, match="no text has 3 words"):
        load_metric(repetition).compute(predictions=["x y"], sizes=(3,))


def test_words_are_words_signs_and_single_cjk_characters_in_both_metrics():
    text = "Don't stop, na\u00efve_1! \u4f60\u597d\u3002 \uc548\ub155 ok\u4f60"
    expected = ["Don", "'", "t", "stop", ",", "na\u00efve_1", "!", *"\u4f60\u597d\u3002\uc548\ub155", "ok", "\u4f60"]
    assert [text[a:b] for a, b in novelty.word_spans(text)] == expected
    assert repetition._WORD.pattern == novelty._WORD.pattern


def test_novelty_of_a_copy_is_zero_and_of_new_text_is_one():
    training = ["nothing to see here at all", f"once {FOX} and then", FOX.upper()]
    fresh = "colourless green ideas sleep furiously under nine purple moons tonight"
    found = load_metric(novelty).compute(predictions=[FOX], references=[fresh], training=iter(training))
    assert (found["novel_4"], found["novel_8"]) == (0, 0)
    assert (found["reference_novel_4"], found["reference_novel_8"]) == (1, 1)
    assert found["longest_copy_words"] == len(FOX.split())
    assert found["longest_copies"] == [FOX]
    assert found["reference_longest_copy_words"] == 0


def test_the_longest_copy_does_not_run_over_the_border_of_two_documents_or_over_other_words():
    found = overlap(
        [FOX], ["the quick brown fox", "jumps over the lazy", "fox jumps UP over the lazy dog and runs"], sizes=(4, 8)
    )
    assert found.longest[0] == 6
    assert found.longest_text == ["over the lazy dog and runs"]
    assert found.num_found[8][0] == 0


@pytest.mark.parametrize("words_at_once", [1, 7, 2**18])
def test_overlap_is_what_brute_force_finds(words_at_once, monkeypatch):
    monkeypatch.setattr(novelty, "_WORDS_AT_ONCE", words_at_once)
    generator = np.random.default_rng(words_at_once)

    def text(length: int) -> str:
        return " ".join(f"w{value}" for value in generator.integers(0, 4, size=length))

    texts, training = [text(n) for n in (1, 3, 9, 30, 60, 0)], [text(n) for n in (2, 40, 40, 0, 50)]
    found = overlap(texts, training, sizes=(2, 4, 5))
    rows, sources = [t.split() for t in texts], [t.split() for t in training]
    for size in (2, 4, 5):
        known = {tuple(source[i : i + size]) for source in sources for i in range(len(source) - size + 1)}
        runs = [[tuple(row[i : i + size]) for i in range(len(row) - size + 1)] for row in rows]
        assert found.num_ngrams[size].tolist() == [len(row) for row in runs]
        assert found.num_found[size].tolist() == [sum(run in known for run in row) for row in runs]
    for row, length, copy in zip(texts, found.longest, found.longest_text, strict=True):
        words = row.split()
        shared = [
            words[i : i + n]
            for i in range(len(words))
            for n in range(1, len(words) - i + 1)
            if any(f" {' '.join(words[i : i + n])} " in f" {source} " for source in training)
        ]
        assert length == max(map(len, shared), default=0) == len(copy.split())
        assert copy in row


def test_a_stutter_in_the_training_texts_costs_no_quadratic_time():
    found = overlap(["na " * 300 + "end"], ["na " * 20_000] * 3, sizes=(4, 8))
    assert found.longest.tolist() == [300]


def test_memory_of_the_index_does_not_grow_with_the_training_texts():
    def sizes_after(count: int) -> int:
        index = novelty._Index([FOX], (4, 8))
        for words in novelty._runs((f"{FOX} {number}" for number in range(count)), index.vocabulary):
            index.feed(words)
        return sum(values.nbytes for values in index.hashes.values()) + len(index.vocabulary)

    assert sizes_after(10) == sizes_after(2000)


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_one_metric_with_its_inputs_described(name):
    metric = load_metric(importlib.import_module(f"stages.common.metrics.{name}"))
    assert metric.name == name
    assert metric.description
    assert "predictions:" in metric.inputs_description
    assert set(metric.features) <= {"predictions", "references"}


def test_a_file_with_two_metrics_or_none_is_refused():
    module = types.ModuleType("two")
    with pytest.raises(TypeError, match="defines 0 metrics"):
        load_metric(module)
    for name in ("A", "B"):
        setattr(module, name, type(name, (evaluate.Metric,), {"__module__": "two"}))
    with pytest.raises(TypeError, match="defines 2 metrics"):
        load_metric(module)


def test_evaluate_loads_every_file_by_its_path_without_the_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in NAMES:
        path = Path(metrics.__file__).with_name(f"{name}.py")
        assert evaluate.load(str(path), cache_dir=str(tmp_path)).name == name


HOMELESS = """
from stages.common.metric_modules import load_metric
from stages.common.metrics import bits_per_byte
print(load_metric(bits_per_byte).compute(predictions=[1.0, 2.0], references=[3, 4]))
"""


@pytest.mark.slow
def test_a_stage_loads_its_metrics_without_a_home_to_write_to(tmp_path):
    environment = os.environ | {"HF_HOME": "/dev/null/home", "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
    found = subprocess.run([sys.executable, "-c", HOMELESS], env=environment, capture_output=True, text=True, check=True)
    assert "bits_per_byte" in found.stdout
