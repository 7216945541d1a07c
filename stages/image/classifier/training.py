"""Training of one extractor, and how a finished one survives a kill.

Which images a step sees is a pure function of (seed, step); several processes share each batch and average their gradients.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.contract import Context, fsync_directory, fsync_tree
from pipeline.errors import StageError
from stages.common import devices
from stages.common.guards import check_finite
from stages.common.images.batches import Batches, rows_of_process
from stages.common.images.extractor import ExtractorNetwork, initialise
from stages.common.images.features import ExtractorKind, save_extractor
from stages.common.images.grid import Grid, Split
from stages.common.images.labels import labelled
from stages.common.images.memory import halvings, within_memory
from stages.common.images.noise import seeded_generator
from stages.common.images.training import cosine_factor
from stages.common.images.turns import turns_of
from stages.common.optimizers import adamw
from stages.common.schedule import set_learning_rates
from stages.image.classifier.config import Config
from stages.image.classifier.model import ClassObjective, TurnObjective

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One extractor to make.

    Attributes:
        name: of its folder.
        kind: what it learns.
        seed: of its weights and its order of images.
        num_outputs: of its head.
        first_step: steps that the extractors before it take, so that steps count on through the stage.
        num_steps: steps of its own.
    """

    name: str
    kind: ExtractorKind
    seed: int
    num_outputs: int
    first_step: int
    num_steps: int


def tasks_of(config: Config, grid: Grid, *, with_classes: bool) -> list[Task]:
    """Return the extractors to make, in their order; those that need classes only where there are some."""
    kinds: list[tuple[str, ExtractorKind, int]] = [
        ("supervised-0", "supervised", len(grid.classes)),
        ("supervised-1", "supervised", len(grid.classes)),
        ("rotation", "rotation", len(turns_of(grid.height, grid.width))),
        ("random", "random", 0),
    ]
    tasks: list[Task] = []
    for index, (name, kind, num_outputs) in enumerate(kinds):
        if with_classes or kind != "supervised":
            first = tasks[-1].first_step + tasks[-1].num_steps if tasks else 0
            steps = 0 if kind == "random" else config.num_steps
            seed = config.seed + index
            tasks.append(Task(name=name, kind=kind, seed=seed, num_outputs=num_outputs, first_step=first, num_steps=steps))
    return tasks


class Trainer:
    """Makes extractors one after the other; every process must make the same calls.

    Args:
        config: steps, batch, rates, sizes.
        context: the stage's context.
        accelerator: from `devices.make_accelerator`.
        grid: of the images.
        train: images to learn from; features are made comparable over all of them.
        total_steps: of all extractors, for the display.

    Raises:
        StageError: the batch cannot be shared out to the processes, or is larger than the train split.
    """

    def __init__(
        self, *, config: Config, context: Context, accelerator: Accelerator, grid: Grid, train: Split, total_steps: int
    ) -> None:
        self._num_rows = rows_of_process(config.batch_size, accelerator.num_processes)
        self.config, self.context, self.accelerator, self.grid = config, context, accelerator, grid
        self._train, self._total_steps = train, total_steps

    def make(self, task: Task) -> Path:
        """Return the folder of a finished extractor under `context.checkpoints`: made now, or by an earlier attempt.

        Raises:
            StageError: a feature has no variance; Diverged when the loss stops being finite.
            Interrupted: a stop was asked for; finished extractors are saved.
        """
        folder = self.context.checkpoints / "extractors" / task.name
        if not folder.exists():
            if self.context.is_main:
                self.context.events.rewind(task.first_step)
            network = self._network(task)
            if task.num_steps:
                self._fit(task, network)
            if self.context.is_main:
                _save(folder, network, self._train.images)
        devices.wait_for_everyone(self.context, self.accelerator)
        return folder

    def _network(self, task: Task) -> ExtractorNetwork:
        network = ExtractorNetwork(
            channels=self.grid.channels,
            height=self.grid.height,
            width=self.grid.width,
            levels=self.grid.levels,
            num_outputs=task.num_outputs,
            num_features=self.config.num_features,
            first_width=self.config.first_width,
        )
        initialise(network, seeded_generator(task.seed))
        return network.to(self.accelerator.device)

    def _fit(self, task: Task, network: ExtractorNetwork) -> None:
        objective: nn.Module
        split = self._train
        if task.kind == "supervised":
            objective, split = ClassObjective(network), labelled(split)
        else:
            objective = TurnObjective(network, turns_of(self.grid.height, self.grid.width))
        if self.config.batch_size > len(split):
            raise StageError(
                f"batch_size is {self.config.batch_size}, but {task.name} has {len(split)} train images to learn from; set at "
                f"most {len(split)}"
            )
        module = self.accelerator.prepare(objective) if self.accelerator.num_processes > 1 else objective
        group = {"params": list(network.parameters()), "lr": self.config.learning_rate, "weight_decay": self.config.weight_decay}
        optimizer = adamw([group], betas=(0.9, 0.999), eps=1e-8)
        batches = Batches(len(split), self.config.batch_size, task.seed)
        sizes = halvings(self.config.batch_size, self.accelerator.num_processes)

        def attempt(batch_size: int) -> None:
            rows = torch.arange(batch_size // self.accelerator.num_processes)
            # Not backward(), which would make DDP wait for the other processes.
            torch.autograd.grad(self._loss(objective, split, rows, rows), list(network.parameters()), allow_unused=True)

        for step in range(task.num_steps):
            set_learning_rates([optimizer], cosine_factor(step, num_steps=task.num_steps))
            loss = within_memory(partial(self._gradients, module, split, batches.rows(step)), sizes=sizes, attempt=attempt)
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM))
            value, stop = self._agree(loss)
            check_finite(step + 1, loss=value, gradient_norm=norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = task.first_step + step + 1
            self.context.log(done, **{f"{task.name}.loss": value})
            self.context.progress(done, self._total_steps, loss=value, extractor=task.name)
            if stop and step + 1 < task.num_steps:
                self.context.interrupt()

    def _gradients(self, module: nn.Module, split: Split, batch: Tensor) -> Tensor:
        first = self.accelerator.process_index * self._num_rows
        places = torch.arange(first, first + self._num_rows)
        loss = self._loss(module, split, batch[places], places)
        self.accelerator.backward(loss)
        return loss.detach()

    def _loss(self, module: nn.Module, split: Split, rows: Tensor, places: Tensor) -> Tensor:
        """Return the loss of images `rows`, which stand at `places` of the batch."""
        device = self.accelerator.device
        loss: Tensor = module(split.images[rows].to(device), split.labels[rows].to(device), places.to(device))
        return loss

    def _agree(self, loss: Tensor) -> tuple[float, bool]:
        """Return the mean loss and whether any process was asked to stop, the same in every process."""
        flags = torch.stack([loss.double(), loss.new_tensor(float(self.context.stop_requested)).double()])
        mean_loss, stops = self.accelerator.reduce(flags, "mean").tolist()
        return mean_loss, stops > 0


def _save(folder: Path, network: ExtractorNetwork, train: Tensor) -> None:
    """Write the folder elsewhere first: under its own name it is whole or not there."""
    partial = folder.parent / ".partial" / folder.name
    shutil.rmtree(partial.parent, ignore_errors=True)
    partial.mkdir(parents=True)
    save_extractor(partial, network, train)
    fsync_tree(partial)
    os.rename(partial, folder)
    fsync_directory(folder.parent)
