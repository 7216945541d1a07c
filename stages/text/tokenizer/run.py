"""Learn the vocabulary, save it, read it back, and measure what was read back."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError, StageError
from stages.common.causal_lm import load_tokenizer
from stages.common.corpus_io import SPLITS, load_split
from stages.text.tokenizer import data, model, report
from stages.text.tokenizer.config import Config
from stages.text.tokenizer.metrics import Measured, first_change, measure, round_trips

CHECKED_TEXTS = 1000
"""Texts of each split that must come back exactly from their ids."""


def run(config: Config, context: Context) -> None:
    """Write `tokenizer/` (loads with AutoTokenizer), its figures, card and section."""
    corpus = context.input("corpus")
    started = time.perf_counter()
    backend, learned_bytes = _train(config, context, corpus)
    seconds = time.perf_counter() - started
    folder = context.directory / "tokenizer"
    model.dressed(backend).save_pretrained(str(folder))

    tokenizer = _read_back(folder, backend)
    measured = {split: _measure(split, tokenizer, config, context, corpus) for split in SPLITS}
    _check_round_trips(tokenizer, corpus)
    peak_memory_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    facts = report.Facts(learned_bytes=learned_bytes, seconds=seconds, peak_memory_gib=peak_memory_gib)
    report.write_metrics(context, measured, facts, vocab_size=len(tokenizer))
    report.write_section(context, config, tokenizer, measured, facts, sample=_sample(corpus))
    report.write_card(context, config, measured, corpus)


def _train(config: Config, context: Context, corpus: Artifact) -> tuple[Tokenizer, int]:
    dataset = data.thinned(load_split(corpus, "train"), config.max_train_bytes)
    num_bytes = data.count_text_bytes(dataset)
    if num_bytes == 0:
        raise DataError(f"the train split has {len(dataset)} documents and no text; a tokenizer needs text to learn from")

    def show(done: int, total: int) -> None:
        context.progress(done, total, unit="document")

    return model.train(data.pieces(dataset, show), config), num_bytes


def _read_back(folder: Path, backend: Tokenizer) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(folder)
    if tokenizer.backend_tokenizer.get_vocab() != backend.get_vocab():
        raise StageError("the saved tokenizer does not load as it was trained; its vocabulary differs")
    return tokenizer


def _measure(split: str, tokenizer: PreTrainedTokenizerBase, config: Config, context: Context, corpus: Artifact) -> Measured:
    dataset = data.thinned(load_split(corpus, split), config.max_report_bytes)
    return measure(tokenizer, dataset, lambda done, total: context.progress(done, total, unit=f"{split} document"))


def _check_round_trips(tokenizer: PreTrainedTokenizerBase, corpus: Artifact) -> None:
    changed = [name for name, _, _, exact in round_trips(tokenizer) if not exact]
    if changed:
        raise StageError(f"these texts do not come back from their ids: {', '.join(changed)}")
    for split in SPLITS:
        texts = load_split(corpus, split)[:CHECKED_TEXTS]["text"]
        row = first_change(tokenizer, texts)
        if row is not None:
            raise StageError(f"{split} row {row} does not come back from its ids: {texts[row][:80]!r}")


def _sample(corpus: Artifact, max_characters: int = 500_000) -> list[str]:
    texts: list[str] = []
    for text in load_split(corpus, "test").select_columns("text").to_iterable_dataset():
        texts.append(text["text"][:max_characters])
        max_characters -= len(texts[-1])
        if max_characters <= 0:
            break
    return texts
