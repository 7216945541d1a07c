"""From samples, bits and costs of the models to the numbers of a study.

Legend: N images, C channels, H height, W width, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.contract import Context, read_events
from stages.common.images.evaluation import Evaluator, check_comparable, measuring, rank_agreement
from stages.common.images.features import Extractor, load_extractors
from stages.common.images.grid import Split, load_grid, load_split
from stages.common.images.spread import RANGES
from stages.common.metrics.frechet_distance import frechet
from stages.common.verdicts import LEAST_SEEDS, Estimate, Sampled, estimate
from stages.image.compare.config import Config
from stages.image.compare.judges import main_extractor
from stages.image.compare.models import END, RAW, SHARES, Contestant, Run
from stages.image.compare.modes import ModeJudge, anchors_of, mode_numbers
from stages.image.compare.paths import path_numbers
from stages.image.compare.references import TO_TRAIN, References
from stages.image.compare.study import COSTS, Anchors, Study

IN_SPACE = {
    "fd_ratio": "frechet_ratio",
    "fd": "frechet_distance",
    "kid": "kernel_distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "vendi_ratio": "vendi_ratio",
    "class_tv": "total_variation",
    "missing_classes": "missing_classes",
    "class_confidence": "mean_largest_probability",
}
IN_PIXELS = {
    "laplacian_ratio": "laplacian_ratio",
    "hf_ratio": "high_frequency_ratio",
    "nn_ratio": "nearest_neighbour_ratio",
    "memorised_share": "close_share",
    "duplicate_share": "duplicate_share",
}
"""Column -> what the evaluator calls it, in the main extractor's space and in pixels."""
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Label -> seed -> what the evaluator returned."""


@measuring("the models' samples")
def measure(config: Config, context: Context, contestants: Sequence[Contestant], judge: ModeJudge | None = None) -> Study:
    """Measure every model's samples in every space and gather all numbers; modes too, where `judge` can tell them.

    Raises:
        DataError: there is no trained extractor, or samples and images that the evaluator refuses.
    """
    images = context.input("images")
    train, real = load_split(images, "train"), load_split(images, config.split)
    extractors = load_extractors(context.input("extractors"))
    main = main_extractor(extractors)
    evaluator = _evaluator(config, context, contestants, extractors, train, real)
    results = _evaluate(context, contestants, evaluator)
    references = References.of(main, train=train.images, unseen=real.images, evaluator=evaluator)

    def distances(one: Contestant, sample_sets: Iterable[str]) -> dict[str, Sampled]:
        return {name: references.distances(found) for name in sample_sets if (found := one.samples(name))}

    numbers = {
        one.label: _numbers(one, results[one.label], references, config.split)
        | path_numbers(one, main)
        | (mode_numbers(one, judge) if judge else {})
        for one in contestants
    }
    models = [one for one in contestants if one.is_model]
    anytime = {one.label: found for one in models if (found := distances(one, (share for share in SHARES if share != END)))}
    raw = {one.label: found[RAW] for one in models if (found := distances(one, (RAW,)))}
    by_calls = {one.label: {calls: references.distances(sets) for calls, sets in one.shorter_paths().items()} for one in models}
    means = _mean_distances(results)
    return Study(
        grid=load_grid(images),
        contestants=contestants,
        anchors=_anchors(results, main, references),
        numbers=numbers,
        anytime={label: found | {END: numbers[label]["fd"]} for label, found in anytime.items()},
        raw=raw,
        by_calls={label: found for label, found in by_calls.items() if found},
        distances={
            space: {label: float(found["spaces"][space]["values"]["frechet_distance"]) for label, found in means.items()}
            for space in next(iter(means.values()))["spaces"]
        },
        agreement=agreement_of(results),
        split=config.split,
        tolerance=config.budget_tolerance,
        num_resamples=config.num_resamples,
        seed=config.seed,
        real=_of_real(evaluator, main.name),
        modes=anchors_of(judge, images, config.split, evaluator) if judge else None,
    )


def gradient_spread(run: Run) -> float | None:
    """Return the standard deviation of ln(gradient norm) over the second half of the logged steps, of the worst player.

    A logarithm, so that families whose losses have other units can be compared; None where nothing was logged.
    """
    norms: dict[str, list[float]] = {}
    for event in read_events(run.artifact.path / "events.jsonl"):
        if event.name.endswith(".gradient_norm") and float(event.value) > 0:
            norms.setdefault(event.name, []).append(float(event.value))
    halves = [values[len(values) // 2 :] for values in norms.values()]
    spreads = [float(np.log(half).std(ddof=1)) for half in halves if len(half) > 1]
    return max(spreads, default=None)


def _evaluator(
    config: Config,
    context: Context,
    contestants: Sequence[Contestant],
    extractors: Sequence[Extractor],
    train: Split,
    real: Split,
) -> Evaluator:
    # Parts cost more than all the rest: they are drawn only if some model has too few seeds for an interval over seeds.
    few = any(len(one.runs) < LEAST_SEEDS for one in contestants)
    return Evaluator(
        train=train,
        test=real,
        levels=load_grid(context.input("images")).levels,
        extractors=extractors,
        num_samples=len(next(iter(contestants[0].samples().values()))),
        num_parts=config.num_parts if few else 0,
        seed=config.seed,
    )


def _evaluate(context: Context, contestants: Sequence[Contestant], evaluator: Evaluator) -> Results:
    total, done = sum(len(one.runs) for one in contestants), 0
    results: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in contestants:
        results[one.label] = {}
        for seed, samples in one.samples().items():
            results[one.label][seed] = evaluator.evaluate(samples)
            done += 1
            context.progress(done, total, unit="model measured")
    check_comparable([found for seeds in results.values() for found in seeds.values()])
    return results


def _of_real(evaluator: Evaluator, space: str) -> dict[str, float]:
    """Return what the real train images of the floor have; how near they are to train says nothing, for they are of it."""
    found = evaluator.evaluate(evaluator.real)
    values = found["spaces"][space]["values"]
    shown = {column: values[key] for column, key in IN_SPACE.items() if key in values}
    return shown | {key: found["pixels"]["values"][IN_PIXELS[key]] for key in ("laplacian_ratio", "hf_ratio")}


def _anchors(results: Results, main: Extractor, references: References) -> Anchors:
    found = next(iter(next(iter(results.values())).values()))
    space = found["spaces"][main.name]
    return Anchors(
        floor=space["floor"],
        ceiling=space["ceiling"],
        num_samples=found["num_samples"],
        num_reference=found["num_references"],
        extractor=main.name,
        train_floor=frechet(references.real_unseen, references.train),
        num_train_floor=len(references.real_unseen),
        train_copy=frechet(references.real_train, references.train),
        num_train=len(references.train),
    )


def _numbers(one: Contestant, found: Mapping[int, Mapping[str, Any]], references: References, split: str) -> dict[str, Sampled]:
    first = next(iter(found.values()))
    sizes = first["num_parts"] - 1, first["num_references"]
    numbers = _of_results({seed: result["spaces"][references.space.name] for seed, result in found.items()}, IN_SPACE, *sizes)
    numbers |= _of_results({seed: references.measure(samples) for seed, samples in one.samples().items()}, TO_TRAIN, *sizes)
    numbers |= _of_results({seed: result["pixels"] for seed, result in found.items()}, IN_PIXELS, *sizes)
    numbers |= _costs(one) if one.is_model else {}
    spreads = {seed: gradient_spread(run) for seed, run in one.runs.items()}
    if all(value is not None for value in spreads.values()):
        numbers["gradient_spread"] = _certain({seed: value for seed, value in spreads.items() if value is not None})
    return numbers | (_bits(one, split) if one.kind else {})


def _costs(one: Contestant) -> dict[str, Sampled]:
    """Return what a model costs; another way to draw from it was not timed, and what a density's fit holds was not measured."""
    numbers = {"training_tflop": _certain({seed: run.facts["training_flops"] / 1e12 for seed, run in one.runs.items()})}
    for key in COSTS:
        if key not in numbers and not (one.is_classic and key == "peak_memory_gib"):
            numbers[key] = _certain({seed: float(run.facts[key]) for seed, run in one.runs.items()})
    return numbers


def _of_results(
    found: Mapping[int, Mapping[str, Mapping[str, float]]], keys: Mapping[str, str], degrees: int, num_references: int
) -> dict[str, Sampled]:
    """Return what every seed has; a classifier's numbers are missing where the images have no classes.

    The real images are the same for all seeds, so what other real images would change does not shrink with further seeds.
    """
    numbers = {}
    for column, key in keys.items():
        if all(key in one["values"] for one in found.values()):
            common = [one.get("reference_deviations", {}).get(key, 0.0) for one in found.values()]
            numbers[column] = Sampled(
                {seed: one["values"][key] for seed, one in found.items()},
                {seed: one["deviations"].get(key, math.nan) for seed, one in found.items()},
                RANGES.get(key, (-math.inf, math.inf)),
                degrees=degrees,
                common=float(np.mean(common)),
                common_degrees=num_references - 1,
            )
    return numbers


def _bits(one: Contestant, split: str) -> dict[str, Sampled]:
    """Return bits per dimension and how far they lie above those of train.

    All seeds are measured on the same images, so what other images would change does not shrink with further seeds: the standard
    error over images of the mean over seeds is common to them.
    """
    unseen, seen = (np.stack([run.bits[name] for run in one.runs.values()]) for name in (split, "train"))
    errors = [float(bits.mean(axis=0).std(ddof=1)) / math.sqrt(bits.shape[1]) for bits in (unseen, seen)]
    found = {
        "bits_per_dim": (unseen.mean(axis=1), errors[0]),
        "bits_gap": (unseen.mean(axis=1) - seen.mean(axis=1), math.hypot(*errors)),
    }
    return {
        key: Sampled(
            dict(zip(one.runs, values.tolist(), strict=True)),
            dict.fromkeys(one.runs, 0.0),
            common=error,
            common_degrees=unseen.shape[1] - 1,
        )
        for key, (values, error) in found.items()
    }


def _certain(values: dict[int, float]) -> Sampled:
    """Return a number that does not depend on the draw of samples."""
    return Sampled(values, dict.fromkeys(values, math.nan))


def agreement_of(results: Results) -> dict[tuple[str, str], Estimate]:
    """Return how far the orders of each two spaces agree (Kendall's tau).

    From LEAST_SEEDS trainings of every model on, the orders are those of the first trainings, of the second ones, and so on, and
    tau is their mean with its interval. With fewer, the order is that of the mean distances and there is no interval.
    """
    trainings = list(zip(*(found.values() for found in results.values()), strict=False))
    if len(trainings) < LEAST_SEEDS:
        taus = rank_agreement(_mean_distances(results))
        nothing = {"low": math.nan, "high": math.nan, "num_seeds": len(trainings), "method": "none"}
        return {pair: Estimate(mean=tau, **nothing) for pair, tau in taus.items()}
    orders = [rank_agreement(dict(zip(results, of_one, strict=True))) for of_one in trainings]
    values = {pair: {number: order[pair] for number, order in enumerate(orders)} for pair in orders[0]}
    return {pair: estimate(Sampled(taus, dict.fromkeys(taus, math.nan), (-1.0, 1.0))) for pair, taus in values.items()}


def _mean_distances(results: Results) -> dict[str, dict[str, Any]]:
    """Return for each model one result whose Frechet distances are the means over its seeds."""
    means = {}
    for label, seeds in results.items():
        first = next(iter(seeds.values()))
        spaces = {
            name: {
                "sha256": space["sha256"],
                "values": {
                    "frechet_distance": float(
                        np.mean([one["spaces"][name]["values"]["frechet_distance"] for one in seeds.values()])
                    )
                },
            }
            for name, space in first["spaces"].items()
        }
        means[label] = dict(first) | {"spaces": spaces}
    return means
