"""The stage's part of the report: what was learnt and forgotten, samples side by side, cost, proofs, and the cards."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline.contract import Context, read_events, write_bytes
from stages.common import plots
from stages.common.corpus_io import license_of
from stages.common.reload import PARITY_TOLERANCE
from stages.common.training import TrainingPlan, TrainingSummary
from stages.text.finetune.base import NOT_STATED, Base
from stages.text.finetune.cards import write_cards
from stages.text.finetune.config import Config
from stages.text.finetune.evaluation import TEMPERATURE, TOP_K, Comparison, Sample
from stages.text.finetune.export import Export

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that a finished fine-tuning reports."""

    base: Base
    plan: TrainingPlan
    summary: TrainingSummary
    context_length: int
    num_processes: int
    learning_rate: float
    num_adapted: int
    num_trainable: int
    num_base: int
    flops_per_token: int
    peak_memory_gib: float
    comparisons: list[Comparison]
    samples: list[Sample]
    waste: dict[str, float]

    @property
    def trainable_share(self) -> float:
        """Trainable parameters over those of the base."""
        return self.num_trainable / self.num_base

    @property
    def training_flops(self) -> float:
        """Floating-point operations of all steps, padding left out."""
        positions = self.plan.num_steps * self.plan.rows_per_step * self.context_length * (1 - self.waste["padded_share"])
        return float(self.flops_per_token) * round(positions)


def write_report(config: Config, context: Context, outcome: Outcome, exported: Export) -> None:
    """Write metrics, section, figures, samples and cards of a finished fine-tuning."""
    context.section.describe(
        title="Fine-tuning",
        idea="Instead of moving all weights of the pretrained model, LoRA leaves them alone and learns a small correction "
        "beside each: the product of two thin matrices, of which one starts at zero. A few percent of the parameters are "
        "enough to take on a new style, and the correction can be shipped alone or folded into the weights.",
        formula="W′ = W + (α / r) · B A\nA: r × inputs, B: outputs × r, B = 0 at the start",
    )
    _metrics(context, outcome, exported)
    _comparisons(context, outcome)
    _samples(context, outcome)
    _curves(context, outcome)
    _cost(context, config, outcome, exported)
    _origin(context, outcome.base)
    write_cards(
        context,
        base=outcome.base,
        comparisons=outcome.comparisons,
        licenses={"new text": license_of(context.input("corpus"))} | {"base": _base_license(context, outcome.base)},
        r=config.r,
        num_trainable=outcome.num_trainable,
    )


def _base_license(context: Context, base: Base) -> str:
    # A base of this recipe whose card does not say is under the licence of the text that it was made from. Of a base from
    # elsewhere nobody here knows that text: the old corpus is only what it is measured on.
    corpora = context.inputs("old_corpus") if context.inputs("base") else []
    return license_of(corpora[0]) if base.license == NOT_STATED and corpora else base.license


def _metrics(context: Context, outcome: Outcome, exported: Export) -> None:
    for row in outcome.comparisons:
        suffix = {"new": "", "old": "_old_domain"}[row.domain]
        text = {"new": "bits per byte", "old": "bits per byte, old text"}[row.domain]
        documents = {"n": len(row.num_bytes), "split": "test", "items": "documents", "higher_is_better": False}
        for key, title, value, interval in (
            ("", text, row.bits_after, row.after_interval),
            ("_before", f"{text}, before", row.bits_before, row.before_interval),
        ):
            shown = documents | {"title": title, "interval": list(interval), **({"yardstick": True} if key else {})}
            context.metric(f"bits_per_byte{suffix}{key}", value, unit="bit/byte", **shown)
        context.metric(
            f"bits_per_byte{suffix}_change",
            100 * row.change,
            unit="%",
            interval=[100 * bound for bound in row.interval],
            separable=row.is_separable,
            headline=True,
            title=f"change of {text}",
            **documents,
        )
    cost = {
        "num_trainable_parameters": (float(outcome.num_trainable), "1"),
        "trainable_share": (outcome.trainable_share, "1"),
        "peak_memory_gib": (outcome.peak_memory_gib, "GiB"),
        "adapter_mib": (exported.adapter_mib, "MiB"),
        "merged_mib": (exported.merged_mib, "MiB"),
        "parity_difference": (max(exported.parity.values()), "1"),
    }
    for name, (value, unit) in cost.items():
        context.metric(name, value, unit=unit, higher_is_better=False, n=1, items="models")
    context.metric(
        "training_flops", outcome.training_flops, unit="FLOP", higher_is_better=None, n=outcome.plan.num_steps, items="steps"
    )
    if outcome.summary.seconds > 0:
        speed = outcome.summary.num_tokens / outcome.summary.seconds
        context.metric("tokens_per_second", speed, unit="token/s", higher_is_better=True, n=outcome.plan.num_steps, items="steps")


def _comparisons(context: Context, outcome: Outcome) -> None:
    context.section.table(
        "Bits per byte before and after",
        ["text", "test documents", "base", "fine-tuned", "change", "95 % from", "to", "separable from zero"],
        [
            [
                {"new": "new style", "old": "old text"}[row.domain],
                len(row.num_bytes),
                row.bits_before,
                row.bits_after,
                f"{row.change:+.1%}",
                f"{row.interval[0]:+.1%}",
                f"{row.interval[1]:+.1%}",
                row.is_separable,
            ]
            for row in outcome.comparisons
        ],
        caption="Lower is better. The interval is a bootstrap over documents, each compared with itself.",
    )
    for row in outcome.comparisons:
        context.section.text(row.sentence())
    names = {"new": "new style", "old": "old text"}
    labels = [f"{names[row.domain]}, {which}" for row in outcome.comparisons for which in ("base", "fine-tuned")]
    values = [value for row in outcome.comparisons for value in (row.bits_before, row.bits_after)]
    intervals = [bounds for row in outcome.comparisons for bounds in (row.before_interval, row.after_interval)]
    path = plots.bar_chart(context.figures / "bits_per_byte.svg", labels, values, ylabel="bits per byte", intervals=intervals)
    context.section.figure(path, "What a byte of each text costs the base and the fine-tuned model.")


def _samples(context: Context, outcome: Outcome) -> None:
    rows = [[sample.prompt, sample.prompt + sample.base, sample.prompt + sample.finetuned] for sample in outcome.samples]
    context.section.samples(
        "The same opening, before and after",
        ["opening", "base", "fine-tuned"],
        rows,
        caption=f"Drawn with the same random numbers, temperature {TEMPERATURE}, among the {TOP_K} likeliest tokens.",
    )
    lines = [json.dumps(asdict(sample), ensure_ascii=False) for sample in outcome.samples]
    write_bytes(context.samples / "side_by_side.jsonl", ("\n".join(lines) + "\n").encode())


def _curves(context: Context, outcome: Outcome) -> None:
    loss, factor, validation = (_curve(context, name) for name in ("loss", "learning_rate_factor", "validation_bits_per_byte"))
    path = plots.line_chart(context.figures / "loss.svg", {"training": loss}, xlabel="step", ylabel="loss, nats per token")
    context.section.figure(path, "Loss of each training batch before it is learnt.")
    if len(validation[0]) > 1:
        path = plots.line_chart(
            context.figures / "validation.svg", {"validation": validation}, xlabel="step", ylabel="bits per byte"
        )
        context.section.figure(path, "Bits per byte of some validation documents of the new text; step 0 is the base.")
    rates = {"adapter": (factor[0], [outcome.learning_rate * value for value in factor[1]])}
    path = plots.line_chart(context.figures / "learning_rate.svg", rates, xlabel="step", ylabel="learning rate")
    context.section.figure(path, "The learning rate rises, stays and falls.")


def _curve(context: Context, name: str) -> Curve:
    points = {event.step: float(event.value) for event in read_events(context.events.path) if event.name == name}
    steps = sorted(points)
    return [float(step) for step in steps], [points[step] for step in steps]


def _cost(context: Context, config: Config, outcome: Outcome, exported: Export) -> None:
    plan, summary, base = outcome.plan, outcome.summary, outcome.base
    context.section.facts(
        "Adapter",
        {
            "base": base.identity.name,
            **({"commit of the base": base.identity.revision} if base.identity.revision else {}),
            "sha256 of the base's tensors": base.identity.tensors_sha256,
            "adapted layers": outcome.num_adapted,
            "rank r": config.r,
            "alpha": config.lora_alpha,
            "trainable parameters": outcome.num_trainable,
            "share of the base's": outcome.trainable_share,
            "adapter, MiB": exported.adapter_mib,
            "merged model, MiB": exported.merged_mib,
        },
    )
    context.section.facts(
        "Training",
        {
            "steps": plan.num_steps,
            "learning rate": outcome.learning_rate,
            "warm-up steps": plan.warmup_steps,
            "cool-down steps": plan.cooldown_steps,
            "positions per step": plan.rows_per_step * outcome.context_length,
            "rows per forward pass": plan.micro_batch_size,
            "processes": outcome.num_processes,
            "began at step": summary.start_step,
            "seconds in steps": summary.seconds,
            "peak memory, GiB": outcome.peak_memory_gib,
            "padded share of positions": outcome.waste["padded_share"],
            "counted FLOP": outcome.training_flops,
        },
    )
    context.section.text(
        "Operations are counted as 4N + 6A + 12·layers·heads·head_dim·context for each token: N weights of the base, which pass "
        "gradients on but get none, and A of the adapter (as PaLM, appendix B, counts pretraining with 6N)."
    )
    differences: dict[str, str | int | float | bool | None] = {**exported.parity, "allowed": PARITY_TOLERANCE}
    context.section.facts("Largest difference of a logit from the trained model, as a share of their spread", differences)
    context.section.text(
        "The base was proved unchanged: its tensors have the same sha256 after training as before, in memory and on disk."
    )
    for line in summary.passed_over:
        context.section.text(f"A checkpoint was passed over on resume: {line}.")


def _origin(context: Context, base: Base) -> None:
    """Show where a base came from that Groundup published."""
    if base.manifest is None:
        return
    context.section.table(
        "Where the base came from",
        ["stage", "artifact", "finished", "what it measured"],
        [
            [
                record.stage.removeprefix("stages."),
                record.fingerprint[:8],
                str(record.provenance.get("finished", "not stated")),
                ", ".join(f"{row['name']} {row['value']:.4g}" for row in record.metrics if row.get("headline")) or "-",
            ]
            for record in base.records
        ],
        caption="From the records that were published with the base. They are consistent, and they are not signed.",
    )
