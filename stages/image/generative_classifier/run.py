"""Read the trained classifiers, fit the classical ones to the same labels, compare, test what is said, draw."""

from __future__ import annotations

import shutil

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.images.grid import GRID, load_grid, load_split
from stages.common.images.image_sets import ImageSet, image_sets
from stages.image.generative_classifier import pictures, report
from stages.image.generative_classifier.cells import Cell, check_budgets, check_same_sets, check_seeds, load_cells
from stages.image.generative_classifier.claims import all_claims
from stages.image.generative_classifier.classical import classical_cells
from stages.image.generative_classifier.config import Config
from stages.image.generative_classifier.metrics import write_metrics
from stages.image.generative_classifier.study import make_study


def run(config: Config, context: Context) -> None:
    """Write tables, figures, `classifiers.json`, card and section.

    Raises:
        DataError: classifiers that may not be compared.
    """
    images = context.input("images")
    trained = load_cells(images, context.inputs("models"), context.inputs("rivals"))
    check_seeds(trained)
    check_budgets(trained, config.budget_tolerance)
    context.phase("fitting the classical models")
    cells = trained + _classical(config, images, trained)
    check_same_sets(cells)
    context.phase("comparing")
    study = make_study(config, cells)
    claims = all_claims(study)
    report.open_section(context, study)
    report.write_claims(context, claims)
    pictures.draw(context, study)
    report.write_tables(context, study)
    write_metrics(context, study, claims)
    report.write_files(context, study, claims, load_grid(images))
    shutil.copy(images.path / GRID, context.directory / GRID)


def _classical(config: Config, images: Artifact, trained: list[Cell]) -> list[Cell]:
    """Fit the classical models at the labels and seeds of the trained ones, and ask them about the same images."""
    sizes = {len(cell.sets["test"].labels) for cell in trained}
    if len(sizes) != 1:
        raise DataError(f"num_class_images differs among needs.models and needs.rivals ({sorted(sizes)}); set one for all")
    places = sorted({(cell.num_labels, cell.seed) for cell in trained})
    return classical_cells(
        load_split(images, "train"),
        load_grid(images),
        _sets(images, most=sizes.pop()),
        places,
        num_folds=config.num_folds,
    )


def _sets(images: Artifact, *, most: int) -> list[ImageSet]:
    """Return the sets that can be made of the images themselves; foreign artifacts are known to the networks alone."""
    return image_sets(images, [], most=most, with_all=True)
