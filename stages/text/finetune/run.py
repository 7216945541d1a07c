"""Fine-tune: open the base, put an adapter on it, train the adapter, measure, prove, save."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.contract import Context
from stages.common import devices
from stages.common.causal_lm import load_causal_lm, load_tokenizer, max_positions, vocab_rows
from stages.common.encoding import boundary_ids
from stages.common.guards import check_fits, check_isolation, check_labels
from stages.common.lora import attach_lora, base_sha256, lora_parameters, num_adapted
from stages.common.optimizers import adamw
from stages.common.packing import PackedRows
from stages.common.precision import AUTOCAST, DtypeName, faster_dtype, probe_batch
from stages.common.training import Training, TrainingSummary
from stages.text.finetune.base import Base, open_base
from stages.text.finetune.config import Config
from stages.text.finetune.data import training_store
from stages.text.finetune.evaluation import Evaluator
from stages.text.finetune.export import export
from stages.text.finetune.report import Outcome, write_report
from stages.text.finetune.training import (
    context_length_of,
    flops_per_token,
    learning_rate_of,
    loss_module,
    make_plan,
    with_horizon,
)

_PROBE_ROWS, _PROBE_LENGTH = 2, 64
"""Shape of the ids on which logits are compared: some real text, small enough for a large vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained adapter on its base, before it is measured and saved."""

    config: Config
    base: Base
    sha256_before: str
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rows: PackedRows
    training: Training
    summary: TrainingSummary
    evaluator: Evaluator


def run(config: Config, context: Context) -> None:
    """Train a LoRA adapter; write `adapter/`, `merged/` and the report.

    Raises:
        RecipeError: not exactly one base is given.
        DataError: base, corpus or target modules are not usable; the message names which.
        StageError: sizes do not fit, or the saved model is not the trained one; Diverged when the loss is not finite.
        Interrupted: a stop was asked for; the state is saved.
    """
    trained = train(config, context)
    if context.is_main:
        outcome = _measure(trained)
        context.phase("saving adapter and merged model, loading them again")
        probe = trained.rows.batch(range(_PROBE_ROWS)).input_ids[:, :_PROBE_LENGTH]
        exported = export(
            trained.model,
            trained.tokenizer,
            trained.base,
            context.directory,
            sha256_before=trained.sha256_before,
            probe=probe,
        )
        trained.base.save_origin(context.directory)
        write_report(config, context, outcome, exported)
    devices.wait_for_everyone(context, trained.training.accelerator)


def train(config: Config, context: Context) -> Trained:
    """Open the base and train an adapter on it, from the newest checkpoint if there is one."""
    context.phase("opening the base")
    base = open_base(config, context)
    accelerator = devices.make_accelerator(context)
    devices.set_up_threads(context, accelerator)
    tokenizer = load_tokenizer(base.folder)
    plain = load_causal_lm(base.folder, device=accelerator.device)
    sha256_before = base_sha256(plain)
    rows = _rows(config, context, accelerator, plain, tokenizer)
    context.phase("preparing the adapter")
    model = attach_lora(
        plain,
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        seed=config.seed,
    )
    evaluator = Evaluator(context=context, config=config, model=model, tokenizer=tokenizer, context_length=rows.context_length)
    training = _training(config, context, accelerator, base, model, rows, evaluator)
    training.plan = with_horizon(config, context, training)
    return Trained(
        config=config,
        base=base,
        sha256_before=sha256_before,
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        training=training,
        summary=training.run(),
        evaluator=evaluator,
    )


def _measure(trained: Trained) -> Outcome:
    evaluator, training = trained.evaluator, trained.training
    evaluator.during_training(training.plan.num_steps)
    parameters = dict(trained.model.named_parameters())
    return Outcome(
        base=trained.base,
        plan=training.plan,
        summary=trained.summary,
        context_length=trained.rows.context_length,
        num_processes=training.accelerator.num_processes,
        learning_rate=learning_rate_of(trained.config, trained.model),
        num_adapted=num_adapted(trained.model),
        num_trainable=sum(parameter.numel() for parameter in lora_parameters(trained.model).values()),
        num_base=sum(parameter.numel() for name, parameter in parameters.items() if "lora_" not in name),
        flops_per_token=flops_per_token(trained.model, trained.rows.context_length),
        peak_memory_gib=devices.peak_memory_gib(training.accelerator.device),
        comparisons=evaluator.compare_all(),
        samples=evaluator.samples(),
        waste=trained.rows.waste(),
    )


def _rows(
    config: Config, context: Context, accelerator: Accelerator, plain: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PackedRows:
    """Return the training rows, checked against the base."""
    length = context_length_of(config, plain)
    check_fits(
        context_length=length,
        max_positions=max_positions(plain) or length,
        tokenizer_size=len(tokenizer),
        vocab_size=vocab_rows(plain),
    )
    bos_id, eos_id = boundary_ids(tokenizer)
    store = training_store(context, accelerator, tokenizer)
    rows = PackedRows(
        store,
        context_length=length,
        seed=config.seed,
        bos_id=bos_id,
        eos_id=eos_id,
        isolate_documents=config.isolate_documents,
    )
    batch = rows.batch([0, rows.num_rows - 1])
    check_labels(batch, vocab_size=vocab_rows(plain))
    if config.isolate_documents:
        check_isolation(plain, batch.to(accelerator.device))
    return rows


def _training(
    config: Config,
    context: Context,
    accelerator: Accelerator,
    base: Base,
    model: PeftModel,
    rows: PackedRows,
    evaluator: Evaluator,
) -> Training:
    plan = make_plan(config, rows, num_processes=accelerator.num_processes, on_gpu=accelerator.device.type == "cuda")

    def decide() -> str:
        if config.dtype != "auto":
            return config.dtype
        losses = {name: loss_module(model, dtype) for name, dtype in AUTOCAST.items()}
        return faster_dtype(losses, probe_batch(rows, accelerator.device, micro_batch_size=plan.micro_batch_size))

    dtype: DtypeName = devices.resolve(context, accelerator, "dtype", decide)
    parameters = list(lora_parameters(model).values())
    groups = [{"params": parameters, "lr": learning_rate_of(config, model), "weight_decay": config.weight_decay}]
    return Training(
        context=context,
        accelerator=accelerator,
        model=model,
        module=loss_module(model, AUTOCAST[dtype]),
        optimizers=[adamw(groups, betas=config.adamw_betas)],
        rows=rows,
        plan=plan,
        identity=config.identity() | {"base": asdict(base.identity), "corpus": context.input("corpus").fingerprint},
        evaluate=evaluator.during_training,
    )
