"""Perplexity by token: the number of equally likely tokens that would be as hard to guess.

`evaluate.load("stages/common/metrics/perplexity.py")`. It depends on the tokenizer: compare it only between models that
share one, and use bits per byte otherwise. (The metric of this name on the Hub runs a model itself; this one does not.)
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "exp of the mean negative log-likelihood per token. Lower is better."
_INPUTS = """
Args:
    predictions: negative log-likelihood of each text in nats, summed over its tokens (float).
    references: tokens of each text (int).
Returns:
    perplexity: exp(sum(predictions) / sum(references)).
    nats_per_token: its logarithm, the loss.
"""


class Perplexity(evaluate.Metric):
    """Perplexity over documents, weighted by their tokens."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        num_tokens = int(np.sum(references))
        if num_tokens <= 0:
            raise ValueError(f"references: the texts have {num_tokens} tokens in all; perplexity needs at least one")
        loss = float(np.sum(predictions) / num_tokens)
        return {"perplexity": float(np.exp(loss)), "nats_per_token": loss}
