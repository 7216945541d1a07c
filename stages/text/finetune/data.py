"""The corpora as token ids: a store of the training split, and whole documents to be scored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common import devices
from stages.common.corpus_io import load_split
from stages.common.documents import Documents
from stages.common.encoding import count_bytes, encode_texts
from stages.common.token_store import TokenStore, write_token_store

_BATCH = 1_000


def training_store(context: Context, accelerator: Accelerator, tokenizer: PreTrainedTokenizerBase) -> TokenStore:
    """Return the training split as tokens; the main process writes it once, beside the checkpoints."""
    path = context.checkpoints / "tokens"
    if context.is_main and not path.exists():
        dataset = load_split(context.input("corpus"), "train")
        write_token_store(path, _encoded(dataset, tokenizer, context), vocab_size=len(tokenizer))
    devices.wait_for_everyone(context, accelerator)
    return TokenStore(path)


def documents_of(
    corpus: Artifact,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    max_documents: int | None = None,
    max_tokens: int | None = None,
) -> Documents:
    """Return documents of a split, whole ones, in an order drawn by `seed`, until a bound is reached (None: no bound).

    Raises:
        DataError: the split is empty.
    """
    dataset = load_split(corpus, split)
    if not len(dataset):
        raise DataError(f"corpus {corpus.fingerprint[:8]}: the split {split} is empty; there is nothing to measure on")
    order = np.random.default_rng(seed).permutation(len(dataset))[:max_documents]
    tokens: list[list[int]] = []
    sizes: list[NDArray[np.int64]] = []
    total = 0
    for start in range(0, len(order), _BATCH):
        texts = dataset[order[start : start + _BATCH]]["text"]
        encoded = encode_texts(tokenizer, texts)
        ends = total + np.cumsum([len(document) for document in encoded])
        kept = len(encoded) if max_tokens is None else min(len(encoded), int(np.searchsorted(ends, max_tokens)) + 1)
        tokens += encoded[:kept]
        sizes.append(count_bytes(texts[:kept]))
        total = int(ends[kept - 1])
        if kept < len(encoded):
            break
    return Documents(tokens, np.concatenate(sizes))


def _encoded(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, context: Context) -> Iterator[list[list[int]]]:
    for start in range(0, len(dataset), _BATCH):
        yield encode_texts(tokenizer, dataset[start : start + _BATCH]["text"])
        context.progress(min(start + _BATCH, len(dataset)), len(dataset), unit="document")
