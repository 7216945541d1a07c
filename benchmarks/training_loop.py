"""The pretrain loop against the bare model: `python -m benchmarks.training_loop [--rounds 9] [--steps 20]`.

Same process, same sizes, batches, optimizers and threads (those of the quickstart's pretrain stage). Three sides, in turn:

- loop: `stages.common.training.Training.run`: rows read from the token store, learning-rate schedule, clipping, guards
  against a loss that is not finite, heartbeat, curves and progress written. Checkpoints are excluded.
- bare: the same module and optimizers on batches prepared beforehand: forward, backward, optimizer step, nothing else.
- stock: the bare loop with the transformers model's own logits and PyTorch's cross-entropy instead of our loss.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from benchmarks.measuring import ROOT, Row, Table, alternate, ratios, spread, stage_artifact
from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.recipe import load_recipe
from stages.common.causal_lm import load_tokenizer
from stages.common.corpus_io import load_split
from stages.common.encoding import boundary_ids, encode_texts
from stages.common.grouping import GroupedDocuments
from stages.common.loss import CausalLmLoss
from stages.common.packing import Batch, PackedRows, Rows, rows_of_step
from stages.common.token_store import TokenStore, write_token_store
from stages.common.training import Training, TrainingPlan
from stages.text.pretrain import shape as dial
from stages.text.pretrain.config import Config
from stages.text.pretrain.model import build_model, initialise, make_optimizers

Loss = Callable[[Batch, float], Tensor]


@dataclass
class Setting:
    """What the three sides share."""

    config: Config
    shape: dial.Shape
    cut: dial.Batching
    store: TokenStore
    rows: Rows
    ids: tuple[int, int]
    num_steps: int

    def model(self) -> tuple[PreTrainedModel, list[Optimizer]]:
        """Return a new model with its first weights, and its optimizers."""
        bos_id, eos_id = self.ids
        model = build_model(self.shape, bos_id=bos_id, eos_id=eos_id, pad_id=None)
        statistics_store = self.store if self.config.token_statistics_init else None
        initialise(model, seed=self.config.seed, store=statistics_store, bos_id=bos_id, eos_id=eos_id)
        return model, make_optimizers(model, self.config, dial.learning_rates(self.config, self.shape))

    @property
    def plan(self) -> TrainingPlan:
        """The plan of one block of steps."""
        return TrainingPlan(
            num_steps=self.num_steps,
            warmup_steps=0,
            cooldown_steps=0,
            rows_per_step=self.cut.rows_per_step,
            micro_batch_size=self.cut.micro_batch_size,
            max_gradient_norm=self.config.max_gradient_norm,
            checkpoint_seconds=1e9,
            seed=self.config.seed,
        )


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    recipe = load_recipe(ROOT / "configs" / "quickstart.yaml")
    vocab_size = recipe.stages["tokenizer"].values.get("vocab_size", 4096)
    corpus = stage_artifact("corpus", "--card", recipe.stages["corpus"].values["card"])
    tokenizer = stage_artifact("tokenizer", "--needs.corpus", str(corpus), "--vocab_size", str(vocab_size))
    table = Table("Training loop", packages=["torch", "transformers", "accelerate"], other="bare")
    config = Config.parse(recipe.stages["pretrain"].values, where="quickstart")
    with tempfile.TemporaryDirectory() as folder:
        setting = _setting(config, Artifact.open(corpus), tokenizer, Path(folder), arguments.steps)
        rows = _measure(setting, Path(folder), arguments.rounds)
    shape = setting.shape
    note = (
        f"{shape.architecture}, {shape.num_layers} layers of {shape.hidden_size}, vocabulary {shape.vocab_size:,}, rows of "
        f"{shape.context_length}, layout {config.layout}, {setting.cut.positions_per_step:,} positions per step, "
        f"{torch.get_num_threads()} threads, blocks of {arguments.steps} steps."
    )
    table.show(rows, [note])


def _setting(config: Config, corpus: Artifact, tokenizer_folder: Path, folder: Path, num_steps: int) -> Setting:
    tokenizer = load_tokenizer(tokenizer_folder / "tokenizer")
    ids = boundary_ids(tokenizer)
    texts = load_split(corpus, "train")["text"]
    store = write_token_store(folder / "tokens", [encode_texts(tokenizer, list(texts))], vocab_size=len(tokenizer))
    shape = dial.shape_of(config, len(tokenizer))
    cut = dial.batching(config, shape, num_processes=1, on_gpu=False)
    common = {"context_length": shape.context_length, "seed": config.seed, "bos_id": ids[0], "eos_id": ids[1]}
    rows: Rows
    if config.layout == "grouped":
        rows = GroupedDocuments(store, group_tokens=cut.group_tokens, **common)
    else:
        rows = PackedRows(store, isolate_documents=config.isolate_documents, **common)
    return Setting(config, shape, cut, store, rows, ids, num_steps)


def _measure(setting: Setting, folder: Path, rounds: int) -> list[Row]:
    batches = _prepared(setting)
    bare_model, bare_optimizers = setting.model()
    module = CausalLmLoss(bare_model)
    stock_model, stock_optimizers = setting.model()

    def our_loss(batch: Batch, scale: float) -> Tensor:
        return module(batch.input_ids, batch.labels, batch.position_ids, scale)

    def stock_loss(batch: Batch, scale: float) -> Tensor:
        logits = stock_model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum") * scale

    sides = {
        "loop": _loop_side(setting, folder),
        "bare": partial(_bare_block, batches, our_loss, bare_optimizers),
        "stock": partial(_bare_block, batches, stock_loss, stock_optimizers),
    }
    for block in sides.values():
        block()  # first steps allocate optimizer state and memory
    found = alternate(sides, rounds=rounds)
    against_bare, against_stock = (ratios(found["loop"], found[name]) for name in ("bare", "stock"))
    loop = spread(found["loop"], "steps/s", 2)
    bare, stock = (spread(found[name], "steps/s", 2) for name in ("bare", "stock"))
    met = statistics.median(against_bare) >= 0.95
    return [
        Row("steps, against the same module bare", loop, bare, spread(against_bare), ">= 0.95", met),
        Row("steps, against stock logits and loss", loop, stock, spread(against_stock)),
    ]


def _loop_side(setting: Setting, folder: Path) -> Callable[[], float]:
    model, optimizers = setting.model()
    module, accelerator = CausalLmLoss(model), Accelerator(cpu=True)
    blocks = iter(range(10_000))

    def block() -> float:
        directory = folder / f"block{next(blocks)}"
        directory.mkdir()
        training = Training(
            context=Context(directory, {}, threads=torch.get_num_threads()),
            accelerator=accelerator,
            model=model,
            module=module,
            optimizers=optimizers,
            rows=setting.rows,
            plan=setting.plan,
            identity={},
        )
        begin = time.perf_counter()
        summary = training.run()
        seconds = time.perf_counter() - begin - summary.checkpoint_seconds
        return setting.num_steps / seconds

    return block


def _prepared(setting: Setting) -> list[list[tuple[Batch, float]]]:
    """Return for each step its micro-batches and the factor of their summed loss."""
    steps = []
    for step in range(setting.num_steps):
        size = {"rows_per_step": setting.cut.rows_per_step, "micro_batch_size": setting.cut.micro_batch_size}
        blocks = rows_of_step(step, **size, process_index=0, num_processes=1)
        scale = 1 / setting.rows.num_supervised([index for block in blocks for index in block])
        steps.append([(setting.rows.batch(block), scale) for block in blocks])
    return steps


def _bare_block(steps: list[list[tuple[Batch, float]]], loss: Loss, optimizers: list[Optimizer]) -> float:
    begin = time.perf_counter()
    for micro_batches in steps:
        for batch, scale in micro_batches:
            loss(batch, scale).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return len(steps) / (time.perf_counter() - begin)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
