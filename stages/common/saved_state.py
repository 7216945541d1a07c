"""What a training must remember to go on: weights, optimizer state, averages, and the number of steps done.

Randomness of a step is seeded by its number, so nothing of it is saved. Loops of all wings save and resume through here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.contract import Context
from pipeline.errors import StageError
from stages.common.checkpoint import Checkpoint, check_identity, newest_checkpoint, save_checkpoint
from stages.common.optimizers import load_optimizer_tensors, optimizer_tensors
from stages.common.sharding import gathered, placed_like


class SavedState:
    """Saves and loads the state of one training; every process must make the same calls.

    Args:
        context: the stage's context; checkpoints lie under `context.checkpoints / "training"`.
        accelerator: of the training.
        parameters: trainable parameters by name; updated in place on resume.
        optimizers: over those parameters.
        identity: values that a checkpoint must share (config, data), as JSON.
        items_per_step: rows, or images, of one step over all processes; says where in the data a checkpoint stands.
        pause_seconds: wall time between checkpoints; longer where saving is slow, so that it takes at most 2 % of the time.
        keep: how many checkpoints stay on disk.
        averages: more tensors by name that belong to the state, such as moving averages; updated in place on resume.
    """

    def __init__(
        self,
        *,
        context: Context,
        accelerator: Accelerator,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Sequence[Optimizer],
        identity: Mapping[str, Any],
        items_per_step: int,
        pause_seconds: float,
        keep: int,
        averages: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._context, self._accelerator = context, accelerator
        self._parameters, self._optimizers = parameters, list(optimizers)
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._averages = averages
        self._identity, self._items_per_step = dict(identity), items_per_step
        self._pause_seconds, self._keep = pause_seconds, keep
        self._root = context.checkpoints / "training"
        self.last_save, self._last_seconds = time.monotonic(), 0.0
        self.seconds = 0.0
        """Time spent saving."""

    def agree(self, loss: Tensor) -> tuple[float, bool, bool]:
        """Return `loss` summed over all processes, and whether to stop and to save, the same in every process."""
        pause = max(self._pause_seconds, 50 * self._last_seconds)
        due = self._context.is_main and time.monotonic() - self.last_save > pause
        stop = self._context.stop_requested
        if self._accelerator.num_processes == 1:
            return float(loss), stop, due
        flags = torch.stack([loss.double(), *(loss.new_tensor(float(flag)).double() for flag in (stop, due))])
        total, stops, dues = self._accelerator.reduce(flags, "sum").tolist()
        return total, stops > 0, dues > 0

    def save(self, done: int) -> None:
        """Save the state after `done` steps (the main process writes; the others hand in their shards and go on)."""
        begin = time.monotonic()
        main = self._context.is_main
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": gathered({name: parameter.detach() for name, parameter in self._parameters.items()}, keep=main),
            "optimizer": gathered(optimizer_tensors(self._optimizers, self._names), keep=main),
        }
        if self._averages is not None:
            parts["averages"] = self._averages
        if main:
            state = {"identity": self._identity, "items_done": done * self._items_per_step}
            save_checkpoint(self._root, done, parts=parts, state=state, keep=self._keep)
        self.last_save = time.monotonic()
        self._last_seconds = self.last_save - begin
        self.seconds += self._last_seconds

    def resume(self, num_steps: int) -> Checkpoint | None:
        """Load the newest good checkpoint; return it, or None for a fresh start.

        Raises:
            StageError: it belongs to another training, or the processes do not find the same one.
        """
        parts = ("model", "optimizer") if self._averages is None else ("model", "optimizer", "averages")
        found = newest_checkpoint(self._root, parts=parts)
        step = found.step if found else 0
        steps = self._accelerator.gather(torch.tensor([step], device=self._accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise StageError(f"processes find checkpoints of different steps {steps}: they must share one file system")
        if self._context.is_main:
            self._context.events.rewind(step)
        if found is None:
            return None
        self._load(found, num_steps)
        if self._context.is_main:
            note = f"resumed at step {step}" + "".join(f"; passed over: {line}" for line in found.passed_over)
            self._context.log(step, note=note)
        return found

    def _load(self, found: Checkpoint, num_steps: int) -> None:
        check_identity(found, self._identity)
        if found.state["items_done"] != found.step * self._items_per_step or found.step > num_steps:
            raise StageError(f"{found.path.name} does not fit the plan of {num_steps} steps; run again with --force")
        copy_strictly(self._parameters, found.tensors("model"))
        load_optimizer_tensors(self._optimizers, self._names, found.tensors("optimizer"))
        if self._averages is not None:
            copy_strictly(self._averages, found.tensors("averages"))


@torch.no_grad()
def copy_strictly(into: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the tensors of the same names.

    Raises:
        StageError: a name or a shape is missing, surplus or different.
    """
    wrong = sorted(into.keys() ^ tensors.keys())
    wrong += sorted(name for name in into.keys() & tensors.keys() if into[name].shape != tensors[name].shape)
    if wrong:
        raise StageError(f"the checkpoint does not fit the model: {', '.join(wrong[:3])}; run again with --force")
    for name, tensor in into.items():
        tensor.copy_(placed_like(tensors[name], tensor))


def seed_of(*values: int) -> int:
    """Return one seed of 63 bits for a tuple of numbers, such as (seed, step, process)."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0] >> np.uint64(1))
