"""The dataset stage: read, bring onto the grid, keep one of each, split, check, save.

source -> gates -> different images -> splits by hash -> checks -> images.safetensors, grid.json
"""

from __future__ import annotations

from typing import Any

from pipeline.contract import Context
from stages.common.images.grid import SPLITS, Grid, Split, save_images, sha256_of
from stages.common.images.parts import doing
from stages.image.dataset import report
from stages.image.dataset.checks import check, check_number
from stages.image.dataset.config import Config
from stages.image.dataset.gates import Gates
from stages.image.dataset.neighbours import nearness
from stages.image.dataset.origin import Plan, make_plan
from stages.image.dataset.sources import in_order
from stages.image.dataset.splits import Distinct, make_splits

PHASES = 3


@doing("bringing the images onto one grid", "set max_images or size lower")
def run(config: Config, context: Context) -> None:
    """Make the images artifact in `context.directory`."""
    plan = make_plan(config, context)
    dataset = build(config, context, plan)
    save_images(context.directory, dataset.grid, dataset.splits)
    report.write(context, plan, dataset)
    context.progress(PHASES, PHASES, unit="phase")


def build(config: Config, context: Context, plan: Plan) -> report.Dataset:
    """Return the images on their grid and what was found on the way.

    Raises:
        DataError: images that are refused, or splits that nothing can be learnt from.
    """
    gates = Gates(plan.policy)
    distinct = Distinct(gates, config.max_images)
    for sample in gates.samples(plan.origin.items):
        distinct.add(sample)
        if distinct.num_read % 256 == 0:
            context.progress(0, PHASES, unit="phase", images=distinct.num_read)
    gates.refuse()
    images = distinct.images()
    classes = plan.origin.classes if plan.origin.classes is not None else in_order(gates.classes)
    context.progress(1, PHASES, unit="phase", images=len(images))
    rules: dict[str, Any] = {
        "fractions": plan.fractions,
        "least": config.min_split_images,
        "num_copies": distinct.num_copies,
        "num_dropped": gates.num_dropped,
    }
    check_number(len(images), classes, **rules)
    splits = make_splits(images, classes, validation=plan.validation, test=plan.test)
    check(splits, classes, **rules)
    context.progress(2, PHASES, unit="phase")
    return report.Dataset(
        grid=_grid(plan, splits, classes),
        splits=splits,
        num_read=distinct.num_read,
        num_copies=distinct.num_copies,
        nearness=nearness(splits["test"].images.numpy(), splits["train"].images.numpy(), context.beat),
        findings=gates.table(),
    )


def _grid(plan: Plan, splits: dict[str, Split], classes: tuple[str, ...]) -> Grid:
    channels, height, width = splits["train"].images.shape[1:]
    return Grid(
        name=plan.name,
        license=plan.license,
        levels=plan.policy.levels,
        channels=channels,
        height=height,
        width=width,
        classes=classes,
        sizes={name: len(splits[name]) for name in SPLITS},
        sha256={name: sha256_of(splits[name]) for name in SPLITS},
    )
