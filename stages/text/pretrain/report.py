"""The stage's part of the report: metrics, yardsticks, curves, samples over time, cost, and the model card."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import islice

import torch
import yaml
from transformers import PreTrainedModel

from pipeline.contract import Context, read_events, write_bytes
from stages.common import devices, plots
from stages.common.corpus_io import license_of, load_split
from stages.common.token_store import TokenStore
from stages.common.training import TrainingPlan, TrainingSummary
from stages.common.xz import xz_bits_per_byte
from stages.text.pretrain.config import Config
from stages.text.pretrain.evaluation import Score
from stages.text.pretrain.shape import Shape, learning_rates
from stages.text.pretrain.yardsticks import bigram_bits, bits_per_byte, unigram_bits

Curve = tuple[list[float], list[float]]
Speed = dict[str, tuple[float, str, bool | None]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that a finished training reports."""

    summary: TrainingSummary
    plan: TrainingPlan
    positions_per_step: int
    shape: Shape
    dtype: torch.dtype
    validation: Score
    test: Score
    samples: list[str]
    waste: dict[str, float]
    num_processes: int


def write_report(
    config: Config,
    context: Context,
    model: PreTrainedModel,
    stores: dict[str, TokenStore],
    outcome: Outcome,
    *,
    reload_difference: float,
) -> None:
    """Write metrics, section, figures and card of a finished training."""
    context.section.describe(
        title="Pretraining",
        idea="A transformer reads a text up to some token and guesses the next one; its weights are moved, step by step, "
        "so that the true next token gets more probability. How well it guesses on text that it never saw is counted in "
        "bits per byte: a perfect guesser would need 0, and a file compressor is a fair opponent.",
        formula="bits per byte = − Σ log₂ p(token | tokens before it) / bytes of the text",
    )
    yardsticks = _yardsticks(context, stores, model.config.bos_token_id, outcome)
    speed = _speed(model, outcome)
    _metrics(config, context, outcome, yardsticks, speed)
    _bits(config, context, outcome, yardsticks)
    _curves(context, config, outcome)
    _samples(context, config, outcome)
    _cost(config, context, outcome, speed, reload_difference)
    _card(config, context, outcome, model)


def _yardsticks(context: Context, stores: dict[str, TokenStore], bos_id: int, outcome: Outcome) -> dict[str, float]:
    train, test = stores["train"], stores["test"]
    num_documents, vocab_size = len(outcome.test.num_bytes), outcome.shape.vocab_size
    bits = {
        "unigram": unigram_bits(train, test, vocab_size, num_documents=num_documents),
        "bigram": bigram_bits(train, test, vocab_size, bos_id=bos_id, num_documents=num_documents),
    }
    found = {name: bits_per_byte(value, float(outcome.test.num_bytes.sum())) for name, value in bits.items()}
    documents = islice(load_split(context.input("corpus"), "test"), num_documents)
    return found | {"xz -9": xz_bits_per_byte(row["text"] for row in documents)}


def _metrics(config: Config, context: Context, outcome: Outcome, yardsticks: dict[str, float], speed: Speed) -> None:
    for split, score in (("validation", outcome.validation), ("test", outcome.test)):
        documents = {"n": len(score.nll_nats), "split": split, "items": "documents", "higher_is_better": False}
        interval, headline = score.interval(config.seed), split == "test"
        context.metric("bits_per_byte", score.bits_per_byte, unit="bit/byte", interval=interval, headline=headline, **documents)
        context.metric("nats_per_token", score.nats_per_token, unit="nat/token", **documents)
        context.metric("perplexity", math.exp(score.nats_per_token), unit="1", **documents)
    for name, value in yardsticks.items():
        n = len(outcome.test.nll_nats)
        shown = {"n": n, "split": "test", "items": "documents", "title": f"bits per byte, {name}", "yardstick": True}
        context.metric(f"bits_per_byte_{name.split()[0]}", value, unit="bit/byte", higher_is_better=False, **shown)
    for name, (value, unit, higher) in speed.items():
        context.metric(name, value, unit=unit, higher_is_better=higher, n=outcome.plan.num_steps, items="steps")
    for name in ("padded_share", "split_share"):
        context.metric(name, outcome.waste[name], unit="1", higher_is_better=False, n=1, items="epochs", split="train")


def _speed(model: PreTrainedModel, outcome: Outcome) -> Speed:
    """Return name -> (value, unit, higher is better); a training that only wrote its outputs has no speed."""
    device, summary, shape = model.device, outcome.summary, outcome.shape
    values: Speed = {
        "num_parameters": (model.num_parameters(), "1", None),
        "training_flops": (float(shape.flops_per_token) * _positions(outcome), "FLOP", None),
        "peak_memory_gib": (devices.peak_memory_gib(device), "GiB", False),
    }
    if summary.seconds > 0:
        speed = summary.num_tokens / summary.seconds
        achieved = speed * shape.flops_per_token / outcome.num_processes
        ceiling = devices.matmul_flops(device, outcome.dtype)
        values["tokens_per_second"] = (speed, "token/s", True)
        values["matmul_share"] = (achieved / ceiling, "1", True)
        peak = devices.known_peak(device)
        if peak:
            values["mfu"] = (achieved / peak, "1", True)
    return values


def _positions(outcome: Outcome) -> int:
    return round(outcome.plan.num_steps * outcome.positions_per_step * (1 - outcome.waste["padded_share"]))


def _bits(config: Config, context: Context, outcome: Outcome, yardsticks: dict[str, float]) -> None:
    low, high = outcome.test.interval(config.seed)
    labels = ["this model", *sorted(yardsticks, key=lambda name: yardsticks[name])]
    values = [outcome.test.bits_per_byte, *(yardsticks[name] for name in labels[1:])]
    intervals = [(low, high), *((value, value) for value in values[1:])]
    figure = plots.bar_chart(context.figures / "bits_per_byte.svg", labels, values, ylabel="bits per byte", intervals=intervals)
    context.section.figure(
        figure,
        "Bits per byte of the test text; lower is better. The unigram model knows only how frequent each token is, the bigram "
        "model also the token before; xz -9 is a file compressor that reads the same text.",
    )


def _curves(context: Context, config: Config, outcome: Outcome) -> None:
    curves = curves_of(context)
    loss = {"training": curves["loss"]}
    if curves["validation_loss"][0]:
        loss["validation"] = curves["validation_loss"]
    path = plots.line_chart(context.figures / "loss.svg", loss, xlabel="step", ylabel="loss, nats per token")
    context.section.figure(path, "Loss of each training batch before it is learnt, and of validation documents on the way.")
    steps, factors = curves["learning_rate_factor"]
    hidden = learning_rates(config, outcome.shape).hidden
    rates = {"hidden matrices": (steps, [hidden * factor for factor in factors])}
    path = plots.line_chart(context.figures / "learning_rate.svg", rates, xlabel="step", ylabel="learning rate")
    context.section.figure(path, "The learning rate rises, stays and falls; all parameters follow the same shape.")


def curves_of(context: Context) -> dict[str, Curve]:
    """Return the curves in the event log; a step that was logged twice (before and after a resume) counts once."""
    names = ("loss", "learning_rate_factor", "gradient_norm", "validation_loss", "validation_bits_per_byte")
    points: dict[str, dict[int, float]] = {name: {} for name in names}
    for event in read_events(context.events.path):
        if event.name in points and isinstance(event.value, int | float):
            points[event.name][event.step] = float(event.value)
    return {name: ([float(step) for step in sorted(found)], [found[s] for s in sorted(found)]) for name, found in points.items()}


def _samples(context: Context, config: Config, outcome: Outcome) -> None:
    rows: dict[int, dict[int, str]] = {}
    for event in read_events(context.events.path):
        if event.name.startswith("sample_"):
            rows.setdefault(event.step, {})[int(event.name.removeprefix("sample_"))] = str(event.value)
    rows[outcome.plan.num_steps] = dict(enumerate(outcome.samples))
    columns = ["after step", *(f"opening {prompt!r}" if prompt else "no opening" for prompt in config.prompts)]
    table = [
        [str(step), *(rows[step].get(index, "") for index in range(len(config.prompts)))] for step in sorted(rows, reverse=True)
    ]
    caption = (
        "The same openings and the same random numbers every time; only the weights changed. The finished model comes first."
    )
    context.section.samples("Samples while it learns", columns, table, caption=caption)
    text = "\n\n".join("\n---\n".join(row) for row in table)
    write_bytes(context.samples / "during_training.txt", (text + "\n").encode())


def _cost(config: Config, context: Context, outcome: Outcome, speed: Speed, reload_difference: float) -> None:
    plan, summary, shape = outcome.plan, outcome.summary, outcome.shape
    rates = {f"learning rate, {kind}": rate for kind, rate in asdict(learning_rates(config, shape)).items()}
    context.section.facts("Model", asdict(shape) | {"parameters": int(speed["num_parameters"][0])})
    context.section.facts(
        "Training",
        {
            "steps": plan.num_steps,
            "warm-up steps": plan.warmup_steps,
            "cool-down steps": plan.cooldown_steps,
            "positions per step": outcome.positions_per_step,
            **rates,
            "rows (or groups) per forward pass": plan.micro_batch_size,
            "processes": outcome.num_processes,
            "precision": str(outcome.dtype).removeprefix("torch."),
            "began at step": summary.start_step,
            "seconds in steps": summary.seconds,
            "seconds in checkpoints": summary.checkpoint_seconds,
            "largest difference of a logit after reload": reload_difference,
        },
    )
    context.section.facts("Cost", {f"{name}, {unit}": value for name, (value, unit, _) in speed.items()})
    context.section.facts("Layout of documents, one epoch", dict(outcome.waste))
    context.section.text(
        f"Operations are counted as 6N + 12·layers·heads·head_dim·context for each token, {shape.flops_per_token:,} here; N "
        "leaves out the lookup of the token table (Chowdhery et al., PaLM, appendix B). matmul_share is their rate over the "
        "rate of one large matrix product, measured after training on the same device and in the same precision."
    )
    for line in summary.passed_over:
        context.section.text(f"A checkpoint was passed over on resume: {line}.")


def _card(config: Config, context: Context, outcome: Outcome, model: PreTrainedModel) -> None:
    low, high = outcome.test.interval(config.seed)
    licence = license_of(context.input("corpus"))
    start = "random weights"
    if config.token_statistics_init:
        start += ", but for token table and untied head, which begin with the bigram counts of the training tokens,"
    metadata = {"library_name": "transformers", "license": licence, "pipeline_tag": "text-generation", "tags": ["groundup"]}
    lines = [
        f"---\n{yaml.safe_dump(metadata)}---",
        f"# A {config.architecture} language model, {model.num_parameters() / 1e6:.1f} million parameters",
        "",
        f"Trained from {start} on {_positions(outcome):,} tokens in {outcome.plan.num_steps:,} steps.",
        f"It needs {outcome.test.bits_per_byte:.3f} bits per byte on held-out text of its corpus "
        f"(95 % interval {low:.3f} to {high:.3f}, {len(outcome.test.nll_nats):,} documents).",
        "",
        f"- Licence of the training text: {licence}",
        f"- Corpus: {context.input('corpus').fingerprint}",
        f"- Tokenizer: {context.input('tokenizer').fingerprint}",
        f"- Context: {outcome.shape.context_length} tokens; a document opens with the end-of-text token",
        "- Loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`, without remote code",
        "",
        "It continues text. It was not taught to follow instructions, repeats what its corpus says, and invents facts.",
    ]
    write_bytes(context.directory / "card.md", ("\n".join(lines) + "\n").encode())
