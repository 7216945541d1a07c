"""The training loop that pretrain and finetune share: update, guard, report, save, evaluate, stop, resume.

One step is one optimizer update over a fixed set of rows, whatever the number of processes. Randomness of a step (such
as dropout) is seeded by (seed, step, process), so nothing of it needs to be saved: weights, optimizer state and the
number of steps done are the whole state. A checkpoint is saved before each evaluation, never after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from pipeline.contract import Context
from pipeline.errors import StageError
from stages.common import sharding
from stages.common.guards import check_finite, check_supervised
from stages.common.images.memory import is_out_of_memory
from stages.common.packing import Rows, rows_of_step
from stages.common.saved_state import SavedState, copy_strictly, seed_of
from stages.common.schedule import check_schedule, set_learning_rates, wsd_factor


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Numbers that a training follows; all of them are decided before step 0."""

    num_steps: int
    """Optimizer updates."""
    warmup_steps: int
    """Steps over which the learning rate rises."""
    cooldown_steps: int
    """Steps over which it falls at the end."""
    final_factor: float = 0.0
    """Where the learning rate would end, as a share of its full value."""
    rows_per_step: int
    """Rows in one global batch."""
    micro_batch_size: int
    """Rows per process in one forward pass."""
    max_gradient_norm: float
    """Gradients longer than this are scaled down to it."""
    evaluation_steps: frozenset[int] = frozenset()
    """Steps after which `evaluate` is called."""
    checkpoint_seconds: float = 60.0
    """Wall time between checkpoints; also saved before each evaluation, at the end and on request."""
    keep_checkpoints: int = 2
    """How many checkpoints stay on disk."""
    log_every_steps: int = 1
    """Steps between points of the curves."""
    seed: int
    """Seed of what is random in a step."""

    def num_accumulation_steps(self, num_processes: int) -> int:
        """Return forward passes per step and process.

        Raises:
            StageError: the rows of a step cannot be shared out evenly.
        """
        share = self.micro_batch_size * num_processes
        if self.rows_per_step % share:
            raise StageError(
                f"{self.rows_per_step} rows per step cannot be shared by {num_processes} processes with micro_batch_size "
                f"{self.micro_batch_size}: the first must be a multiple of the product. Change processes or micro_batch_size"
            )
        return self.rows_per_step // share


@dataclass(frozen=True)
class TrainingSummary:
    """What a training took.

    Attributes:
        num_tokens: supervised tokens of the steps timed here.
        seconds: time of those steps, without evaluation and checkpoints.
        checkpoint_seconds: time spent saving.
        passed_over: checkpoints that could not be used on resume, one sentence each.
        start_step: the step this process began at.
    """

    num_tokens: int
    seconds: float
    checkpoint_seconds: float
    passed_over: list[str]
    start_step: int


class Training:
    """Trains the parameters of `module` that require a gradient.

    Args:
        context: the stage's context.
        accelerator: from `devices.make_accelerator`.
        model: the model whose trainable parameters are saved in checkpoints.
        module: returns the scaled loss of a batch (`loss.CausalLmLoss`), maybe compiled; wrapped for DDP here, unless it
            was sharded (`sharding.shard`).
        optimizers: over the trainable parameters, each group with its full learning rate.
        rows: the training rows.
        plan: the numbers.
        identity: values that a checkpoint must share (config, data, tokenizer), as JSON.
        evaluate: called with the number of steps done, in every process.
    """

    def __init__(
        self,
        *,
        context: Context,
        accelerator: Accelerator,
        model: nn.Module,
        module: nn.Module,
        optimizers: list[Optimizer],
        rows: Rows,
        plan: TrainingPlan,
        identity: Mapping[str, Any],
        evaluate: Callable[[int], None] | None = None,
    ) -> None:
        check_schedule(num_steps=plan.num_steps, warmup_steps=plan.warmup_steps, cooldown_steps=plan.cooldown_steps)
        self.num_accumulation_steps = plan.num_accumulation_steps(accelerator.num_processes)
        self.context, self.accelerator, self.plan, self.rows = context, accelerator, plan, rows
        self.model, self.optimizers = model, optimizers
        self.sharded = sharding.is_asked_for()
        self.module = accelerator.prepare(module) if accelerator.num_processes > 1 and not self.sharded else module
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.evaluate = evaluate
        self.saved = SavedState(
            context=context,
            accelerator=accelerator,
            parameters=self.parameters,
            optimizers=optimizers,
            identity=identity,
            items_per_step=plan.rows_per_step,
            pause_seconds=plan.checkpoint_seconds,
            keep=plan.keep_checkpoints,
        )
        self._seconds, self._num_tokens = 0.0, 0

    def run(self) -> TrainingSummary:
        """Train from the newest good checkpoint, or from the start, to the last step.

        Raises:
            Interrupted: a stop was asked for; the state is saved.
            Diverged: a loss or gradient is not finite; the last checkpoint is good.
        """
        found = self.saved.resume(self.plan.num_steps)
        start = found.step if found else 0
        self.module.train()
        self.context.progress(start, self.plan.num_steps)
        for step in range(start, self.plan.num_steps):
            if step in self.plan.evaluation_steps and self.evaluate:
                self.evaluate(step)
            stop, save = self._step(step)
            done = step + 1
            if stop or save or done in self.plan.evaluation_steps or done == self.plan.num_steps:
                self.saved.save(done)
            if stop:
                self.context.interrupt()
        return TrainingSummary(
            num_tokens=self._num_tokens,
            seconds=self._seconds,
            checkpoint_seconds=self.saved.seconds,
            passed_over=found.passed_over if found else [],
            start_step=start,
        )

    def _step(self, step: int) -> tuple[bool, bool]:
        begin = time.perf_counter()
        factor = self._factor(step)
        set_learning_rates(self.optimizers, factor)
        plan = self.plan
        num_tokens = self.rows.num_supervised(range(step * plan.rows_per_step, (step + 1) * plan.rows_per_step))
        check_supervised(num_tokens, step=step)
        loss, stop, save = self.saved.agree(self._gradients_within_memory(step, num_tokens))
        norm = self._clip()
        check_finite(step + 1, loss=loss, gradient_norm=norm)
        self._update()
        seconds = time.perf_counter() - begin
        self._seconds += seconds
        self._num_tokens += num_tokens
        self._report(step + 1, loss=loss, gradient_norm=norm, factor=factor, tokens_per_second=num_tokens / seconds)
        return stop, save

    def _factor(self, step: int) -> float:
        return wsd_factor(
            step,
            num_steps=self.plan.num_steps,
            warmup_steps=self.plan.warmup_steps,
            cooldown_steps=self.plan.cooldown_steps,
            final_factor=self.plan.final_factor,
        )

    def seconds_per_step(self, *, num_warmup: int = 2, num_steps: int = 6) -> float:
        """Return how long a step takes, by real steps that are undone afterwards, bit for bit.

        Every process must call this, before `run`, when no checkpoint exists.
        """
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.module.train()
        seconds = []
        for step in range(num_warmup + num_steps):
            begin = time.perf_counter()
            num_tokens = self.rows.num_supervised(range(step * self.plan.rows_per_step, (step + 1) * self.plan.rows_per_step))
            loss, _, _ = self.saved.agree(self._gradients_within_memory(step, num_tokens))
            check_finite(step + 1, loss=loss, gradient_norm=self._clip())
            self._update()
            seconds.append(time.perf_counter() - begin)
            self.context.beat()
        copy_strictly(self.parameters, before)
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()
        return sum(seconds[num_warmup:]) / num_steps

    def _update(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _gradients_within_memory(self, step: int, num_tokens: int) -> Tensor:
        """Return what `_gradients` returns.

        Raises:
            StageError: memory ran out; names the key to lower.
        """
        try:
            return self._gradients(step, num_tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
        raise StageError(
            f"step {step + 1}: out of memory in a forward and backward pass ({reason}). Set micro_batch_size lower, such "
            "as half: the rows of a step, and with layout packed the result, stay the same"
        )

    def _gradients(self, step: int, num_tokens: int) -> Tensor:
        """Accumulate this process's gradients; return its share of the loss, nats per token."""
        accelerator, plan = self.accelerator, self.plan
        blocks = rows_of_step(
            step,
            rows_per_step=plan.rows_per_step,
            micro_batch_size=plan.micro_batch_size,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        torch.manual_seed(seed_of(plan.seed, step, accelerator.process_index))
        total = torch.zeros((), device=accelerator.device)
        # DDP and FSDP average gradients over processes; times num_processes makes that a sum over all tokens of the step.
        scale = accelerator.num_processes / num_tokens
        for block in blocks:
            batch = self.rows.batch(block).to(accelerator.device)
            with self._synchronised(block is blocks[-1]):
                loss = self.module(batch.input_ids, batch.labels, batch.position_ids, scale)
                loss.backward()
            total += loss.detach()
        return total / accelerator.num_processes

    def _synchronised(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Let a backward pass sum gradients over the processes, or keep them until the last one of the step does."""
        if self.sharded:
            sharding.set_gradient_sync(self.module, wanted)
        unchanged: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        return unchanged if wanted or self.sharded else self.accelerator.no_sync(self.module)

    def _clip(self) -> float:
        with_grad = [p for p in self.parameters.values() if p.grad is not None]
        total = get_total_norm([p.grad for p in with_grad if p.grad is not None])
        norm = float(sharding.whole(total))
        if norm > self.plan.max_gradient_norm:
            clip_grads_with_norm_(with_grad, self.plan.max_gradient_norm, total)
        return norm

    def _report(self, done: int, *, loss: float, gradient_norm: float, factor: float, tokens_per_second: float) -> None:
        plan = self.plan
        if done % plan.log_every_steps == 0 or done == plan.num_steps:
            self.context.log(done, loss=loss, gradient_norm=gradient_norm, learning_rate_factor=factor)
        self.context.progress(done, plan.num_steps, loss=loss, tokens_per_second=tokens_per_second)
