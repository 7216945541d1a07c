"""Load the model, predict the corpus, check that the batch does not matter, sample, compare with the training texts."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.contract import Context
from pipeline.errors import DataError, StageError
from stages.common.causal_lm import load_causal_lm, load_tokenizer, max_positions, model_folder, vocab_rows
from stages.common.corpus_io import load_split
from stages.common.encoding import boundary_ids, count_bytes, encode_texts
from stages.common.generation import generate_texts
from stages.text.evaluate import data, metrics, report
from stages.text.evaluate.config import Config
from stages.text.evaluate.metrics import Invariance, Prediction


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and how much of a text it sees at once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context_length: int


def run(config: Config, context: Context) -> None:
    """Write metrics, figures, samples and the section."""
    subject = _load(config, context)
    texts = {split: data.spread(load_split(context.input("corpus"), split), config.max_documents) for split in config.splits}
    report.open_section(context)
    predictions, invariance = _predict(config, context, subject, texts)
    report.write_prediction(context, predictions, invariance, subject.context_length)
    main = config.splits[-1]
    _check_contamination(config, context, texts[main], main)
    _sample(config, context, subject, texts[main], main)
    report.write_card(context, predictions, subject.context_length)


def _load(config: Config, context: Context) -> Subject:
    device = context.resolve("device", lambda: "cuda" if torch.cuda.is_available() else "cpu")
    folder = model_folder(context.input("model"))
    model, tokenizer = load_causal_lm(folder, device=device), load_tokenizer(folder)
    if len(tokenizer) > vocab_rows(model):
        raise DataError(f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {vocab_rows(model)} rows; they differ")
    context_length = config.context_length or max_positions(model)
    if context_length is None:
        raise DataError("the model names no number of positions; set context_length")
    return Subject(model, tokenizer, context_length)


def _predict(
    config: Config, context: Context, subject: Subject, texts: dict[str, list[str]]
) -> tuple[dict[str, Prediction], Invariance]:
    boundary = boundary_ids(subject.tokenizer)
    settings = {"boundary": boundary, "context_length": subject.context_length, "batch_size": config.batch_size}
    predictions = {}
    for split, rows in texts.items():
        documents, num_bytes = encode_texts(subject.tokenizer, rows), count_bytes(rows)

        def show(done: int, total: int, unit: str = f"{split} window") -> None:
            context.progress(done, total, unit=unit)

        predictions[split] = metrics.predict(subject.model, documents, num_bytes, seed=config.seed, on_progress=show, **settings)
    context.phase("checking that the batch does not matter")
    invariance = metrics.batch_invariance(subject.model, documents, num_bytes, **settings)
    _check_invariance(config, invariance)
    return predictions, invariance


def _check_invariance(config: Config, found: Invariance) -> None:
    for key, value, bound in (
        ("logit_tolerance", found.logit_difference, config.logit_tolerance),
        ("bits_per_byte_tolerance", found.bits_per_byte_difference, config.bits_per_byte_tolerance),
    ):
        if value > bound:
            raise StageError(
                f"batch size 1 and {config.batch_size} differ by {value:.3g}, above {key}={bound:g}: padding or the mask leaks "
                "into the result. If the model computes in low precision on purpose, raise the tolerance"
            )


def _check_contamination(config: Config, context: Context, texts: list[str], split: str) -> None:
    corpora = context.inputs("train")
    if not corpora:
        return
    training = data.training_texts(corpora, lambda done, total: context.progress(done, total, unit="document compared"))
    seen = metrics.contaminated(texts, training)
    report.write_contamination(context, seen, split)
    if seen.mean() > config.max_contaminated_share:
        raise DataError(
            f"{int(seen.sum())} of {len(texts)} {split} documents are in the training texts (document {int(seen.argmax())} is "
            f"the first), above max_contaminated_share={config.max_contaminated_share}: the figures would tell memory, not "
            "skill. Evaluate on a corpus that the model has not seen, or raise max_contaminated_share"
        )


def _sample(config: Config, context: Context, subject: Subject, texts: list[str], split: str) -> None:
    prompts = data.prompts(texts, config.num_samples, config.prompt_words)
    if not prompts:
        return
    longest = 1 + max(len(row) for row in encode_texts(subject.tokenizer, [prompt.text for prompt in prompts]))
    room = subject.context_length - longest + 1
    if room < 1:
        raise DataError(f"prompt_words={config.prompt_words} makes {longest} tokens; the context has {subject.context_length}")
    max_new_tokens = min(config.max_new_tokens, room)
    context.phase(f"writing {len(prompts)} samples")
    samples = generate_texts(
        subject.model,
        subject.tokenizer,
        [prompt.text for prompt in prompts],
        seed=config.seed,
        max_new_tokens=max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
    )
    truths = data.cut_tokens(subject.tokenizer, [prompt.truth for prompt in prompts], max_new_tokens)
    rows = [
        {"prompt": prompt.text, "generated": sample, "real": truth}
        for prompt, sample, truth in zip(prompts, samples, truths, strict=True)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (context.samples / "samples.jsonl").write_text(lines, encoding="utf-8")
    report.write_samples(context, rows, f"At most {max_new_tokens} new tokens, {_how(config)}, seed {config.seed}.")
    _compare(context, *data.equally_long(samples, truths), split)


def _compare(context: Context, samples: list[str], truths: list[str], split: str) -> None:
    if not samples:
        context.section.text("The model ended every sample at once, so there is nothing to measure in them.")
        return
    both = metrics.describe_texts(samples, truths)
    if both:
        report.write_repetition(context, *both, num_samples=len(samples), split=split)
    if context.inputs("train"):
        texts = data.training_texts(
            context.inputs("train"), lambda done, total: context.progress(done, total, unit="document searched")
        )
        report.write_novelty(context, metrics.describe_novelty(samples, truths, texts), num_samples=len(samples), split=split)


def _how(config: Config) -> str:
    if config.temperature == 0:
        return "always the likeliest token"
    kept = f", among the {config.top_k} likeliest" if config.top_k else ""
    return f"drawn at temperature {config.temperature:g}{kept}"
