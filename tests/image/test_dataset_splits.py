"""Splits by the hash of the pixels: stable, disjoint, of different images only; refused where nothing could be learnt."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import DataError
from stages.common.images.grid import SPLITS
from stages.image.dataset.card import Treatments
from stages.image.dataset.checks import check, check_number, class_counts, images_needed
from stages.image.dataset.gates import Gates, Policy, Sample
from stages.image.dataset.neighbours import nearness
from stages.image.dataset.splits import Distinct, make_splits, split_of

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def random_images(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(number, 1, 2, 2), dtype=np.uint8)


def distinct(images: np.ndarray, labels: list[str | None] | None = None, *, max_images: int | None = None, **actions) -> Distinct:
    gates = Gates(Policy(actions=Treatments(**actions).model_dump(), source_levels=256, levels=256))
    result = Distinct(gates, max_images)
    for number, image in enumerate(images):
        result.add(Sample(f"image {number}", image, None if labels is None else labels[number]))
    gates.refuse()
    return result


def places(found: Distinct, *, classes: tuple[str, ...] = (), **fractions: float) -> dict[bytes, str]:
    splits = make_splits(found.images(), classes, **{"validation": 0.1, "test": 0.2, **fractions})
    return {image.numpy().tobytes(): name for name in SPLITS for image in splits[name].images}


def test_images_that_come_later_move_none_of_the_earlier():
    images = random_images(400)
    few, many = places(distinct(images[:200])), places(distinct(images[::-1]))
    assert len(few) == 200
    assert all(many[image] == split for image, split in few.items())
    assert {split: sum(s == split for s in many.values()) > 20 for split in SPLITS} == dict.fromkeys(SPLITS, True)


def test_the_split_is_read_from_the_first_64_bits_of_the_hash_alone():
    def split(*first):
        return {split_of(bytes([*first]) + bytes([rest]) * (32 - len(first)), validation=0.25, test=0.25) for rest in (0, 99)}

    assert split(0x00, 0, 0, 0, 0, 0, 0, 0) == split(0x3F, 255, 255, 255, 0, 0, 0, 0) == {"test"}
    assert split(0x40, 0, 0, 0, 0, 0, 0, 0) == split(0x7F, 255, 255, 255, 0, 0, 0, 0) == {"validation"}
    assert split(0x80, 0, 0, 0, 0, 0, 0, 0) == split(0xFF, 255, 255, 255, 0, 0, 0, 0) == {"train"}


def test_a_larger_test_split_keeps_the_images_of_the_smaller():
    images = random_images(300)
    small, large = places(distinct(images), test=0.1), places(distinct(images), test=0.3)
    assert all(large[image] == "test" for image, split in small.items() if split == "test")


def test_no_image_is_in_two_splits_and_copies_are_counted():
    images = random_images(150)
    found = distinct(np.concatenate([images, images[:40], images[:1]]))
    assert (found.num_read, found.num_copies, len(places(found))) == (191, 41, 150)


def test_a_smaller_number_keeps_a_part_of_the_larger_in_any_order():
    images = random_images(200)
    chosen = {n: set(places(distinct(images, max_images=n))) for n in (20, 50, 200)}
    assert [len(chosen[n]) for n in (20, 50, 200)] == [20, 50, 200]
    assert chosen[20] < chosen[50] < chosen[200]
    assert set(places(distinct(images[::-1], max_images=50))) == chosen[50]
    kept = places(distinct(images, max_images=100))
    assert {kept[image] for image in chosen[50]} == set(SPLITS)


def test_equal_images_with_different_labels_are_refused_or_dropped_together():
    images = random_images(3)[[0, 1, 2, 0, 0]]
    labels = ["cat", "cat", "dog", "dog", "cat"]
    with pytest.raises(
        DataError, match=r"1 x equal images with different labels.*\n.*image 3: label 'dog', but 'cat' as image 0"
    ):
        distinct(images, labels)
    found = distinct(images, labels, conflicting_label="drop")
    assert [label for _, label in found.images().values()].count("cat") == 1
    assert len(found.images()) == 2


def test_the_choice_of_images_does_not_depend_on_when_a_conflict_is_seen():
    images = random_images(60)
    early = distinct(np.concatenate([images[:1], images]), ["b"] + ["a"] * 60, max_images=20, conflicting_label="drop")
    late = distinct(np.concatenate([images, images[:1]]), ["a"] * 60 + ["b"], max_images=20, conflicting_label="drop")
    assert early.images().keys() == late.images().keys()


def test_labels_are_places_among_the_classes():
    images = random_images(3)
    splits = make_splits(distinct(images, ["dog", None, "cat"]).images(), ("cat", "dog"), validation=0.1, test=0.2)
    found = {
        image.numpy().tobytes(): int(label)
        for split in splits.values()
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert [found[image.tobytes()] for image in images] == [1, -1, 0]


def checked(number: int, num_classes: int = 0, *, least: int = 4, copies: int = 0, dropped: int = 0, seed: int = 0) -> None:
    classes = tuple(f"class {c}" for c in range(num_classes))
    labels = [classes[i % num_classes] for i in range(number)] if classes else None
    images = distinct(random_images(number, seed), labels).images()
    rules = {"fractions": FRACTIONS, "least": least, "num_copies": copies, "num_dropped": dropped}
    check_number(len(images), classes, **rules)
    check(make_splits(images, classes, validation=0.1, test=0.2), classes, **rules)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"number": 0, "dropped": 3}, "there is no image (left out before: 0 copies, 3 dropped): nothing can be learnt"),
        ({"number": 1}, "there is one image: nothing can be learnt"),
        ({"number": 1, "copies": 9}, "all images are equal (left out before: 9 copies, 0 dropped)"),
        ({"number": 5, "num_classes": 10}, "5 images for 10 classes: give about "),
        ({"number": 12}, "too few images in 'validation': train 10, validation 0, test 2; at least 4 each are needed"),
    ],
)
def test_splits_that_nothing_can_be_learnt_from_are_refused_by_rule(arguments, rule):
    with pytest.raises(DataError) as caught:
        checked(**arguments)
    assert rule.partition(": train")[0] in str(caught.value)


@pytest.mark.parametrize(("num_classes", "least"), [(0, 1), (0, 16), (10, 4), (100, 2)])
def test_the_number_of_images_that_a_refusal_names_would_work(num_classes, least):
    enough = images_needed(FRACTIONS, num_classes, least)
    for seed in range(5):
        checked(enough, num_classes, least=least, seed=seed)
    assert enough >= max(num_classes, least / 0.1)


def test_a_class_without_an_image_or_without_a_train_image_is_named():
    images = distinct(random_images(80), ["a"] * 80).images()
    splits = make_splits(images, ("a", "b"), validation=0.1, test=0.2)
    with pytest.raises(DataError, match="no image of class 'b'"):
        check(splits, ("a", "b"), fractions=FRACTIONS, least=1, num_copies=0, num_dropped=0)
    splits["test"].labels[0] = 1
    with pytest.raises(DataError, match="no train image of class 'b'"):
        check(splits, ("a", "b"), fractions=FRACTIONS, least=1, num_copies=0, num_dropped=0)


def test_classes_are_counted_in_each_split():
    splits = make_splits(distinct(random_images(60), ["a", "b", "b"] * 20).images(), ("a", "b"), validation=0.1, test=0.2)
    counts = class_counts(splits, 2)
    assert [sum(row.values()) for row in counts] == [20, 40]
    assert sum(row["test"] for row in counts) == len(splits["test"])


def test_near_copies_between_test_and_train_are_counted_exactly():
    rng = np.random.default_rng(1)
    train = rng.integers(0, 256, size=(500, 3, 8, 8), dtype=np.uint8)
    test = rng.integers(0, 256, size=(20, 3, 8, 8), dtype=np.uint8)
    test[:7] = np.clip(train[100:107].astype(int) + rng.integers(-1, 2, size=(7, 3, 8, 8)), 0, 255)
    test[7] = train[0]
    test[7, 0, 0, 0] ^= 2  # two levels away in one value, and so no twin
    found = nearness(test, train, lambda: None)
    gaps = np.abs(test[:, None].astype(int) - train[None]).reshape(20, 500, -1)
    assert (found.num_images, found.num_near) == (20, int((gaps.max(axis=2) <= 1).any(axis=1).sum())) == (20, 7)
    assert found.median_distance == pytest.approx(np.median(np.sqrt((gaps**2).mean(axis=2)).min(axis=1)))


def test_a_twin_is_found_even_when_another_image_is_nearer_on_average():
    test = np.full((1, 1, 4, 4), 100, np.uint8)
    twin, nearer = test + 1, test.copy()
    nearer[0, 0, 0, 0] = 102
    assert nearness(test, np.concatenate([nearer, twin]), lambda: None).num_near == 1
    assert nearness(test, nearer, lambda: None).num_near == 0


def test_the_nearest_image_is_found_in_any_part_of_a_large_train_split():
    train = np.random.default_rng(2).integers(0, 256, size=(30_000, 1, 16, 16), dtype=np.uint8)  # more than one block
    test = train[[10, 29_000]]
    found = nearness(test, train, lambda: None)
    assert (found.num_near, found.median_distance) == (2, 0.0)
