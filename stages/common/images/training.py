"""The training loop of all image families: each player in turn, averages, checkpoints, samples on the way.

Which images a step sees and all of its noise are pure functions of (seed, step): a resumed run equals an uninterrupted
one, and the number of processes changes neither. The budget is counted in FLOPs and turned into steps before step 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.contract import Context
from pipeline.errors import StageError
from stages.common.guards import check_finite
from stages.common.images.averages import AveragedWeights
from stages.common.images.batches import Batches, rows_of_process
from stages.common.images.config import ImageModelConfig
from stages.common.images.family import Optimisation, Player, Trainable
from stages.common.images.grid import Split
from stages.common.images.ledger import FlopLedger
from stages.common.images.memory import TrainingMemory, halvings, within_memory
from stages.common.images.noise import BatchNoise, seeded_generator
from stages.common.optimizers import adamw
from stages.common.saved_state import SavedState
from stages.common.schedule import set_learning_rates

T = TypeVar("T")
WARMUP_SHARE = 0.1
_MOST_LOGGED_STEPS = 500


@dataclass(frozen=True)
class Seat:
    """One player of a training.

    Attributes:
        name: as the family calls it.
        player: the family's module.
        module: the same, wrapped for data-parallel training where there are several processes.
        optimizer: over the parameters registered in the player.
        rule: how it learns.
    """

    name: str
    player: Player
    module: nn.Module
    optimizer: Optimizer
    rule: Optimisation

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that this player trains, by name."""
        return {f"{self.name}.{key}": parameter for key, parameter in self.player.named_parameters()}


class ImageTraining:
    """Trains a family on the images of `train`.

    Args:
        config: budget, batch, rates, checkpoints.
        context: the stage's context.
        accelerator: from `devices.make_accelerator`.
        family: its networks are trained in place.
        train: images and labels.
        identity: what a checkpoint must share, as JSON.
        may_repeat: whether a batch may hold an image several times, because there are fewer images than it has places.
        autocast_dtype: precision of matrix products; None: float32.
        memory: made before the networks, where what a step takes is to be told; its peak is logged.
    """

    def __init__(
        self,
        *,
        config: ImageModelConfig,
        context: Context,
        accelerator: Accelerator,
        family: Trainable,
        train: Split,
        identity: Mapping[str, Any],
        may_repeat: bool = False,
        autocast_dtype: torch.dtype | None = None,
        memory: TrainingMemory | None = None,
    ) -> None:
        self._num_rows = rows_of_process(config.batch_size, accelerator.num_processes)
        if config.batch_size > len(train) and not may_repeat:
            raise StageError(f"batch_size is {config.batch_size}, but train has {len(train)} images; set at most {len(train)}")
        self.config, self.context, self.accelerator, self.family = config, context, accelerator, family
        self._train, self._autocast_dtype = train, autocast_dtype
        self._memory = memory or TrainingMemory(accelerator.device)
        self.seats = [self._seat(name, player) for name, player in family.players().items()]
        self.averages = AveragedWeights(family.averaged(), decay=config.average_decay)
        self.parameters = {name: p for seat in self.seats for name, p in seat.parameters().items()}
        self.saved = SavedState(
            context=context,
            accelerator=accelerator,
            parameters=self.parameters,
            optimizers=[seat.optimizer for seat in self.seats],
            identity=identity,
            items_per_step=config.batch_size,
            pause_seconds=config.checkpoint_seconds,
            keep=config.keep_checkpoints,
            averages=self.averages.tensors,
        )
        self._batches = Batches(len(train), config.batch_size, config.seed)

    def _seat(self, name: str, player: Player) -> Seat:
        rule = self.family.optimisation()[name]
        group = {"params": list(player.parameters()), "lr": rule.learning_rate, "weight_decay": rule.weight_decay}
        module = self.accelerator.prepare(player) if self.accelerator.num_processes > 1 else player
        return Seat(name, player, module, adamw([group], betas=rule.betas, eps=1e-8), rule)

    def flops_per_step(self) -> int:
        """Return the counted FLOPs of one step over all processes; no weight changes.

        Raises:
            StageError: the batch does not fit into the memory; names one that does.
        """
        return self._within_memory(self._counted_flops)

    def _counted_flops(self) -> int:
        with FlopLedger() as ledger:
            for seat in self.seats:
                self._loss(seat.player, 0, self.seats.index(seat))["loss"].backward()  # type: ignore[no-untyped-call]
        for seat in self.seats:
            seat.optimizer.zero_grad(set_to_none=True)
        return ledger.flops * self.accelerator.num_processes

    def run(self, num_steps: int, evaluations: Mapping[int, Callable[[], None]]) -> None:
        """Train from the newest good checkpoint, or from the start, to `num_steps`; `evaluations` are called on the way.

        Args:
            num_steps: updates of each player.
            evaluations: number of steps done -> what to call then, in every process.

        Raises:
            Interrupted: a stop was asked for; the state is saved.
            Diverged: a loss or gradient is not finite; the last checkpoint is good.
            StageError: the batch does not fit into the memory; names one that does.
        """
        found = self.saved.resume(num_steps)
        self._memory.start()
        for step in range(found.step if found else 0, num_steps):
            if step in evaluations:
                with self._memory.paused():
                    evaluations[step]()
            stop, save = self._step(step, num_steps)
            done = step + 1
            if stop or save or done in evaluations or done == num_steps:
                self.saved.save(done)
            if stop:
                self.context.interrupt()

    def _step(self, step: int, num_steps: int) -> tuple[bool, bool]:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        factor = cosine_factor(step, num_steps=num_steps)
        set_learning_rates([seat.optimizer for seat in self.seats], factor)
        values: dict[str, float] = {}
        for index, seat in enumerate(self.seats):
            values |= self._within_memory(partial(self._play, seat, step, index))
        self.averages.update(step + 1)
        total = sum(values[f"{seat.name}.loss"] for seat in self.seats)
        share = torch.tensor(total / self.accelerator.num_processes, device=self.accelerator.device)
        _, stop, save = self.saved.agree(share)
        seconds = time.perf_counter() - begin
        self._report(step + 1, num_steps, values, seconds=seconds, cpu_seconds=time.process_time() - cpu_begin)
        return stop, save

    def _play(self, seat: Seat, step: int, index: int) -> dict[str, float]:
        """Update one player; return its logged scalars as NAME.KEY."""
        losses = self._loss(seat.module, step, index)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        scalars = torch.stack([value.detach().float() for value in losses.values()])
        if self.accelerator.num_processes > 1:
            scalars = self.accelerator.reduce(scalars, "mean")
        (group,) = seat.optimizer.param_groups  # asking the modules for their parameters takes 2 % of a small step
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        # All tensors in one call, as `clip_grad_norm_` does on a GPU only: small networks have many small tensors.
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        values = dict(zip(losses, scalars.tolist(), strict=True))
        check_finite(step + 1, loss=values["loss"], gradient_norm=norm)
        if norm > seat.rule.max_gradient_norm:
            torch._foreach_mul_(gradients, seat.rule.max_gradient_norm / norm)
        seat.optimizer.step()
        seat.optimizer.zero_grad(set_to_none=True)
        return {f"{seat.name}.{key}": value for key, value in (values | {"gradient_norm": norm}).items()}

    def _within_memory(self, work: Callable[[], T]) -> T:
        """Do `work`; where memory runs out, find a batch that fits and name it."""
        num_processes = self.accelerator.num_processes

        def attempt(batch_size: int) -> None:
            for index, seat in enumerate(self.seats):
                loss = self._loss(seat.player, 0, index, num_rows=batch_size // num_processes)["loss"]
                # Not backward(), which would make DDP wait for the other processes.
                torch.autograd.grad(loss, list(seat.player.parameters()), allow_unused=True)

        return within_memory(work, sizes=halvings(self.config.batch_size, num_processes), attempt=attempt)

    def _loss(self, module: nn.Module, step: int, index: int, *, num_rows: int | None = None) -> dict[str, Tensor]:
        """Return a player's losses on this process's rows of the batch, or on the first `num_rows` of them."""
        config, accelerator = self.config, self.accelerator
        first, num_rows = accelerator.process_index * self._num_rows, num_rows or self._num_rows
        chosen = self._batches.rows(step)[first : first + num_rows]
        noise = BatchNoise(
            seeded_generator(config.seed, step, index),
            first=first,
            num_rows=num_rows,
            global_rows=config.batch_size,
            device=accelerator.device,
        )
        images, labels = (tensor[chosen].to(accelerator.device) for tensor in (self._train.images, self._train.labels))
        dtype = self._autocast_dtype
        with torch.autocast(accelerator.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            losses: dict[str, Tensor] = module(images, labels, noise)
        return losses

    def _report(self, done: int, num_steps: int, values: dict[str, float], *, seconds: float, cpu_seconds: float) -> None:
        if done % max(1, num_steps // _MOST_LOGGED_STEPS) == 0 or done == num_steps:
            spent = {"step_seconds": seconds, "step_cpu_seconds": cpu_seconds, "step_memory_gib": self._memory.peak_gib}
            self.context.log(done, **values, **spent)
        shown = {"loss": values[f"{self.seats[0].name}.loss"], "images_per_second": self.config.batch_size / seconds}
        self.context.progress(done, num_steps, **shown)


def cosine_factor(step: int, *, num_steps: int) -> float:
    """Return the factor on the learning rate for update number `step` (0 is the first): linear rise, then half a cosine."""
    warmup = max(1, round(WARMUP_SHARE * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - warmup) / (num_steps + 1 - warmup)))
