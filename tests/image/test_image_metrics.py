"""Metrics of image sets: their mathematics on sets that can be worked out by hand, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from stages.common.metric_modules import load_metric
from stages.common.metrics import (
    bits_per_dim,
    class_histogram,
    frechet_distance,
    kernel_distance,
    memorisation,
    precision_recall,
    sharpness,
    vendi_score,
)
from stages.common.metrics.kernel_distance import squared_mmd
from stages.common.metrics.memorisation import nearest


def compute(module, **values):
    return load_metric(module).compute(**values)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def with_moments(mean, covariance, *, num=200, seed=0):
    """Return vectors whose sample mean and covariance (n - 1) are exactly these."""
    rows = normal(seed, num, len(mean))
    rows -= rows.mean(axis=0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_with_one_set_of_axes_is_the_sum_over_axes():
    one, other = np.array([4.0, 1.0, 9.0]), np.array([1.0, 1.0, 0.25])
    turn = np.linalg.qr(normal(1, 3, 3))[0]
    a = with_moments(np.array([1.0, 0, 0]), turn @ np.diag(one) @ turn.T)
    b = with_moments(np.array([0.0, 2, 0]), turn @ np.diag(other) @ turn.T, num=300, seed=2)
    expected = 1 + 4 + np.sum((np.sqrt(one) - np.sqrt(other)) ** 2)
    assert compute(frechet_distance, predictions=a, references=b)["frechet_distance"] == pytest.approx(expected, rel=1e-12)
    assert compute(frechet_distance, predictions=b, references=a)["frechet_distance"] == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_a_set_to_itself_is_zero_also_when_features_depend_on_each_other():
    rows = normal(0, 100, 8) @ normal(1, 8, 8)
    rows[:, 7] = rows[:, 0] + rows[:, 1]
    assert compute(frechet_distance, predictions=rows, references=rows.copy())["frechet_distance"] == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_a_collapsed_model_is_that_of_a_point():
    rows = normal(3, 200, 4)
    point = np.repeat(rows.mean(axis=0)[None], 50, axis=0)
    found = compute(frechet_distance, predictions=point, references=rows)["frechet_distance"]
    assert found == pytest.approx(np.trace(np.cov(rows.T)), rel=1e-12)


def test_kernel_distance_has_no_bias_where_the_plain_mean_over_all_pairs_has_one():
    draws = [(normal((1, index), 12, 3), normal((2, index), 9, 3)) for index in range(400)]
    found = np.array([squared_mmd(x, y) for x, y in draws])
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(len(found))

    def kernel(x, y):
        return (x @ y.T / 3 + 1) ** 3

    biased = np.array([kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean() for x, y in draws])
    assert biased.mean() > 10 * found.std() / np.sqrt(len(found))


def test_the_kernel_distances_interval_is_as_wide_as_other_draws_of_samples_are_apart():
    references = normal(0, 150, 8)
    others = [squared_mmd(0.3 + normal((3, index), 120, 8), references) for index in range(150)]
    found = compute(kernel_distance, predictions=0.3 + normal(5, 120, 8), references=references)
    width = found["kernel_distance_high"] - found["kernel_distance_low"]
    assert width == pytest.approx(2 * 1.96 * np.std(others), rel=0.35)
    assert found["kernel_distance_low"] < found["kernel_distance"] < found["kernel_distance_high"]
    assert found == compute(kernel_distance, predictions=0.3 + normal(5, 120, 8), references=references)


def test_precision_recall_density_and_coverage_on_a_line():
    real = np.arange(10.0)[:, None]  # with k = 1 every ball reaches just below its neighbours
    fake = np.array([[0.5], [0.6], [2.4], [100.0]])
    found = compute(precision_recall, predictions=fake, references=real, nearest_k=1)
    assert found["precision"] == pytest.approx(3 / 4)
    assert found["density"] == pytest.approx(6 / 4)
    assert found["coverage"] == pytest.approx(4 / 10)  # 0 and 1, 2 and 3
    # Balls of the samples: 0.1 around 0.5 and 0.6, 1.8 around 2.4, and 97.6 around the outlier, which spoils recall.
    assert found["recall"] == pytest.approx(np.mean([abs(x - 2.4) < 1.8 or abs(x - 100) < 97.6 for x in range(10)]))


def test_blocks_of_rows_change_no_figure(monkeypatch):
    fake, real = normal(1, 41, 5), normal(2, 37, 5)
    whole = compute(precision_recall, predictions=fake, references=real), squared_mmd(fake, real)
    for module in (precision_recall, kernel_distance):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 10)
    assert compute(precision_recall, predictions=fake, references=real) == whole[0]
    assert squared_mmd(fake, real) == pytest.approx(whole[1], abs=1e-12)


def test_a_few_real_images_repeated_have_full_precision_and_no_recall():
    real = normal(0, 300, 6)
    found = compute(precision_recall, predictions=np.tile(real[:10], (20, 1)), references=real)
    assert found["precision"] == 1
    assert found["recall"] == 0
    assert found["coverage"] < 0.25


def test_vendi_score_counts_kinds_that_are_at_right_angles_and_not_their_copies():
    kinds = np.eye(5)[:3] * np.array([[1.0], [7.0], [2.0]])
    assert compute(vendi_score, predictions=np.repeat(kinds, 4, axis=0))["vendi_score"] == pytest.approx(3)
    assert compute(vendi_score, predictions=np.ones((9, 4)))["vendi_score"] == pytest.approx(1)
    uneven = np.repeat(kinds, [6, 3, 1], axis=0)
    shares = np.array([0.6, 0.3, 0.1])
    assert compute(vendi_score, predictions=uneven)["vendi_score"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


@pytest.mark.parametrize("num", [5, 40])
def test_vendi_score_is_that_of_the_kernel_over_all_pairs_whichever_matrix_is_smaller(num):
    rows = normal(4, num, 12)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / num)
    shares = shares[shares > 1e-14]
    assert compute(vendi_score, predictions=rows)["vendi_score"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


def test_contrast_and_brightness_move_the_laplacian_and_never_the_share_of_fine_detail():
    images = normal(0, 40, 2, 8, 8)
    found = compute(sharpness, predictions=0.8 * images + 3, references=images)
    assert found["laplacian_ratio"] == pytest.approx(0.64)
    assert found["high_frequency_ratio"] == pytest.approx(1)


def test_a_wave_is_fine_detail_above_a_quarter_of_a_cycle_per_pixel_only():
    place = np.arange(8)
    real = normal(0, 40, 1, 8, 8)
    slow, quarter, fast = (np.tile(np.cos(2 * np.pi * cycles * place / 8), (1, 1, 8, 1)) for cycles in (1, 2, 3))
    assert compute(sharpness, predictions=slow, references=real)["high_frequency_ratio"] == pytest.approx(0, abs=1e-12)
    assert compute(sharpness, predictions=quarter, references=real)["high_frequency_ratio"] == pytest.approx(0, abs=1e-12)
    assert compute(sharpness, predictions=slow + 2 * fast, references=fast)["high_frequency_ratio"] == pytest.approx(0.8)


def test_the_laplacian_of_one_bright_pixel_is_known_and_flat_images_have_no_sharpness():
    dot, half = np.zeros((1, 1, 5, 5)), np.zeros((1, 1, 5, 5))
    dot[0, 0, 2, 2], half[0, 0, 2, 2] = 4, 2
    energies = sharpness.energies("x", dot)
    assert energies[0, 0] == pytest.approx((16**2 + 4 * 4**2) / 9)
    assert compute(sharpness, predictions=half, references=dot)["laplacian_ratio"] == pytest.approx(0.25)
    flat = compute(sharpness, predictions=np.full((3, 1, 5, 5), 7), references=dot)
    assert flat == {"laplacian_ratio": 0, "high_frequency_ratio": 0}


def test_total_variation_is_the_share_of_samples_that_would_have_to_change_class():
    found = compute(class_histogram, predictions=np.array([0, 0, 0, 3]), references=np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert found == {"total_variation": pytest.approx(0.5), "missing_classes": 2}
    assert compute(class_histogram, predictions=[1, 1], references=[0])["total_variation"] == 1


def test_memorisation_tells_copies_near_copies_and_new_images_apart():
    generator = np.random.default_rng(0)
    training = generator.integers(0, 17, size=(400, 12))
    unseen = generator.integers(0, 17, size=(200, 12))
    copies = compute(memorisation, predictions=training[:50], references=unseen, training=training)
    assert copies == {"nearest_neighbour_ratio": 0, "close_share": 1, "duplicate_share": 1}
    near = training[:50].copy()
    near[:, 0] += 1
    found = compute(memorisation, predictions=near, references=unseen, training=training)
    assert found["duplicate_share"] == 0
    assert found["close_share"] == 1
    fresh = compute(memorisation, predictions=generator.integers(0, 17, size=(300, 12)), references=unseen, training=training)
    assert fresh["nearest_neighbour_ratio"] == pytest.approx(1, abs=0.1)
    assert fresh["close_share"] < 0.05


def test_nearest_distances_in_blocks_are_those_of_brute_force():
    x, t = normal(0, 600, 5), normal(1, 40, 5)
    brute = np.sqrt(((x[:, None] - t[None]) ** 2).sum(axis=2))
    distances, rows = nearest("predictions", x, t)
    np.testing.assert_allclose(distances, brute.min(axis=1), rtol=1e-9)
    assert rows.tolist() == brute.argmin(axis=1).tolist()
    assert (nearest("predictions", t, t)[0] < 1e-6).all()


def test_bits_per_dim_is_a_mean_of_one_kind_and_says_which():
    assert compute(bits_per_dim, predictions=[1.0, 2.0], references=["lower bound"] * 2) == {
        "bits_per_dim": 1.5,
        "kind": "lower bound",
    }
    with pytest.raises(ValueError, match="one kind"):
        compute(bits_per_dim, predictions=[1.0, 2.0], references=["exact", "lower bound"])
    with pytest.raises(ValueError, match="one kind"):
        compute(bits_per_dim, predictions=[1.0], references=["none"])
    with pytest.raises(ValueError, match="image 1 has inf bits/dim"):
        compute(bits_per_dim, predictions=[1.0, np.inf], references=["exact"] * 2)


ROWS, IMAGES = normal(0, 30, 4), normal(0, 6, 1, 4, 4)
BROKEN = np.where(np.arange(120).reshape(30, 4) == 17, np.nan, ROWS)
BAD = {
    "not finite": [
        (frechet_distance, {"predictions": BROKEN, "references": ROWS}, "predictions: .*finite"),
        (frechet_distance, {"predictions": ROWS, "references": BROKEN}, "references: .*finite"),
        (kernel_distance, {"predictions": BROKEN, "references": ROWS}, "predictions: .*finite"),
        (precision_recall, {"predictions": ROWS, "references": BROKEN}, "references: .*finite"),
        (vendi_score, {"predictions": BROKEN}, "predictions: .*finite"),
        (sharpness, {"predictions": IMAGES * np.inf, "references": IMAGES}, "predictions: finite"),
        (memorisation, {"predictions": ROWS, "references": ROWS, "training": BROKEN}, "training: .*finite"),
    ],
    "one image": [
        (frechet_distance, {"predictions": ROWS[:1], "references": ROWS}, "1 images for 4 features"),
        (frechet_distance, {"predictions": ROWS, "references": ROWS[:4]}, "4 images for 4 features"),
        (kernel_distance, {"predictions": ROWS[:1], "references": ROWS}, "predictions: 1 images"),
        (precision_recall, {"predictions": ROWS[:5], "references": ROWS}, "predictions: 5 images, nearest_k is 5"),
        (vendi_score, {"predictions": ROWS[:1]}, "two images or more"),
    ],
    "other features": [
        (frechet_distance, {"predictions": ROWS, "references": ROWS[:, :3]}, "4 features and references 3"),
        (kernel_distance, {"predictions": ROWS, "references": ROWS[:, :3]}, "4 features and references 3"),
        (precision_recall, {"predictions": ROWS, "references": ROWS[:, :3]}, "4 features, references 3"),
        (memorisation, {"predictions": ROWS, "references": ROWS, "training": ROWS[:, :3]}, "4 values and training images 3"),
        (sharpness, {"predictions": IMAGES, "references": IMAGES[..., :3]}, r"\(1, 4, 4\), references of \(1, 4, 3\)"),
    ],
    "without meaning": [
        (vendi_score, {"predictions": ROWS * (np.arange(30) != 9)[:, None]}, "row 9 is all zeros"),
        (sharpness, {"predictions": IMAGES[:, :, :2], "references": IMAGES[:, :, :2]}, "3x3 pixels or more"),
        (sharpness, {"predictions": IMAGES, "references": IMAGES * 0}, "no edges at all"),
        (memorisation, {"predictions": ROWS, "references": ROWS * 0, "training": ROWS * 0}, "split the data anew"),
        (class_histogram, {"predictions": [], "references": [0]}, "predictions: a list of labels"),
        (class_histogram, {"predictions": [0], "references": [0.5]}, "references: a list of labels"),
        (class_histogram, {"predictions": [0], "references": [-1]}, "references: a list of labels"),
    ],
}


@pytest.mark.parametrize(
    ("module", "values", "message"),
    [case for cases in BAD.values() for case in cases],
    ids=[
        f"{kind}, {case[0].__name__.rpartition('.')[2]}, {number}"
        for kind, cases in BAD.items()
        for number, case in enumerate(cases)
    ],
)
def test_bad_sets_are_refused_by_name(module, values, message):
    with pytest.raises(ValueError, match=message):
        compute(module, **values)
