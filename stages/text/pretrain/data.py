"""The corpus as token ids: one store per split, built once, kept beside the checkpoints and left out of the artifact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from pipeline.contract import Context
from stages.common.corpus_io import SPLITS, load_split
from stages.common.documents import Documents
from stages.common.encoding import count_bytes, encode_texts
from stages.common.token_store import TokenStore, write_token_store

_BATCH = 2_000


def token_stores(context: Context, tokenizer: PreTrainedTokenizerBase) -> dict[str, TokenStore]:
    """Return the stores of all splits; the main process builds what is missing, the others wait for it.

    Raises:
        DataError: a split holds no token, or a text cannot be encoded.
    """
    folder = context.checkpoints / "tokens"
    identity = {role: context.input(role).fingerprint for role in ("corpus", "tokenizer")}
    if context.is_main:
        for split in SPLITS:
            if not (folder / split).exists():
                dataset = load_split(context.input("corpus"), split)
                batches = _encoded(dataset, tokenizer, context, split)
                write_token_store(folder / split, batches, vocab_size=len(tokenizer), identity=identity)
    for split in SPLITS:
        _wait_for(folder / split, context)
    return {split: TokenStore(folder / split) for split in SPLITS}


def documents_of(context: Context, store: TokenStore, split: str, limit: int | None = None) -> Documents:
    """Return the first `limit` documents of a split (all for None) with their sizes in bytes.

    The corpus orders documents by content hash or as they came; the first ones are the same in every run.
    """
    count = store.num_documents if limit is None else min(limit, store.num_documents)
    dataset = load_split(context.input("corpus"), split)
    texts = (dataset[start : min(start + _BATCH, count)]["text"] for start in range(0, count, _BATCH))
    num_bytes = np.concatenate([count_bytes(batch) for batch in texts])
    return Documents(tokens=[store.document(index).tolist() for index in range(count)], num_bytes=num_bytes)


def _encoded(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, context: Context, split: str) -> Iterator[list[list[int]]]:
    for start in range(0, len(dataset), _BATCH):
        yield encode_texts(tokenizer, dataset[start : start + _BATCH]["text"])
        context.progress(min(start + _BATCH, len(dataset)), len(dataset), unit=f"{split} document")


def _wait_for(path: Path, context: Context) -> None:
    while not path.exists():
        context.beat()
        time.sleep(0.2)
