"""Signs of collapse: each rule sees its own fault, in a single training, and real variety shows none."""

from __future__ import annotations

import pytest

from stages.image.compare.collapse import signs_of
from stages.image.compare.tables import VARIETY, collapse_rows, columns_of
from tests.image.comparisons import contestant, number, study

SOUND = {
    "class_tv": number(0.05, 0.06, 0.05),
    "vendi_ratio": number(0.9, 1.0, 0.95),
    "precision": number(0.95, 0.96, 0.97),
    "recall": number(0.9, 0.8, 0.85),
}
GAN = contestant("gan", "gan")


def signs(**numbers):
    return signs_of(study({GAN: SOUND | numbers}), GAN)


def test_a_model_with_the_variety_of_real_images_shows_no_sign():
    assert signs() == []


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"class_tv": number(0.05, 0.31, 0.05)}, "class shares far from those of real images (seed 1: 0.31)"),
        ({"vendi_ratio": number(0.9, 1.0, 0.49)}, "less than half the variety of real images (seed 2: 0.49)"),
        (
            {"recall": number(0.05, 0.8, 0.0)},
            "precise, but next to nothing is recalled (seed 0: 0.95 and 0.05; seed 2: 0.97 and 0)",
        ),
    ],
)
def test_one_collapsed_training_is_enough_and_is_named(numbers, words):
    assert signs(**numbers) == [words]


def test_a_bad_model_without_precision_is_not_called_collapsed():
    assert signs(recall=number(0.0, 0.0, 0.0), precision=number(0.2, 0.1, 0.1)) == []


def test_at_the_bounds_there_is_no_sign_and_without_classes_the_other_rules_stand():
    assert signs(class_tv=number(0.3), vendi_ratio=number(0.5), recall=number(0.1), precision=number(0.95)) == []
    without = {key: value for key, value in SOUND.items() if key != "class_tv"} | {"vendi_ratio": number(0.1)}
    assert len(signs_of(study({GAN: without}), GAN)) == 1


def test_the_table_has_a_row_for_each_model_with_what_was_looked_at():
    vae = contestant("vae", "vae")
    found = study({GAN: SOUND | {"missing_classes": number(3.0, 3.0, 3.0), "class_tv": number(0.4, 0.5, 0.45)}, vae: SOUND})
    rows = collapse_rows(found)
    place = columns_of(VARIETY).index("classes missing")
    assert [(row[0], row[place]) for row in rows] == [("gan", "3"), ("vae", None)]
    assert rows[0][-1].startswith("class shares far from those of real images (seed 0: 0.4; seed 1: 0.5")
    assert rows[1][-1] == "none"
