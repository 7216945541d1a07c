"""Signs of collapse: they fire on collapsed generators and lost games, and not on real images or an even game."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.common.images.noise import seeded_generator
from stages.image.gan.collapse import game_signs, longest_run, sample_signs


def pictures(num, *, seed, levels=17):
    """Return images of a bright square at a random place and of a random level, over a little noise."""
    generator = seeded_generator(seed)
    images = torch.randint(3, (num, 1, 8, 8), generator=generator)
    for image in images:
        y, x, level = (int(torch.randint(high, (1,), generator=generator)) for high in (5, 5, 8))
        image[0, y : y + 3, x : x + 3] = levels - 1 - level
    return images.to(torch.uint8)


def fired(signs):
    return {sign.name for sign in signs if sign.fired}


def game(*, accuracy=0.6, gap=0.5, norms=1.0, num=300):
    history = {"step": [float(step) for step in range(1, num + 1)]}
    history["discriminator.accuracy"] = list(np.broadcast_to(accuracy, num))
    history["discriminator.logit_gap"] = list(np.broadcast_to(gap, num))
    history["discriminator.gradient_norm"] = [1.0] * num
    history["generator.gradient_norm"] = list(np.broadcast_to(norms, num))
    return history


REAL = pictures(200, seed=1)


def test_real_images_show_no_sign():
    signs = sample_signs(pictures(200, seed=2), REAL, seed=0)
    assert fired(signs) == set()
    assert {sign.n for sign in signs} == {200}


def test_a_constant_generator_fires_every_sign_of_samples():
    signs = sample_signs(REAL[:1].expand(200, -1, -1, -1), REAL, seed=0)
    assert fired(signs) == {"pairwise_distance_ratio", "nearest_distance_ratio", "distinct_ratio"}
    assert [sign.value for sign in signs] == pytest.approx([0, 0, 1 / 200])


def test_a_few_images_with_noise_are_seen_by_their_neighbours_only():
    few = REAL[:5].repeat(40, 1, 1, 1)
    speck = torch.zeros(200, 64, dtype=torch.uint8)
    speck[torch.arange(200), torch.arange(200) % 64] = 1
    assert fired(sample_signs(few + speck.view(200, 1, 8, 8), REAL, seed=0)) == {"nearest_distance_ratio"}


def test_the_pairwise_interval_holds_the_value_and_narrows_with_n():
    def interval(num):
        (sign, *_) = sample_signs(pictures(num, seed=2), pictures(num, seed=3), seed=0)
        assert sign.interval[0] <= sign.value <= sign.interval[1]
        return sign.interval[1] - sign.interval[0]

    assert interval(320) < 0.6 * interval(80)


@pytest.mark.parametrize(("fakes", "reals"), [(1, 200), (200, 1), (1, 1)])
def test_one_image_shows_no_sign_because_it_has_no_other_to_be_like(fakes, reals):
    assert sample_signs(pictures(fakes, seed=2), REAL[:reals], seed=0) == []


def test_constant_real_images_do_not_divide_by_zero():
    constant = REAL[:1].expand(20, -1, -1, -1)
    assert all(np.isfinite(sign.value) for sign in sample_signs(pictures(20, seed=2), constant, seed=0))


def test_an_even_game_shows_no_sign():
    assert fired(game_signs(game())) == set()


@pytest.mark.parametrize(
    ("history", "sign"),
    [
        (game(accuracy=np.where(np.arange(300) < 50, 0.7, 1.0)), "discriminator_won_steps"),
        (game(gap=np.linspace(0, 30, 300)), "logit_gap"),
        (game(norms=np.where(np.arange(300) < 250, 1.0, 1e-5)), "generator_gradient_ratio"),
        (game(norms=np.where(np.arange(300) < 250, 1.0, 1e5)), "generator_gradient_ratio"),
    ],
)
def test_a_lost_game_fires_its_sign(history, sign):
    assert fired(game_signs(history)) == {sign}


def test_a_run_of_wins_is_counted_in_steps_also_when_few_are_logged():
    steps = np.arange(20, 420, 20)
    assert longest_run(steps, steps > 100) == 281
    assert longest_run(steps, (steps > 100) & (steps != 260)) == 121
    assert longest_run(steps, steps > 999) == 0
