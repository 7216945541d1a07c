"""Repetition: does generated text go round in circles, and do different texts say different things?

`evaluate.load("stages/common/metrics/repetition.py")`. Sources: repeated n-grams within one text, Welleck et al., Neural
Text Generation with Unlikelihood Training (2019), "seq-rep-n"; distinct-n over all texts, Li et al., A Diversity-Promoting
Objective Function for Neural Conversation Models (2016). Both fall with length: compare texts that are equally long.
"""

import re
from collections import Counter

import datasets
import evaluate

_DESCRIPTION = "Share of word n-grams that repeat within a text, and share of n-grams that are distinct over all texts."
_INPUTS = """
Args:
    predictions: texts (str). Words are runs of letters and digits, single signs, and single Chinese, Japanese or Korean
        characters.
    sizes: the n of the n-grams, by default 1, 2, 3, 4.
Returns:
    repeated_N: 1 - distinct / all n-grams of a text, mean over the texts that have an n-gram; 0 is no repetition.
    distinct_N: distinct n-grams of all texts / all their n-grams; 1 is no repetition.
    num_words: words of all texts.
"""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")


class Repetition(evaluate.Metric):
    """Repeated and distinct n-grams of words."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[str], sizes: tuple[int, ...] = (1, 2, 3, 4)) -> dict[str, float]:
        texts = [_WORD.findall(text) for text in predictions]
        result: dict[str, float] = {"num_words": sum(len(words) for words in texts)}
        for size in sizes:
            counts = [count for count in (_ngrams(words, size) for words in texts) if count]
            if not counts:
                raise ValueError(f"predictions: no text has {size} words, so n-grams of size {size} do not exist")
            result[f"repeated_{size}"] = sum(1 - len(count) / count.total() for count in counts) / len(counts)
            result[f"distinct_{size}"] = len(set().union(*counts)) / sum(count.total() for count in counts)
        return result


def _ngrams(words: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))
