"""The way from one image to another through the latents of a model, as the main extractor sees it, beside a plain cross-fade.

On a smooth way features move evenly and little (the path is hardly longer than the distance of its ends), and what lies between
two images still belongs to the class of one of them. A cross-fade between the same ends is the yardstick: whoever fades one
image out and another in needs no latents. All images are on the grid, for an extractor knows no others.

Legend: S seeds, P pairs of ends, T steps of a path, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.features import Extractor
from stages.common.images.pictures import named_rows
from stages.common.verdicts import Sampled
from stages.common.wording import plus_minus
from stages.image.compare.models import Contestant
from stages.image.compare.study import Study

LENGTHS = {"arc of latents": "path_ratio", "cross-fade": "fade_ratio", "arc − cross-fade": "path_excess"}
CLASSES = {"arc of latents": "path_left", "cross-fade": "fade_left", "arc − cross-fade": "left_excess"}
"""Row of the table -> column of its number."""
PATH_KEYS = (*LENGTHS.values(), *CLASSES.values())
YARDSTICKS = (LENGTHS["cross-fade"], CLASSES["cross-fade"])
SHOWN_PAIRS, SHOWN_IMAGES = 4, 9
"""Pairs in the picture, and images of each way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """What an extractor sees on the way between each pair of ends.

    Attributes:
        lengths: of the path, the sum of its T steps, in features, float64 (P,).
        distances: of its ends, float64 (P,).
        left: share of the T - 1 images between whose class is that of neither end, float64 (P,); None: it knows no classes.
    """

    lengths: np.ndarray
    distances: np.ndarray
    left: np.ndarray | None


def walk(frames: Tensor, extractor: Extractor) -> Walk:
    """Follow paths, uint8 (P, T+1, C, H, W), T >= 2; classes are those that the extractor holds to be the likeliest."""
    images = frames.flatten(0, 1)
    features = extractor.features(images).reshape(*frames.shape[:2], -1)
    steps = np.linalg.norm(np.diff(features, axis=1), axis=2)
    left = None
    if extractor.kind == "supervised":
        classes = extractor.probabilities(images).argmax(axis=1).reshape(frames.shape[:2])
        between, ends = classes[:, 1:-1], classes[:, [0, -1]]
        left = (between[:, :, None] != ends[:, None, :]).all(axis=2).mean(axis=1)
    return Walk(lengths=steps.sum(axis=1), distances=np.linalg.norm(features[:, -1] - features[:, 0], axis=1), left=left)


def cross_fade(frames: Tensor) -> Tensor:
    """Return the straight lines in pixels between the ends of paths, rounded to the grid, uint8 (P, T+1, C, H, W)."""
    shares = torch.linspace(0, 1, frames.shape[1], dtype=torch.float64)[None, :, None, None, None]
    return ((1 - shares) * frames[:, :1] + shares * frames[:, -1:]).round().to(torch.uint8)


def path_numbers(one: Contestant, extractor: Extractor) -> dict[str, Sampled]:
    """Return the numbers of PATH_KEYS; none for a model without paths, or whose ends are all alike.

    A pair whose ends are one image in any training is left out: there is no way between them.
    """
    kept = {seed: run.paths for seed, run in one.runs.items() if one.is_model and run.paths is not None}
    if not kept:
        return {}
    num_pairs = min(map(len, kept.values()))
    paths = [frames[:num_pairs] for frames in kept.values()]
    moved = torch.stack([(frames[:, 0] != frames[:, -1]).flatten(1).any(dim=1) for frames in paths]).all(dim=0)
    if moved.sum() < 2:
        return {}
    arcs = [walk(frames[moved], extractor) for frames in paths]
    fades = [walk(cross_fade(frames[moved]), extractor) for frames in paths]
    ends = np.stack([one.distances for one in arcs])
    lengths = [np.stack([one.lengths for one in way]) for way in (arcs, fades)]
    numbers = _three(LENGTHS, list(kept), lengths, ends, (1.0, math.inf))
    shares = [[one.left for one in way if one.left is not None] for way in (arcs, fades)]
    if shares[0]:
        numbers |= _three(CLASSES, list(kept), [np.stack(way) for way in shares], np.ones_like(ends), (0.0, 1.0))
    return numbers


def write_paths(context: Context, study: Study) -> None:
    """Add table and picture of ways between latents; none where no model has latents to walk between."""
    rows: list[list[str | int | float | bool | None]] = []
    for one in study.contestants:
        for way in LENGTHS:
            found = [study.estimate(one.label, keys[way]) for keys in (LENGTHS, CLASSES)]
            if found[0] is not None:
                rows.append([one.label, way, *(None if each is None else plus_minus(each) for each in found)])
    if rows:
        context.section.table(
            "The way between two images",
            ["model", "way", "length ÷ distance of ends", "share of neither class"],
            rows,
            caption=f"In the features of {study.anchors.extractor}: from the decoder's mean of one test image to that of another "
            "along an arc between their latents, and by fading the one into the other in pixels, all rounded to the grid. Length "
            "1 is straight. Neither class: images between that the extractor takes for a class of neither end (no number where "
            "it knows no classes); a way among real images may pass some too. Where the difference lies below "
            "0, latents do better than a cross-fade. Intervals are over pairs of test images, and from three seeds on over seeds "
            "as well. A model that kept no such images is left out: it has no latents to walk between, learnt each class by "
            "itself, or was made before they were kept.",
        )
        _draw_paths(context, study, label=str(rows[0][0]))


def _draw_paths(context: Context, study: Study, *, label: str) -> None:
    """Add some ways of one model, each above its cross-fade, of the first seed that kept any."""
    runs = next(one for one in study.contestants if one.label == label).runs.values()
    paths = next(run.paths for run in runs if run.paths is not None)[:SHOWN_PAIRS]
    shown = torch.linspace(0, paths.shape[1] - 1, SHOWN_IMAGES).round().long()
    pairs = enumerate(zip(paths, cross_fade(paths), strict=True), 1)
    rows = {f"{way} {pair}": images[shown] for pair, both in pairs for way, images in zip(("arc", "fade"), both, strict=True)}
    path = named_rows(rows, study.grid.levels, context.figures / "paths.png")
    context.section.figure(
        path,
        f"The first {len(paths)} of those ways, {label}: along an arc between two latents, and below it the cross-fade between "
        "the same two images.",
    )


def _three(
    keys: Mapping[str, str],
    seeds: Sequence[int],
    ways: Sequence[np.ndarray],
    bottoms: np.ndarray,
    bounds: tuple[float, float],
) -> dict[str, Sampled]:
    """Return what an arc has, what a cross-fade has, and the difference, on the same pairs; arrays are float64 (S, P)."""
    arcs, fades = ways
    rows = zip(keys.values(), (arcs, fades, arcs - fades), (bounds, bounds, (-math.inf, math.inf)), strict=True)
    return {key: over_pairs(seeds, tops, bottoms, limits) for key, tops, limits in rows}


def over_pairs(seeds: Sequence[int], tops: np.ndarray, bottoms: np.ndarray, bounds: tuple[float, float]) -> Sampled:
    """Return sum over sum of each seed, float64 (S, P) both, with its error over pairs.

    The error of a ratio is that of the mean residual (Cochran, Sampling Techniques, 1977, chapter 6). All seeds walk between the
    same images, so the part of it that outlasts the mean over seeds is common to them, and further seeds do not shrink it.
    """
    ratios = tops.sum(axis=1) / bottoms.sum(axis=1)
    residuals = (tops - ratios[:, None] * bottoms) / bottoms.mean(axis=1, keepdims=True)
    num_pairs = tops.shape[1]
    own = residuals.var(axis=1, ddof=1) / num_pairs
    common = float(residuals.mean(axis=0).var(ddof=1)) / num_pairs
    rest = np.sqrt(np.maximum(own - common, 0))
    return Sampled(
        dict(zip(seeds, ratios.tolist(), strict=True)),
        dict(zip(seeds, rest.tolist(), strict=True)),
        bounds,
        degrees=num_pairs - 1,
        common=math.sqrt(common),
        common_degrees=num_pairs - 1,
    )
