"""The tokenizer stage's own code against `tokenizers` used directly: `python -m benchmarks.tokenizer [--rounds 7]`.

Both sides run in this process, in turn, on the same text (train split of the card, `--card wiki-summaries`), with the same
word rule, vocabulary size and limits. The direct side has its texts ready in memory; ours reads them from the Arrow file,
cuts long documents and reports progress, as the stage does. Ratios are of throughput: ours / direct.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase

from benchmarks.measuring import BUILD, Row, Table, alternate, ratios, spread, stage_artifact, timed
from pipeline.artifact import Artifact
from stages.common.corpus_io import load_split
from stages.common.encoding import encode_texts
from stages.common.token_store import write_token_store
from stages.text.tokenizer import data, model
from stages.text.tokenizer.config import SPECIAL_TOKENS, Config

BATCH = 1_000
"""Documents per call, on both sides."""


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    corpus = Artifact.open(stage_artifact("corpus", "--card", arguments.card))
    dataset = load_split(corpus, "train")
    if arguments.max_documents:
        dataset = dataset.select(range(min(arguments.max_documents, len(dataset))))
    texts = list(dataset["text"])
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    table = Table("Tokenizer", packages=["tokenizers", "datasets", "transformers"], other="tokenizers alone")
    config = Config(vocab_size=arguments.vocab_size)
    rows = [_training(config, dataset, texts, megabytes, arguments.rounds)]
    rows += _encoding(config, dataset, texts, megabytes, arguments.rounds)
    table.show(rows, [f"{len(texts):,} documents, {megabytes:.1f} MB, vocabulary {config.vocab_size:,}."])


def _training(config: Config, dataset: Dataset, texts: list[str], megabytes: float, rounds: int) -> Row:
    sides = {
        "ours": partial(timed, lambda: model.train(data.pieces(dataset, _ignore), config)),
        "direct": partial(timed, lambda: _train_directly(config, texts)),
    }
    found = alternate(sides, rounds=rounds)
    return _row("BPE training", found["ours"], found["direct"], megabytes, target=True)


def _encoding(config: Config, dataset: Dataset, texts: list[str], megabytes: float, rounds: int) -> list[Row]:
    ours = model.dressed(model.train(data.pieces(dataset, _ignore), config))
    direct = Tokenizer.from_str(ours.backend_tokenizer.to_str())
    stores = (BUILD / "stores" / str(number) for number in itertools.count())
    sides: dict[str, Callable[[], object]] = {
        "texts": lambda: [encode_texts(ours, texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)],
        "store": lambda: _write(next(stores), ours, dataset),
        "direct": lambda: _encode_directly(direct, texts),
    }
    for work in sides.values():
        work()  # each tokenizer's cache of words is warm
    found = alternate({name: partial(timed, work) for name, work in sides.items()}, rounds=rounds)
    shutil.rmtree(BUILD / "stores")
    return [
        _row("encoding texts in memory", found["texts"], found["direct"], megabytes, target=True),
        _row("encoding, Arrow file to token store on disk", found["store"], found["direct"], megabytes, target=False),
    ]


def _train_directly(config: Config, texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = model.pre_tokenizer(config.pretokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=config.max_token_bytes,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _encode_directly(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = []
    for at in range(0, len(texts), BATCH):
        ids.extend(encoding.ids for encoding in tokenizer.encode_batch_fast(texts[at : at + BATCH], add_special_tokens=False))
    return ids


def _write(path: Path, tokenizer: PreTrainedTokenizerBase, dataset: Dataset) -> None:
    """Encode as the pretrain stage does."""
    starts = range(0, len(dataset), 2 * BATCH)
    batches = (encode_texts(tokenizer, dataset[at : at + 2 * BATCH]["text"]) for at in starts)
    write_token_store(path, batches, vocab_size=len(tokenizer))


def _row(what: str, ours: list[float], direct: list[float], megabytes: float, *, target: bool) -> Row:
    speed, other = ([megabytes / seconds for seconds in side] for side in (ours, direct))
    ratio = ratios(speed, other)
    goal, met = (">= 0.9", sorted(ratio)[len(ratio) // 2] >= 0.9) if target else ("", None)
    return Row(what, spread(speed, "MB/s", 2), spread(other, "MB/s", 2), spread(ratio, digits=2), goal, met)


def _ignore(_done: int, _total: int) -> None:
    """Progress is drawn by nobody here."""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--card", default="wiki-summaries")
    parser.add_argument("--vocab-size", type=int, default=6144)
    parser.add_argument("--max-documents", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
