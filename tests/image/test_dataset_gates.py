"""The gates between files and grid: each finding counted, named and treated as told; values worked out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from stages.image.dataset.card import Treatments
from stages.image.dataset.gates import Gates, Policy, pooled, to_levels
from stages.image.dataset.items import Encoded, Item, Pixels

REFUSE = Treatments().model_dump()


def encoded(place: str, values: np.ndarray, mode: str | None = None, label: str | None = None) -> Encoded:
    image = Image.fromarray(values.astype(np.uint8))
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return Encoded(place, buffer.getvalue, label)


def pixels(place: str, values: object, label: str | None = None) -> Pixels:
    return Pixels(place, np.asarray(values), label)


def gates(**options: object) -> Gates:
    actions = {**REFUSE, **{key[3:]: options.pop(key) for key in list(options) if key.startswith("on_")}}
    return Gates(Policy(**{"actions": actions, "source_levels": 256, "levels": 256, **options}))


def passed(gate: Gates, *items: Item) -> list[list]:
    return [sample.image.tolist() for sample in gate.samples(iter(items))]


RAMP = np.arange(4).reshape(2, 2)


def test_a_plain_image_passes_unchanged_with_its_channel_first():
    gate = gates()
    colour = np.arange(12).reshape(2, 2, 3)
    assert passed(gates(), encoded("a", RAMP)) == [[RAMP.tolist()]]
    assert passed(gate, encoded("a", colour)) == [colour.transpose(2, 0, 1).tolist()]
    assert gate.table() == []


def test_the_first_image_sets_size_and_channels_and_others_are_named():
    gate = gates()
    wide = np.arange(8).reshape(2, 4)
    assert len(passed(gate, encoded("a.png", RAMP), encoded("wide.png", wide), encoded("c.png", RAMP, "RGB"))) == 1
    with pytest.raises(DataError) as caught:
        gate.refuse()
    message = str(caught.value)
    assert "1 x images of another size (instead of refusing: on_wrong_size=resize or drop):" in message
    assert "wide.png: 2 x 4 pixels (height x width), the grid has 2 x 2" in message
    assert "c.png: 3 channel(s), the grid has 1" in message


def test_wrong_sizes_are_resized_or_dropped_as_told():
    constant_middle = np.array([[9, 4, 4, 9]] * 2)
    gate = gates(size=2, on_wrong_size="resize", on_constant="keep")
    assert passed(gate, encoded("a", constant_middle)) == [[[[4, 4], [4, 4]]]]
    gate = gates(size=2, on_wrong_size="drop")
    assert passed(gate, encoded("a", constant_middle), encoded("b", RAMP)) == [[RAMP.tolist()]]
    gate.refuse()
    assert [(row["kind"], row["action"], row["count"]) for row in gate.table()] == [("wrong_size", "drop", 1)]
    assert gate.num_dropped == 1


def test_palettes_are_refused_converted_or_dropped_as_told():
    item = encoded("p.png", RAMP * 80, "P")
    gate = gates()
    assert passed(gate, item) == []
    with pytest.raises(DataError, match=r"on_wrong_mode=convert or drop\):\n +p.png: a palette"):
        gate.refuse()
    assert passed(gates(channels=1, on_wrong_mode="convert"), item) == [[(RAMP * 80).tolist()]]
    assert passed(gates(on_wrong_mode="drop"), item) == []


def test_grey_and_colour_are_mixed_only_when_told():
    grey, colour = encoded("g.png", RAMP), encoded("c.png", np.stack([RAMP] * 3, axis=2))
    gate = gates(channels=3, on_wrong_mode="convert")
    assert passed(gate, grey, colour) == [[RAMP.tolist()] * 3] * 2
    assert gate.counts == {("wrong_mode", "convert"): 1}
    gate = gates(channels=1, on_wrong_mode="drop")
    assert passed(gate, grey, colour) == [[RAMP.tolist()]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[0.0, np.nan], [1.0, 2.0]], "1 of 4 values are not finite; the first is nan at (0, 1)"),
        ([[0.0, np.inf], [1.0, 2.0]], "1 of 4 values are not finite; the first is inf"),
        ([[0.0, 0.5], [0.25, 2.0]], "2 of 4 values are no whole number; the first is 0.5 at (0, 1)"),
        ([[0, 17], [1, 2]], "1 of 4 values are outside 0 ... 16; the first is 17 at (0, 1)"),
        ([[0, -1], [1, 2]], "1 of 4 values are outside 0 ... 16; the first is -1"),
        ([0, 1, 2], "an array of shape (3,), no image"),
        (np.zeros((2, 2, 4)), "an array of shape (2, 2, 4), no image"),
        ([["a", "b"]], "values of type <U1"),
    ],
)
def test_values_off_the_grid_are_named_by_place_and_number(values, reason):
    gate = gates(source_levels=17, levels=17)
    assert passed(gate, pixels("odd", values), pixels("good", [[0.0, 16.0]])) == [[[[0, 16]]]]
    with pytest.raises(DataError, match="1 x values that are no levels of the source") as caught:
        gate.refuse()
    assert f"odd: {reason}" in str(caught.value)


def test_a_corrupt_file_is_named_and_dropped_only_when_told():
    item = Encoded("sub/broken.png", lambda: b"\x89PNG\r\n\x1a\nbroken", None)
    gate = gates()
    assert passed(gate, item, encoded("good", RAMP)) == [[RAMP.tolist()]]
    with pytest.raises(DataError, match=r"on_corrupt=drop\):\n +sub/broken.png: "):
        gate.refuse()
    gate = gates(on_corrupt="drop")
    assert len(passed(gate, item, encoded("good", RAMP))) == 1
    gate.refuse()


def test_an_image_of_one_colour_is_refused_dropped_or_kept():
    item = pixels("blank", np.full((2, 2), 7))
    gate = gates()
    assert passed(gate, item) == []
    with pytest.raises(DataError, match="1 x images of one colour .*on_constant=drop or keep"):
        gate.refuse()
    assert passed(gates(on_constant="drop"), item) == []
    assert passed(gates(on_constant="keep"), item) == [[[[7, 7], [7, 7]]]]


def test_an_image_that_loses_all_its_levels_on_a_coarser_grid_is_constant():
    gate = gates(levels=2, on_constant="drop")
    assert passed(gate, pixels("dark", RAMP), pixels("both", RAMP * 80)) == [[[[0, 0], [1, 1]]]]


def test_images_without_a_label_among_labelled_ones_are_found():
    gate = gates(labelled=True, on_missing_label="drop")
    assert passed(gate, pixels("a", RAMP, "cat"), pixels("b", RAMP)) == [[RAMP.tolist()]]
    assert gate.counts == {("missing_label", "drop"): 1}
    assert gate.classes == {"cat"}


def test_the_first_five_examples_stand_for_all_and_the_count_is_exact():
    gate = gates()
    passed(gate, *(pixels(f"image {i}", np.zeros((2, 2))) for i in range(8)))
    with pytest.raises(DataError, match="8 x images of one colour") as caught:
        gate.refuse()
    assert [f"image {i}:" in str(caught.value) for i in range(8)] == [True] * 5 + [False] * 3


def test_after_a_thousand_refused_images_reading_stops():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield pixels("blank", np.zeros((1, 2)))

    with pytest.raises(DataError, match="1,000 x images of one colour"):
        list(gates().samples(endless()))
    assert read == 1000


def test_padding_and_pooling_by_hand():
    values = np.array([[1, 2], [3, 4]], np.uint8)[..., None]
    assert pooled(values, 0, 2)[..., 0].tolist() == [[3]]  # 10 / 4 = 2.5, a half goes up
    assert pooled(values, 1, 2)[..., 0].tolist() == [[0, 1], [1, 1]]  # one value and three zeros each: .25, .5, .75, 1
    assert pooled(np.full((28, 28, 1), 255, np.uint8), 2, 2).shape == (16, 16, 1)
    assert pooled(np.full((2, 2, 1), 255, np.uint8), 0, 2)[0, 0, 0] == 255
    with pytest.raises(DataError, match="3 x 3 pixels .* cannot be pooled by 2"):
        pooled(np.zeros((3, 3, 1), np.uint8), 0, 2)


def test_equal_parts_of_the_levels_become_one_level():
    values = np.array([0, 63, 64, 127, 128, 191, 192, 255], np.uint8)
    assert to_levels(values, 256, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert to_levels(values, 256, 256).tolist() == values.tolist()
    assert to_levels(np.arange(17, dtype=np.uint8), 17, 2).tolist() == [0] * 9 + [1] * 8
