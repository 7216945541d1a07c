"""Distances to train and to unseen images: known where images are known shifts of each other; copies win against train only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.image.compare.references import References

NUM_VALUES = 4


class Pixels:
    """A space whose vectors are the values of an image."""

    name, sha256 = "pixels", "0"

    def features(self, images):
        return images.flatten(1).double().numpy()


TRAIN = torch.randint(200, (60, 1, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def references(unseen, parts=()):
    space = Pixels()
    train, other = space.features(TRAIN), space.features(unseen)
    return References(space=space, train=train, unseen=other, real_train=train, real_unseen=other, parts=parts)


def test_the_distance_is_that_of_the_shift_and_the_gap_is_to_unseen_minus_to_train():
    found = references(TRAIN + 3).measure(TRAIN + 1)
    # Equal covariances: only the means differ, by 1 level to train and by 2 to unseen, in each value.
    assert found["values"]["frechet_distance"] == pytest.approx(NUM_VALUES)
    assert found["values"]["frechet_gap"] == pytest.approx(2**2 * NUM_VALUES - NUM_VALUES)
    assert found["deviations"] == {}


def test_a_copy_of_train_is_next_to_train_and_not_to_unseen_images():
    found = references(TRAIN + 3).measure(TRAIN)
    assert found["values"]["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert found["values"]["frechet_gap"] == pytest.approx(9 * NUM_VALUES)


def test_deviations_are_over_parts_of_the_samples():
    parts = [np.delete(np.arange(60), range(start, start + 6)) for start in (0, 6, 12)]
    found = references(TRAIN + 3, parts).measure(TRAIN + 1)
    assert found["deviations"].keys() == found["values"].keys()
    assert min(found["deviations"].values()) > 0
