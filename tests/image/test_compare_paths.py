"""Ways between images whose length and classes are known by hand, and what is said of models that kept none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import DataError
from stages.common.images.family import PATHS
from stages.common.verdicts import estimate, t_interval
from stages.image.compare.models import load_contestants
from stages.image.compare.paths import PATH_KEYS, cross_fade, over_pairs, path_numbers, walk
from tests.image.comparisons import contestant, model_artifact
from tests.image.digits import toy_artifact


class ByHand:
    """Features are the two pixels; the class is the first pixel's, in steps of ten."""

    def __init__(self, kind="supervised"):
        self.kind = kind

    def features(self, images):
        return images.flatten(1).double().numpy()

    def probabilities(self, images):
        return np.eye(26)[images.flatten(1)[:, 0].numpy() // 10]


def frames(*ways):
    """Return paths, uint8 (P, T+1, 1, 1, 2), from lists of points (x, y)."""
    return torch.tensor(ways, dtype=torch.uint8)[:, :, None, None, :]


STRAIGHT = [(0, 0), (3, 4), (6, 8), (9, 12)]
CORNER = [(0, 0), (40, 0), (40, 20), (40, 40)]
FAR = [(5, 0), (35, 0), (25, 0), (15, 0)]
"""Between its ends (classes 0 and 1) lie images of the classes 3 and 2."""


def of_paths(*seeds, family="vae", sample_set="1"):
    one = contestant("vae", family, seeds=len(seeds), sample_set=sample_set)
    return replace(one, runs={seed: replace(run, paths=seeds[seed]) for seed, run in one.runs.items()})


def test_a_straight_way_is_as_long_as_the_distance_of_its_ends_and_a_corner_longer():
    found = walk(frames(STRAIGHT, CORNER), ByHand())
    assert found.lengths / found.distances == pytest.approx([1.0, math.sqrt(2)])


@pytest.mark.parametrize(
    ("way", "share"),
    [
        (FAR, 1.0),
        ([(5, 0), (35, 0), (12, 0), (15, 0)], 0.5),
        ([(5, 0), (6, 0), (12, 0), (15, 0)], 0.0),
        ([(5, 0), (15, 0), (15, 0), (5, 0)], 1.0),  # both ends are of one class: any other is of neither
    ],
)
def test_the_share_of_neither_class_counts_the_images_between_the_ends(way, share):
    assert walk(frames(way), ByHand()).left == pytest.approx([share])


def test_an_extractor_without_classes_gives_lengths_alone():
    assert walk(frames(FAR), ByHand("rotation")).left is None
    numbers = path_numbers(of_paths(frames(FAR, CORNER)), ByHand("rotation"))
    assert set(numbers) == {"path_ratio", "fade_ratio", "path_excess"}


def test_a_cross_fade_keeps_the_ends_and_rounds_to_the_grid():
    found = cross_fade(frames([(0, 9), (200, 200), (3, 0)]))
    assert found.dtype == torch.uint8
    assert found.flatten().tolist() == [0, 9, 2, 4, 3, 0]  # 1.5 and 4.5 go to the even level
    assert torch.equal(cross_fade(frames(STRAIGHT)), frames(STRAIGHT))


def test_arcs_are_held_against_cross_fades_between_the_same_ends():
    numbers = path_numbers(of_paths(frames(CORNER, CORNER, FAR)), ByHand())
    assert tuple(numbers) == PATH_KEYS
    value = {key: number.values[0] for key, number in numbers.items()}
    # Sums over sums: 80 + 80 + 50 over 2 * 40 * 2^½ + 10; a cross-fade of CORNER passes (13, 13) and (27, 27), of classes 1 and 2.
    distance = 80 * math.sqrt(2) + 10
    assert value["path_ratio"] == pytest.approx(210 / distance)
    assert value["fade_ratio"] == pytest.approx(1.0)
    assert value["path_excess"] == pytest.approx(210 / distance - 1)
    assert (value["path_left"], value["fade_left"]) == pytest.approx((1 / 3, 2 / 3))
    assert value["left_excess"] == pytest.approx(-1 / 3)


def test_pairs_with_equal_ends_are_left_out_and_a_model_with_no_others_has_no_numbers():
    nowhere = [(7, 7), (90, 90), (90, 90), (7, 7)]
    with_it, without = (path_numbers(of_paths(frames(*ways)), ByHand()) for ways in ((CORNER, nowhere, FAR), (CORNER, FAR)))
    assert with_it == without
    assert path_numbers(of_paths(frames(nowhere, nowhere)), ByHand()) == {}
    assert path_numbers(contestant("vae", "vae"), ByHand()) == {}
    assert path_numbers(of_paths(frames(CORNER, FAR), sample_set="mean"), ByHand()) == {}


def test_the_error_of_a_share_of_one_training_is_that_of_its_mean_over_pairs():
    shares = np.random.default_rng(0).uniform(0.3, 0.7, size=(1, 20))
    found = estimate(over_pairs([5], shares, np.ones((1, 20)), (0.0, 1.0)))
    assert (found.low, found.high) == pytest.approx(t_interval(shares[0]))
    assert (found.num_seeds, found.method) == (1, "samples")


def test_further_seeds_do_not_shrink_the_error_of_the_pairs_that_they_share():
    shares = np.random.default_rng(0).uniform(0.3, 0.7, size=20)
    number = over_pairs([1, 2, 3], np.stack([shares - 0.01, shares, shares + 0.01]), np.ones((3, 20)), (0.0, 1.0))
    found, (low, high) = estimate(number), t_interval(shares)
    over_seeds = t_interval([shares.mean() + step for step in (-0.01, 0, 0.01)])
    assert found.method == "seeds"
    assert found.high - found.low == pytest.approx(math.hypot(high - low, over_seeds[1] - over_seeds[0]))


def test_a_ratio_that_is_the_same_for_every_pair_has_no_error():
    bottoms = np.random.default_rng(0).uniform(1, 9, size=(1, 20))
    found = estimate(over_pairs([1], 2 * bottoms, bottoms, (1.0, math.inf)))
    assert (found.low, found.mean, found.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(
    ("images", "holds"),
    [
        (torch.zeros(2, 5, 1, 4, 4), r"torch.float32 \(2, 5, 1, 4, 4\)"),
        (torch.full((2, 5, 1, 4, 4), 4, dtype=torch.uint8), r"torch.uint8 \(2, 5, 1, 4, 4\)"),
        (torch.zeros(2, 5, 1, 3, 4, dtype=torch.uint8), r"\(2, 5, 1, 3, 4\)"),
        (torch.zeros(2, 2, 1, 4, 4, dtype=torch.uint8), r"\(2, 2, 1, 4, 4\)"),
        (torch.zeros(0, 5, 1, 4, 4, dtype=torch.uint8), r"\(0, 5, 1, 4, 4\)"),
    ],
)
def test_paths_of_another_form_are_refused_by_name(tmp_path, images, holds):
    bars = toy_artifact(tmp_path / "images")
    samples = {"1": torch.zeros(20, 1, 4, 4, dtype=torch.uint8)}
    models = [model_artifact(tmp_path / family, bars, samples, family=family) for family in ("vae", "gan")]
    save_file({"images": images}, models[0].path / PATHS)
    with pytest.raises(DataError, match=rf"toy: paths.safetensors must hold 'images'.* and holds .*{holds}"):
        load_contestants(bars, bars, models)
