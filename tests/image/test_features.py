"""Feature spaces, the evaluator and the panel of known faults, on the digits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import DataError, StageError
from stages.common.images import corruptions as faults
from stages.common.images.corruptions import corrupted
from stages.common.images.evaluation import (
    Evaluator,
    check_comparable,
    independent_pixels,
    rank_agreement,
)
from stages.common.images.extractor import ExtractorNetwork, initialise
from stages.common.images.features import ExtractorFacts, PixelSpace, load_extractor, raw_features, save_extractor
from stages.common.images.grid import Split, load_split
from stages.common.images.noise import seeded_generator
from stages.common.metrics.frechet_distance import frechet
from stages.common.metrics.sharpness import energies
from stages.image.classifier.panel import corruption_panel
from tests.image.digits import digits_artifact

LEVELS = 17


def network_for(shape, *, levels=LEVELS, num_outputs=10, num_features=64, seed=0):
    channels, height, width = shape
    sizes = {"channels": channels, "height": height, "width": width, "levels": levels}
    network = ExtractorNetwork(**sizes, num_outputs=num_outputs, num_features=num_features, first_width=8)
    initialise(network, seeded_generator(seed))
    return network


def saved(folder, network, train, kind):
    digest = save_extractor(folder, network, train.images)
    outputs = 10 if kind == "supervised" else 0
    facts = ExtractorFacts(
        name=folder.name, kind=kind, seed=0, num_features=64, num_outputs=outputs, test_accuracy=None, sha256=digest
    )
    return load_extractor(folder, facts)


def learn(network, train, num_steps=70):
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    for step in range(num_steps):
        rows = torch.randint(len(train), (96,), generator=seeded_generator(3, step))
        F.cross_entropy(network(train.images[rows]), train.labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    images = digits_artifact(tmp_path_factory.mktemp("digits"))
    return {name: load_split(images, name) for name in ("train", "test")}


@pytest.fixture(scope="module")
def extractors(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractors")
    trained = network_for((1, 8, 8))
    learn(trained, digits["train"])
    untrained = network_for((1, 8, 8), num_outputs=0, seed=1)
    return [
        saved(folder / "supervised-0", trained, digits["train"], "supervised"),
        saved(folder / "random", untrained, digits["train"], "random"),
    ]


@pytest.fixture(scope="module")
def evaluator(digits, extractors):
    return Evaluator(**digits, levels=LEVELS, extractors=extractors, num_samples=200, num_parts=2, seed=1)


@pytest.fixture(scope="module")
def panel(digits, extractors):
    return corruption_panel(**digits, levels=LEVELS, extractors=extractors, seed=0, num_parts=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 5, 9), (1, 4, 4), (2, 3, 3)])
def test_the_network_takes_images_of_any_size_and_sees_each_alone(shape):
    network = network_for(shape, num_outputs=3, num_features=7).train()
    images = torch.randint(LEVELS, (6, *shape), generator=seeded_generator(1)).to(torch.uint8)
    assert network(images).shape == (6, 3)
    assert network.features(images).shape == (6, 7)
    torch.testing.assert_close(network.features(images[2:3]), network.features(images)[2:3], rtol=1e-4, atol=1e-5)


def test_features_are_taken_before_the_last_activation(digits):
    features = raw_features(network_for((1, 8, 8)), digits["test"].images)
    assert (features < -0.5).float().mean() > 0.05  # SiLU goes down to -0.28 only


def test_features_have_mean_0_and_deviation_1_over_train_and_come_back_from_disk_bit_for_bit(digits, extractors, tmp_path):
    for extractor in extractors:
        features = extractor.features(digits["train"].images)
        assert features.dtype == np.float64
        assert features.shape == (1200, 64)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(features.std(axis=0, ddof=1), 1, rtol=1e-9)
    network = network_for((1, 8, 8), num_outputs=0, seed=1)
    again = saved(tmp_path / "random", network, digits["train"], "random")
    assert again.sha256 == extractors[1].sha256
    assert (again.features(digits["test"].images) == extractors[1].features(digits["test"].images)).all()
    given = extractors[0].probabilities(digits["test"].images)
    np.testing.assert_allclose(given.sum(axis=1), 1)
    assert (given.argmax(axis=1) == digits["test"].labels.numpy()).mean() > 0.9


def test_a_feature_without_variance_is_refused(digits, tmp_path):
    network = network_for((1, 8, 8))
    with torch.no_grad():
        network.to_features.weight[5] = 0
        network.to_features.bias[5] = 0.3
    with pytest.raises(StageError, match=r"1 of 64 features \(the first: 5\) have no variance"):
        save_extractor(tmp_path / "x", network, digits["train"].images)
    with pytest.raises(StageError, match="64 of 64 features .*all alike"):
        save_extractor(tmp_path / "x", network_for((1, 8, 8)), digits["train"].images[:1].repeat(50, 1, 1, 1))
    with torch.no_grad():
        network.to_features.bias[5] = float("nan")
    with pytest.raises(StageError, match="not finite"):
        save_extractor(tmp_path / "x", network, digits["train"].images)


def test_an_extractor_that_was_changed_on_disk_is_refused(digits, tmp_path):
    digest = save_extractor(tmp_path / "a", network_for((1, 8, 8), seed=1), digits["train"].images)
    save_extractor(tmp_path / "a", network_for((1, 8, 8), seed=2), digits["train"].images)
    facts = ExtractorFacts(name="a", kind="random", seed=1, num_features=64, num_outputs=0, test_accuracy=None, sha256=digest)
    with pytest.raises(DataError, match="extractor a has sha256 .* make it anew"):
        load_extractor(tmp_path / "a", facts)


def test_the_pixels_space_keeps_what_varies_most(digits):
    train = digits["train"].images
    space = PixelSpace(train)
    features = space.features(train)
    rows = train.flatten(1).double().numpy()
    leading = np.sort(np.linalg.eigvalsh(np.cov(rows.T, bias=True)))[::-1][:32]
    np.testing.assert_allclose(features.var(axis=0), leading, rtol=1e-9)
    assert PixelSpace(train[:, :, :4, :4]).features(train[:5, :, :4, :4]).shape == (5, 16)
    assert len({space.sha256, PixelSpace(train[1:]).sha256, PixelSpace(train, 8).sha256}) == 3


def test_pixels_drawn_one_by_one_keep_their_histograms_and_lose_their_neighbours(digits):
    train = digits["train"].images
    drawn = independent_pixels(train, 4000, seeded_generator(0))
    real, found = (images.double().flatten(1).numpy() for images in (train, drawn))
    assert (found[:, real.max(axis=0) == 0] == 0).all()
    np.testing.assert_allclose(found.mean(axis=0), real.mean(axis=0), atol=0.4)
    place = 8 * 3 + 3
    assert abs(np.corrcoef(found[:, place], found[:, place + 8])[0, 1]) < 0.06
    assert np.corrcoef(real[:, place], real[:, place + 8])[0, 1] > 0.3


def test_real_images_have_ratio_0_and_pixels_drawn_one_by_one_ratio_1(evaluator, digits, extractors):
    real, noise = evaluator.evaluate(evaluator.real), evaluator.evaluate(evaluator.pixelwise)
    for name in ("supervised-0", "random", "pixels-pca"):
        assert real["spaces"][name]["values"]["frechet_ratio"] == 0
        assert noise["spaces"][name]["values"]["frechet_ratio"] == 1
    space = real["spaces"]["supervised-0"]
    features = [extractors[0].features(images) for images in (evaluator.real, digits["test"].images)]
    assert space["floor"] == space["values"]["frechet_distance"] == pytest.approx(frechet(*features), rel=1e-9)
    assert {"total_variation", "mean_largest_probability"} <= space["values"].keys()
    assert "total_variation" not in real["spaces"]["random"]["values"]
    assert (real["num_samples"], real["num_references"]) == (200, 500)
    assert json.loads(json.dumps(real)) == real


def evaluate_samples(samples, reference_test, train, extractors, **options):
    evaluator = Evaluator(train=train, test=reference_test, extractors=extractors, num_samples=len(samples), **options)
    return evaluator.evaluate(samples)


def test_the_same_seed_gives_the_same_numbers_from_an_evaluator_made_anew(evaluator, digits, extractors):
    options = {"levels": LEVELS, "num_parts": 2, "seed": 1}
    again = evaluate_samples(evaluator.pixelwise, digits["test"], digits["train"], extractors, **options)
    assert again == evaluator.evaluate(evaluator.pixelwise)


def test_ratios_to_real_images_say_how_far_other_real_images_would_move_them(evaluator, digits):
    found = evaluator.evaluate(digits["train"].images[:200])["pixels"]
    told, values = found["reference_deviations"], found["values"]
    assert told.keys() == values.keys()
    # For a ratio of means the relative deviation is that of the mean of the real images.
    own = energies("references", digits["test"].images.numpy())[:, 0]
    relative = own.std(ddof=1) / np.sqrt(len(own)) / own.mean()
    assert told["laplacian_ratio"] == pytest.approx(values["laplacian_ratio"] * relative, rel=0.2)
    assert told["nearest_neighbour_ratio"] >= 0


@pytest.mark.slow  # what parts tell is tested in test_spread; this is the whole way
def test_a_deviation_is_how_far_other_draws_of_samples_lie_apart(digits):
    options = {"levels": LEVELS, "extractors": [], "num_samples": 150}
    evaluator = Evaluator(**digits, **options, num_parts=15)
    plain = Evaluator(**digits, **options, num_parts=0)
    found = evaluator.evaluate(independent_pixels(digits["train"].images, 150, seeded_generator(8)))
    draws = [plain.evaluate(independent_pixels(digits["train"].images, 150, seeded_generator(9, i))) for i in range(20)]

    def part(result, key):
        return result["pixels"] if key == "laplacian_ratio" else result["spaces"]["pixels-pca"]

    for key in ("laplacian_ratio", "frechet_distance", "coverage"):
        deviation = part(found, key)["deviations"][key]
        assert 0.5 < deviation / np.std([part(one, key)["values"][key] for one in draws], ddof=1) < 2
    assert draws[0]["pixels"]["deviations"] == {}


def test_a_collapsed_model_is_measured_and_not_refused(evaluator, digits):
    found = evaluator.evaluate(digits["train"].images[:1].repeat(200, 1, 1, 1))
    values = found["spaces"]["supervised-0"]["values"]
    assert values["recall"] == 0
    assert values["vendi_score"] == pytest.approx(1)
    assert values["frechet_ratio"] > 1
    assert values["missing_classes"] == 9
    flat = evaluator.evaluate(torch.full((200, 1, 8, 8), 3, dtype=torch.uint8))
    assert flat["pixels"]["values"]["laplacian_ratio"] == 0


def test_samples_of_another_number_shape_type_or_level_are_refused(evaluator):
    good = evaluator.pixelwise
    with pytest.raises(DataError, match="199 samples, but all sets have 200"):
        evaluator.evaluate(good[:199])
    with pytest.raises(DataError, match=r"torch.float32 \(200, 1, 8, 8\)"):
        evaluator.evaluate(good.float())
    with pytest.raises(DataError, match=r"\(200, 1, 8, 7\)"):
        evaluator.evaluate(good[..., :7])
    with pytest.raises(DataError, match="level 17 is not on the grid of 17 levels"):
        evaluator.evaluate(torch.full_like(good, 17))


def test_too_few_images_are_refused_before_anything_is_measured(digits, extractors):
    def make(train=digits["train"], test=digits["test"], num_samples=300, num_parts=2, levels=LEVELS):
        options = {"num_samples": num_samples, "num_parts": num_parts, "levels": levels}
        return Evaluator(train=train, test=test, extractors=extractors, **options)

    few = Split(digits["test"].images[:60], digits["test"].labels[:60])
    with pytest.raises(DataError, match="references: 60 images for 64 features"):
        make(test=few)
    with pytest.raises(DataError, match="draw at most 1200 samples"):
        make(num_samples=1201)
    with pytest.raises(DataError, match="parts of 63 out of 70 samples are too few for the 64 features of supervised-0"):
        make(num_samples=70)
    flat = Split(torch.zeros_like(digits["test"].images), digits["test"].labels)
    with pytest.raises(DataError, match="no edges at all"):
        make(test=flat)
    with pytest.raises(DataError, match="split the data anew"):
        make(test=Split(digits["train"].images[:300], digits["train"].labels[:300]))
    noise = [independent_pixels(digits["train"].images, num, seeded_generator(num)) for num in (1000, 400)]
    with pytest.raises(DataError, match="as near to the test images"):
        make(train=Split(noise[0], digits["train"].labels[:1000]), test=Split(noise[1], digits["test"].labels[:400]))


def test_numbers_of_other_extractors_samples_or_references_are_not_compared(evaluator, digits, extractors, tmp_path):
    mine = evaluator.evaluate(evaluator.real)
    check_comparable([mine, evaluator.evaluate(evaluator.pixelwise)])
    other = saved(tmp_path / "supervised-0", network_for((1, 8, 8), seed=7), digits["train"], "supervised")
    options = {"levels": LEVELS, "num_parts": 0, "seed": 1}
    with pytest.raises(DataError, match=f"supervised-0: {extractors[0].sha256[:12]} and {other.sha256[:12]}"):
        check_comparable(
            [mine, evaluate_samples(evaluator.real, digits["test"], digits["train"], [other, extractors[1]], **options)]
        )
    with pytest.raises(DataError, match="num_samples: 200 and 180"):
        check_comparable([mine, evaluate_samples(evaluator.real[:180], digits["test"], digits["train"], extractors, **options)])
    fewer = Split(digits["test"].images[:499], digits["test"].labels[:499])
    with pytest.raises(DataError, match="num_references: 500 and 499, references_sha256"):
        check_comparable([mine, evaluate_samples(evaluator.real, fewer, digits["train"], extractors, **options)])
    with pytest.raises(DataError, match="random: .* and None"):
        check_comparable([mine, evaluate_samples(evaluator.real, digits["test"], digits["train"], extractors[:1], **options)])


def test_rank_agreement_is_kendalls_tau_of_each_pair_of_spaces(evaluator):
    result = evaluator.evaluate(evaluator.real)

    def ranked(first, second):
        spaces = {name: dict(space) for name, space in result["spaces"].items()}
        spaces["supervised-0"]["values"] = {"frechet_distance": first}
        spaces["random"]["values"] = {"frechet_distance": second}
        return result | {"spaces": spaces}

    models = {"a": ranked(1.0, 10.0), "b": ranked(2.0, 30.0), "c": ranked(3.0, 20.0)}
    agreement = rank_agreement(models | {"d": ranked(4.0, 40.0)})
    assert agreement["supervised-0", "random"] == pytest.approx((5 - 1) / 6)
    assert rank_agreement({"a": models["a"], "b": models["b"]})["supervised-0", "random"] == 1
    with pytest.raises(DataError, match="at least 2"):
        rank_agreement({"a": models["a"]})
    broken = models["b"] | {"seed": 9}
    with pytest.raises(DataError, match="seed: 1 and 9"):
        rank_agreement({"a": models["a"], "b": broken})


def test_faulty_sets_are_of_one_size_and_have_the_fault_that_they_are_named_for(digits):
    train = digits["train"]
    sets = corrupted(train, levels=LEVELS, seed=0)
    assert len({len(images) for images in sets.values()}) == 1
    assert all(images.dtype == torch.uint8 and int(images.max()) < LEVELS for images in sets.values())
    labels = {image.numpy().tobytes(): int(label) for image, label in zip(train.images, train.labels, strict=True)}
    found = {name: {labels[image.numpy().tobytes()] for image in sets[name]} for name in (faults.TWO_DROPPED, faults.HALF_ONLY)}
    assert found == {faults.TWO_DROPPED: set(range(8)), faults.HALF_ONLY: set(range(5))}
    assert len(sets[faults.REPEATED].unique(dim=0)) == 10
    assert (sets[faults.SHIFTED][..., 1:] == sets[faults.COPY][..., :-1]).all()
    unlabelled = replace(train, labels=torch.full_like(train.labels, -1))
    without = corrupted(unlabelled, levels=LEVELS, seed=0)
    assert faults.TWO_DROPPED not in without
    assert len(without[faults.COPY]) == 1000


def test_only_memorisation_sees_a_copy_of_train(panel):
    copy = panel[faults.COPY]
    values = copy["spaces"]["supervised-0"]["values"]
    assert abs(values["frechet_ratio"]) < 0.05
    assert min(values[key] for key in ("precision", "recall", "coverage")) > 0.9
    assert copy["pixels"]["values"]["laplacian_ratio"] == pytest.approx(1, abs=0.05)
    assert copy["pixels"]["values"]["nearest_neighbour_ratio"] == 0
    assert copy["pixels"]["values"]["duplicate_share"] == 1
    fresh = panel[faults.PIXELWISE]["pixels"]["values"]
    assert fresh["duplicate_share"] == fresh["close_share"] == 0


def test_sharpness_tells_blur_from_low_contrast(panel):
    copy, blur, pale = (panel[name]["pixels"]["values"] for name in (faults.COPY, faults.BLUR, faults.PALE))
    assert blur["laplacian_ratio"] < 0.2
    assert blur["high_frequency_ratio"] < 0.4
    assert pale["laplacian_ratio"] == pytest.approx(0.64 * copy["laplacian_ratio"], abs=0.03)
    assert pale["high_frequency_ratio"] == pytest.approx(copy["high_frequency_ratio"], abs=0.02)


def test_dropped_classes_show_in_class_shares_and_diversity_and_not_in_precision(panel):
    copy, two, half, ten = (
        panel[name]["spaces"]["supervised-0"]["values"]
        for name in (faults.COPY, faults.TWO_DROPPED, faults.HALF_ONLY, faults.REPEATED)
    )
    assert copy["total_variation"] < 0.12 < two["total_variation"] < 0.3 < half["total_variation"]
    assert half["coverage"] < two["coverage"] < copy["coverage"] - 0.1
    assert min(two["precision"], half["precision"], ten["precision"]) > 0.9
    assert ten["recall"] == 0
    assert half["recall"] < 0.75
    assert ten["vendi_ratio"] < half["vendi_ratio"] < 0.85


@pytest.mark.parametrize("fault", [faults.BLUR, faults.SHIFTED, faults.REPEATED, faults.HALF_ONLY])
def test_every_space_sees_a_gross_fault(panel, fault):
    for name in ("supervised-0", "random", "pixels-pca"):
        assert panel[fault]["spaces"][name]["values"]["frechet_ratio"] > 0.2, name


def test_a_shift_is_seen_by_distance_and_not_by_sharpness(panel):
    assert panel[faults.SHIFTED]["pixels"]["values"]["high_frequency_ratio"] == pytest.approx(1, abs=0.1)
    assert panel[faults.NOISE]["spaces"]["random"]["values"]["frechet_ratio"] > 0.02
