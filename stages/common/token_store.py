"""Token ids of a corpus on disk: two memory-mapped files and a small description.

`tokens.bin` holds the ids of all documents one after another (uint16, or uint32 for a vocabulary over 65,536),
`offsets.bin` the int64 position where each document begins, plus the end of the last. Nothing is loaded until it is
read, so a store may be larger than memory. It appears under its name only when it is whole (write aside, fsync, rename).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import fsync_directory, fsync_tree, write_json
from pipeline.errors import Damaged, DataError

_DESCRIPTION = "store.json"


class TokenStore:
    """Documents as token ids, read from disk on demand.

    Attributes:
        tokens: ids of all documents, shape (num_tokens,).
        offsets: where each document begins in `tokens`, shape (num_documents + 1,).
        description: what `write_token_store` was given: vocabulary size and identity.
    """

    def __init__(self, path: Path) -> None:
        """Open the store in directory `path`.

        Raises:
            Damaged: a file is missing or its size is not what the description says.
        """
        try:
            self.description: dict[str, Any] = json.loads((path / _DESCRIPTION).read_bytes())
            shapes = {"tokens": self.description["num_tokens"], "offsets": self.description["num_documents"] + 1}
            dtypes = {"tokens": np.dtype(self.description["dtype"]), "offsets": np.dtype(np.int64)}
        except (OSError, ValueError, KeyError) as error:
            raise Damaged(f"{path}: not a token store ({error}); delete it and run again") from None
        self.tokens, self.offsets = (_map(path / f"{name}.bin", dtypes[name], shapes[name]) for name in ("tokens", "offsets"))

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all documents, without end tokens."""
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each document, shape (num_documents,)."""
        return np.diff(self.offsets)

    def document(self, index: int) -> NDArray[Any]:
        """Return the ids of document `index` (a view of the mapped file)."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def write_token_store(
    path: Path, batches: Iterable[list[list[int]]], *, vocab_size: int, identity: Mapping[str, Any] | None = None
) -> TokenStore:
    """Write the documents of `batches` (lists of lists of ids) as the store `path`, batch by batch.

    Args:
        path: directory of the store; must not exist.
        batches: encoded documents; only one batch is in memory at a time.
        vocab_size: every id must be below it.
        identity: what the tokens were made from, kept in the description.

    Raises:
        DataError: an id is outside the vocabulary (the message names the document), or there is no token at all.
    """
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
    num_documents, num_tokens = 0, 0
    with open(temporary / "tokens.bin", "wb") as tokens, open(temporary / "offsets.bin", "wb") as offsets:
        offsets.write(np.zeros(1, np.int64).tobytes())
        for batch in batches:
            _check_bounds(batch, vocab_size, num_documents)
            ends = num_tokens + np.cumsum([len(document) for document in batch], dtype=np.int64)
            for document in batch:
                tokens.write(np.asarray(document, dtype).tobytes())
            offsets.write(ends.tobytes())
            num_documents += len(batch)
            num_tokens = int(ends[-1]) if len(batch) else num_tokens
    if num_tokens == 0:
        raise DataError(f"{path.name}: the split has {num_documents} documents and not one token; check the corpus")
    facts = {"dtype": dtype.name, "num_documents": num_documents, "num_tokens": num_tokens, "vocab_size": vocab_size}
    write_json(temporary / _DESCRIPTION, facts | {"identity": dict(identity or {})})
    fsync_tree(temporary)
    os.rename(temporary, path)
    fsync_directory(path.parent)
    return TokenStore(path)


def _check_bounds(batch: list[list[int]], vocab_size: int, first: int) -> None:
    for index, document in enumerate(batch):
        if document and not (min(document) >= 0 and max(document) < vocab_size):
            wrong = next(token for token in document if not 0 <= token < vocab_size)
            raise DataError(
                f"document {first + index}: token id {wrong} is outside the vocabulary of {vocab_size}; "
                "tokenizer and model do not belong together"
            )


def _map(path: Path, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    expected = dtype.itemsize * length
    size = path.stat().st_size if path.exists() else -1
    if size != expected:
        raise Damaged(f"{path}: {expected} bytes expected, {max(size, 0)} found; delete the store and run again")
    return np.memmap(path, dtype=dtype, mode="r", shape=(length,))
