"""The panel of known faults in the report: what each metric says of images that a person knows to be wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.images.corruptions import COPY, EXPECTED, PIXELWISE, corrupted
from stages.common.images.evaluation import Evaluator, rank_agreement
from stages.common.images.features import Extractor
from stages.common.images.grid import Grid, Split
from stages.common.images.pictures import named_rows
from stages.common.images.spread import RANGES
from stages.common.verdicts import t_quantile
from stages.image.classifier.config import Config

SHOWN = 12
"""Images of each fault in the picture."""
IN_SPACE = {
    "frechet_distance": "Frechet distance",
    "frechet_ratio": "ratio (0 real, 1 pixels)",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "vendi_ratio": "Vendi / real",
    "total_variation": "class shares, TV",
}
IN_PIXELS = {
    "laplacian_ratio": "Laplacian / real",
    "high_frequency_ratio": "fine detail / real",
    "nearest_neighbour_ratio": "nearest train / real",
    "close_share": "near copies",
    "duplicate_share": "exact copies",
}

Panel = Mapping[str, Mapping[str, Any]]


def write_panel(context: Context, config: Config, grid: Grid, splits: Mapping[str, Split], extractors: list[Extractor]) -> None:
    """Measure the faults and add them to the section; where there are too few images, say so."""
    train, test = splits["train"], splits["test"]
    sets = corrupted(train, levels=grid.levels, seed=config.seed)
    rows = {name: images[:SHOWN] for name, images in sets.items()}
    picture = named_rows(rows, grid.levels, context.figures / "faults.png")
    context.section.figure(
        picture, "Train images, and faults put into them. A metric that does not see a fault cannot rule it out."
    )
    try:
        panel = corruption_panel(
            train, test, levels=grid.levels, extractors=extractors, seed=config.seed, num_parts=config.num_parts
        )
    except DataError as error:
        context.section.text(f"The faults are not measured here: {error}.")
        return
    _tables(context, panel, extractors[0].name, t_quantile(config.num_parts - 1))
    _agreement(context, panel)


def corruption_panel(
    train: Split, test: Split, *, levels: int, extractors: Sequence[Extractor], seed: int, num_parts: int
) -> dict[str, dict[str, Any]]:
    """Return fault -> what `Evaluator.evaluate` says of it; the last one are the images of the ceiling.

    Raises:
        DataError: there are too few images for the extractors' features.
    """
    sets = corrupted(train, levels=levels, seed=seed)
    evaluator = Evaluator(
        train=train,
        test=test,
        levels=levels,
        extractors=extractors,
        num_samples=len(sets[COPY]),
        num_parts=num_parts,
        seed=seed,
    )
    return {name: evaluator.evaluate(images) for name, images in (sets | {PIXELWISE: evaluator.pixelwise}).items()}


def _tables(context: Context, panel: Panel, main: str, quantile: float) -> None:
    first = next(iter(panel.values()))
    stands_on = (
        f"n = {first['num_samples']} images each, held against {first['num_references']} test images; intervals of 95 % over "
        "other draws of the images."
    )
    known = {key: title for key, title in IN_SPACE.items() if key in first["spaces"][main]["values"]}
    context.section.table(
        f"What the metrics make of each fault, features of {main}",
        ["images", *known.values()],
        [[name, *_cells(result["spaces"][main], known, quantile)] for name, result in panel.items()],
        caption=f"{stands_on} A copy of train is perfect here: these metrics cannot see that a model recites.",
    )
    context.section.table(
        "Sharpness and memorisation, from the pixels",
        ["images", *IN_PIXELS.values(), "what to expect"],
        [[name, *_cells(result["pixels"], IN_PIXELS, quantile), EXPECTED[name]] for name, result in panel.items()],
        caption=f"{stands_on} Only memorisation tells the copy; low contrast looks blurred to the Laplacian alone.",
    )
    context.section.table(
        "Frechet ratio of each fault in every space",
        ["images", *first["spaces"]],
        [
            [name, *(_cell(space, "frechet_ratio", quantile) for space in result["spaces"].values())]
            for name, result in panel.items()
        ],
        caption="0: as near to test as train images are; 1: as far as pixels drawn one by one. An extractor does not see what "
        "its task ignores, so one space never decides.",
    )
    anchors = {f"{kind} in {name}": space[kind] for name, space in first["spaces"].items() for kind in ("floor", "ceiling")}
    context.section.facts("Frechet distances that the ratios are taken between", anchors)


def _agreement(context: Context, panel: Panel) -> None:
    agreement = rank_agreement(panel)
    names = list(next(iter(panel.values()))["spaces"])
    both = agreement | {(b, a): tau for (a, b), tau in agreement.items()}
    context.section.table(
        "Do the spaces agree? Kendall's tau of the order of the faults by Frechet distance",
        ["space", *names],
        [[a, *(1.0 if a == b else both[a, b] for b in names)] for a in names],
        caption=f"1: the same order of the {len(panel)} sets; 0: no relation; -1: the reverse.",
    )


def _cells(measured: Mapping[str, Mapping[str, float]], keys: Mapping[str, str], quantile: float) -> list[str]:
    return [_cell(measured, key, quantile) for key in keys]


def _cell(measured: Mapping[str, Mapping[str, float]], key: str, quantile: float) -> str:
    """Return a value with its 95 % interval, cut where no value lies; as many decimals as its reach needs for two digits."""
    value, reach = measured["values"][key], quantile * measured["deviations"][key]
    if reach == 0:
        return f"{value:.3g}"
    decimals = min(3, max(0, 1 - math.floor(math.log10(reach))))
    least, most = RANGES.get(key, (-math.inf, math.inf))
    low, high = max(value - reach, least), min(value + reach, most)
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]".replace("-", "−")
