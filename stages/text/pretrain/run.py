"""The pretrain stage: corpus and tokenizer in, a causal language model out.

Order: machine and world size, token stores, model, guards, horizon, training, then the main process saves the model,
checks it by loading it back, and reports.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.contract import Context
from stages.common import devices, sharding
from stages.common.causal_lm import load_tokenizer
from stages.common.encoding import boundary_ids
from stages.common.grouping import GroupedDocuments
from stages.common.guards import check_fits, check_isolation, check_labels
from stages.common.loss import CausalLmLoss
from stages.common.packing import Batch, PackedRows, Rows
from stages.common.precision import AUTOCAST, faster_dtype, probe_batch
from stages.common.token_store import TokenStore
from stages.common.training import Training, TrainingPlan
from stages.text.pretrain import shape as dial
from stages.text.pretrain.config import Config
from stages.text.pretrain.data import documents_of, token_stores
from stages.text.pretrain.evaluation import Evaluator
from stages.text.pretrain.horizon import steps_of_budget, steps_without_budget
from stages.text.pretrain.model import build_model, initialise, make_optimizers
from stages.text.pretrain.report import Outcome, write_report
from stages.text.pretrain.saving import save_model

ROWS_TO_PROBE = 256
"""Rows that are searched for one in which documents could see each other."""


def run(config: Config, context: Context) -> None:
    """Train and report.

    Raises:
        StageError: sizes, processes or horizon do not fit together; Diverged when the loss stops being finite.
        DataError: a split is empty or an id is outside the vocabulary.
        Interrupted: a stop was asked for; the state is saved.
    """
    accelerator = devices.make_accelerator(context, can_shard=True)
    devices.set_up_threads(context, accelerator)
    tokenizer = load_tokenizer(context.input("tokenizer") / "tokenizer")
    shape = dial.shape_of(config, len(tokenizer))
    on_gpu = accelerator.device.type == "cuda"
    cut = dial.batching(config, shape, num_processes=accelerator.num_processes, on_gpu=on_gpu)
    stores = token_stores(context, tokenizer)
    context.phase("preparing the model")
    model = _fresh_model(config, shape, tokenizer, stores["train"]).to(accelerator.device)
    rows = _rows(config, shape, tokenizer, stores["train"], cut)
    _check(shape, tokenizer, model, rows)
    dtype = _dtype(config, context, accelerator, model, rows, cut)
    evaluator = Evaluator(
        context=context,
        accelerator=accelerator,
        model=copy.deepcopy(model).cpu() if sharding.is_asked_for() else model,
        trained=model,
        tokenizer=tokenizer,
        config=config,
        boundary_ids=boundary_ids(tokenizer),
        validation=documents_of(context, stores["validation"], "validation", config.num_evaluation_documents),
    )
    training = _training(config, context, evaluator, rows, shape, cut, dtype)
    training.plan = _plan(config, context, training, evaluator, shape, cut)
    summary = training.run()
    evaluator.take_over()
    validation = evaluator.score(
        documents_of(context, stores["validation"], "validation", config.max_test_documents), "validation"
    )
    evaluator.log_loss(training.plan.num_steps, validation.first(len(evaluator.validation.tokens)))
    outcome = Outcome(
        summary=summary,
        plan=training.plan,
        positions_per_step=cut.positions_per_step,
        shape=shape,
        dtype=dtype,
        validation=validation,
        test=evaluator.score(documents_of(context, stores["test"], "test", config.max_test_documents), "test"),
        samples=evaluator.samples() if context.is_main else [],
        waste=rows.waste(),
        num_processes=accelerator.num_processes,
    )
    if context.is_main:
        context.phase("saving the model, loading it again")
        with devices.uncompiled():  # on the CPU, for which nobody asked the compiler
            difference = save_model(evaluator.model, context.input("tokenizer") / "tokenizer", context.directory)
        context.phase("measuring xz, bigrams and the speed of the machine")
        write_report(config, context, evaluator.model, stores, outcome, reload_difference=difference)
    devices.wait_for_everyone(context, accelerator)


def _fresh_model(config: Config, shape: dial.Shape, tokenizer: PreTrainedTokenizerBase, store: TokenStore) -> PreTrainedModel:
    bos_id, eos_id = boundary_ids(tokenizer)
    model = build_model(shape, bos_id=bos_id, eos_id=eos_id, pad_id=tokenizer.pad_token_id)
    statistics = store if config.token_statistics_init else None
    initialise(model, seed=config.seed, store=statistics, bos_id=bos_id, eos_id=eos_id)
    return model


def _rows(config: Config, shape: dial.Shape, tokenizer: PreTrainedTokenizerBase, store: TokenStore, cut: dial.Batching) -> Rows:
    bos_id, eos_id = boundary_ids(tokenizer)
    common = {"context_length": shape.context_length, "seed": config.seed, "bos_id": bos_id, "eos_id": eos_id}
    if config.layout == "grouped":
        return GroupedDocuments(store, group_tokens=cut.group_tokens, **common)
    return PackedRows(store, isolate_documents=config.isolate_documents, **common)


def _check(shape: dial.Shape, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, rows: Rows) -> None:
    check_fits(
        context_length=shape.context_length,
        max_positions=model.config.max_position_embeddings,
        tokenizer_size=len(tokenizer),
        vocab_size=shape.vocab_size,
    )
    batch = rows.batch([0])
    check_labels(batch, vocab_size=shape.vocab_size)
    if batch.position_ids is not None:
        check_isolation(model, row_of_several_documents(rows).to(model.device))


def row_of_several_documents(rows: Rows) -> Batch:
    """Return the first row that holds the end of a document and the start of another, else just the first."""
    found = (rows.batch([index]) for index in range(ROWS_TO_PROBE))
    several = (batch for batch in found if batch.position_ids is not None and bool((batch.position_ids[:, 1:] == 0).any()))
    return next(several, rows.batch([0]))


def _dtype(
    config: Config, context: Context, accelerator: Accelerator, model: PreTrainedModel, rows: Rows, cut: dial.Batching
) -> torch.dtype:
    def decide() -> str:
        if config.dtype != "auto":
            return config.dtype
        losses = {name: CausalLmLoss(model, autocast_dtype=dtype) for name, dtype in AUTOCAST.items()}
        return faster_dtype(losses, probe_batch(rows, accelerator.device, micro_batch_size=cut.micro_batch_size))

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[devices.resolve(context, accelerator, "dtype", decide)]


def _training(
    config: Config,
    context: Context,
    evaluator: Evaluator,
    rows: Rows,
    shape: dial.Shape,
    cut: dial.Batching,
    dtype: torch.dtype,
) -> Training:
    accelerator, model = evaluator.accelerator, evaluator.trained
    wanted, reason = devices.resolve(
        context, accelerator, "compile", lambda: devices.decide_compile(config.compile, accelerator.device)
    )
    context.log(0, compile=reason)
    plan = TrainingPlan(
        num_steps=1,
        warmup_steps=0,
        cooldown_steps=0,
        rows_per_step=cut.rows_per_step,
        micro_batch_size=cut.micro_batch_size,
        max_gradient_norm=config.max_gradient_norm,
        checkpoint_seconds=config.checkpoint_seconds,
        keep_checkpoints=config.keep_checkpoints,
        seed=config.seed,
    )
    identity = {role: context.input(role).fingerprint for role in ("corpus", "tokenizer")} | config.model_dump(mode="json")
    module: nn.Module = CausalLmLoss(model, autocast_dtype=None if dtype == torch.float32 else dtype)
    if wanted:
        devices.compile_blocks(module)
    if sharding.is_asked_for():
        module = sharding.shard(module)
    return Training(
        context=context,
        accelerator=accelerator,
        model=model,
        module=module,
        optimizers=make_optimizers(model, config, dial.learning_rates(config, shape)),
        rows=rows,
        plan=plan,
        identity=identity,
        evaluate=evaluator,
    )


def _plan(
    config: Config, context: Context, training: Training, evaluator: Evaluator, shape: dial.Shape, cut: dial.Batching
) -> TrainingPlan:
    """Return the plan with its number of steps, which is decided once."""
    plan = training.plan
    if config.budget_minutes is None:
        steps = steps_without_budget(config, shape, tokens_per_step=cut.positions_per_step)
    else:
        context.phase("measuring how long a step takes")
        seconds = 0.0 if "num_steps" in context.resolved() else training.seconds_per_step()
        steps = devices.resolve(
            context,
            training.accelerator,
            "num_steps",
            lambda: steps_of_budget(
                config,
                seconds_spent=devices.seconds_since_start(),
                seconds_per_step=seconds,
                tokens_per_step=cut.positions_per_step,
                evaluation_tokens=sum(len(tokens) for tokens in evaluator.validation.tokens),
            ),
        )
    warmup, cooldown = dial.warmup_and_cooldown(config, steps)
    return replace(
        plan,
        num_steps=steps,
        warmup_steps=warmup,
        cooldown_steps=cooldown,
        final_factor=config.final_learning_rate_share,
        evaluation_steps=dial.evaluation_steps(config, steps),
        log_every_steps=max(1, steps // 1000),
    )
