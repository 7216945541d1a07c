"""Bits per byte: how many bits a model needs for each byte of a text it has not seen.

`evaluate.load("stages/common/metrics/bits_per_byte.py")`. Unlike perplexity it does not depend on the tokenizer: a larger
vocabulary makes fewer, harder tokens, but the bytes stay the same.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Negative log-likelihood of the texts in bits, divided by their length in UTF-8 bytes. Lower is better."
_INPUTS = """
Args:
    predictions: negative log-likelihood of each text in nats, summed over its tokens, without the end token (float).
    references: UTF-8 bytes of each text (int).
Returns:
    bits_per_byte: sum(predictions) / ln 2 / sum(references).
"""


class BitsPerByte(evaluate.Metric):
    """Bits per byte over documents, weighted by their length."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        num_bytes = int(np.sum(references))
        if num_bytes <= 0:
            raise ValueError(f"references: the texts have {num_bytes} bytes in all; bits per byte need at least one")
        return {"bits_per_byte": float(np.sum(predictions) / np.log(2) / num_bytes)}
