"""Read the trained classifiers, fit the classical ones to the same labels, compare, test what is said, draw."""

from __future__ import annotations

import shutil

from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.images.grid import GRID, load_grid, load_split
from stages.common.images.image_sets import TEST, VALIDATION, image_sets
from stages.common.images.parts import doing
from stages.image.generative_classifier import pictures, report, tables, trials
from stages.image.generative_classifier.cells import (
    Cell,
    check_budgets,
    check_one_setting,
    check_same_sets,
    check_seeds,
    load_cells,
)
from stages.image.generative_classifier.claims import all_claims
from stages.image.generative_classifier.classical import classical_cells
from stages.image.generative_classifier.config import Config
from stages.image.generative_classifier.metrics import write_metrics
from stages.image.generative_classifier.study import make_study


@doing("comparing the classifiers", "set num_class_images of their stages lower")
def run(config: Config, context: Context) -> None:
    """Write tables, figures, `classifiers.json` (of trials: `trials.json`), card and section.

    Raises:
        DataError: classifiers that may not be compared.
    """
    images = context.input("images")
    trained = load_cells(images, context.inputs("models"), context.inputs("rivals"), split=config.split)
    check_budgets(trained, config.budget_tolerance)
    if config.split == VALIDATION:
        trials.write(context, trials.judge(trained), trained, load_grid(images))
    else:
        _compare(config, context, trained)
    shutil.copy(images.path / GRID, context.directory / GRID)


def _compare(config: Config, context: Context, trained: list[Cell]) -> None:
    check_one_setting(trained)
    check_seeds(trained)
    context.phase("fitting the classical models")
    cells = trained + _classical(config, context, trained)
    check_same_sets(cells)
    context.phase("comparing")
    study = make_study(config, cells)
    claims = all_claims(study)
    report.open_section(context)
    tables.write_errors(context, study)
    report.write_claims(context, claims)
    pictures.draw(context, study)
    tables.write_further(context, study)
    write_metrics(context, study, claims)
    report.write_files(context, study, claims, load_grid(context.input("images")))


def _classical(config: Config, context: Context, trained: list[Cell]) -> list[Cell]:
    """Fit the classical models at the labels and seeds of the trained ones, and ask them about the same images."""
    sizes = {len(cell.sets[TEST].labels) for cell in trained}
    if len(sizes) != 1:
        raise DataError(f"num_class_images differs among needs.models and needs.rivals ({sorted(sizes)}); set one for all")
    images = context.input("images")
    return classical_cells(
        load_split(images, "train"),
        load_grid(images),
        image_sets(images, context.inputs("foreign"), most=sizes.pop(), which="all"),
        sorted({(cell.num_labels, cell.seed) for cell in trained}),
        num_folds=config.num_folds,
    )
