"""Where images come from: idx files, JSON, fonts, folders and the Hub; damaged ones are named, the order is that of names."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cards import Card, load_card
from pipeline.errors import CardError, DataError, GroundupError
from stages.common.images.grid import SPLITS, load_grid, load_split
from stages.common.packages import read_package
from stages.image.dataset.card import Hub, ImageCard, SourceEntry
from stages.image.dataset.items import Encoded, Pixels
from stages.image.dataset.readers import read_emoji, read_idx, read_mnist_json
from stages.image.dataset.sources import in_order, open_card, open_files, open_hub
from tests.harness import make_context, run_stage

TOY = ImageCard(sources=[SourceEntry(hub=Hub(repo="a/b"))], classes=["0", "1"], size=8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES, LABELS = np.arange(12).reshape(3, 2, 2), np.array([1, 0, 1])
NAMES = ("d/t-images-idx3-ubyte.gz", "d/t-labels-idx1-ubyte.gz")


def test_idx_pairs_give_images_with_the_names_of_their_labels():
    for pack in (gzip.compress, bytes):
        items = list(read_idx(dict(zip(NAMES, (pack(idx(IMAGES)), pack(idx(LABELS))), strict=True)), TOY))
        assert [item.label for item in items] == ["1", "0", "1"]
        assert [item.values.tolist() for item in items] == IMAGES.tolist()
        assert items[2].place == "t-images-idx3-ubyte.gz, image 2"


@pytest.mark.parametrize(
    ("images", "labels", "rule"),
    [
        (idx(IMAGES)[:-1], idx(LABELS), r"its head promises \(3, 2, 2\), its body has 11 bytes; it is cut off"),
        (idx(LABELS), idx(LABELS), "does not open with the idx number 0x0803"),
        (b"", idx(LABELS), "does not open with the idx number"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-9], idx(LABELS), "the gzip stream is broken"),
        (idx(IMAGES[:2]), idx(LABELS), "has 2 images, .* has 3 labels"),
        (idx(IMAGES), idx(LABELS + 1), "label 2 has no name; the card's 'classes' lists 2"),
        (idx(IMAGES), None, "its labels, d/t-labels-idx1-ubyte.gz, are not among the members"),
    ],
)
def test_a_damaged_idx_pair_is_refused_by_name(images, labels, rule):
    members = {NAMES[0]: images} | ({} if labels is None else {NAMES[1]: labels})
    with pytest.raises(DataError, match=rule):
        list(read_idx(members, TOY))


def test_rounded_fractions_of_255_give_every_level_back():
    levels = np.arange(784) % 256
    data = [round(float(level) / 255, 3) for level in levels]
    (item,) = read_mnist_json({"x/1.json": json.dumps({"data": data}).encode()}, TOY)
    assert (item.label, item.values.shape, item.values.flatten().tolist()) == ("1", (28, 28), levels.tolist())


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x/1.json", b'{"data": [0.5', "it is not"),
        ("x/1.json", b'{"data": [0.5, 1]}', "it is not"),
        ("x/1.json", b'{"other": []}', "it is not"),
        ("x/7.json", json.dumps({"data": [0] * 784}).encode(), "'7' is not among the card's 'classes' \\(0, 1\\)"),
    ],
)
def test_json_of_another_form_is_refused_by_name(name, content, rule):
    with pytest.raises(DataError, match=f"{name}: {rule}"):
        list(read_mnist_json({name: content}, TOY))


def test_a_fraction_between_two_levels_reaches_the_gate_as_it_is():
    (item,) = read_mnist_json({"x/1.json": json.dumps({"data": [0.5 / 255] * 784}).encode()}, TOY)
    assert item.values[0, 0] == 0.5


def test_a_file_that_is_no_font_is_refused():
    with pytest.raises(DataError, match=r"a.ttf: it cannot be opened as a colour font"):
        list(read_emoji({"a.ttf": b"no font"}, TOY))


def touch(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_folder_is_read_by_name_and_hidden_folders_are_not(tmp_path):
    for name in ("b/2.png", "a/1.png", "a/deep/3.png", ".cache/x.png", "a/.ipynb_checkpoints/y.png"):
        touch(tmp_path / "root" / name)
    origin = open_files((str(tmp_path / "root"),))
    assert [(item.place, item.label) for item in origin.items] == [("a/1.png", "a"), ("a/deep/3.png", "a"), ("b/2.png", "b")]
    assert origin.classes == ("a", "b")


def test_files_of_one_name_are_ordered_by_content_and_not_by_folder(tmp_path):
    orders = []
    for first, second in (("p", "q"), ("q", "p")):
        root = tmp_path / first
        touch(root / first / "same.png", b"one")
        touch(root / second / "same.png", b"two")
        items = open_files((str(root / "*" / "same.png"),)).items
        orders.append([item.read() for item in items if isinstance(item, Encoded)])
    assert orders[0] == orders[1]


def test_a_pattern_that_names_nothing_and_a_file_that_is_too_large_are_refused(tmp_path):
    with pytest.raises(DataError, match="names no file here"):
        open_files((str(tmp_path / "*.png"),))
    touch(tmp_path / "huge.png")
    with open(tmp_path / "huge.png", "r+b") as file:
        file.truncate((1 << 28) + 1)
    (item,) = open_files((str(tmp_path),)).items
    assert isinstance(item, Encoded)
    with pytest.raises(DataError, match=r"huge.png' is larger than 268,435,456 bytes; leave it out"):
        item.read()


def test_numbers_stand_in_order_of_value_before_words():
    assert in_order(["10", "9", "dog", "cat", "9"]) == ("9", "10", "cat", "dog")


def test_the_first_source_that_can_be_had_is_read(tmp_path):
    missing = {"package": {"registry": "npm", "name": "toy", "version": "1", "sha256": "0" * 64, "member": "x"}}
    block = {"reader": "idx", "sources": [missing, {"hub": {"repo": "nobody/nothing"}}, *load_card("digits").use["sources"]]}
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="").parsed(ImageCard)
    context = make_context(tmp_path / "out", offline=True)
    origin = open_card(card, context)
    assert (origin.name, origin.levels) == ("scikit-learn digits", 17)
    with pytest.raises(
        CardError, match=r"none of the card's sources.*toy==1 is not in the cache.*hub:nobody/nothing: the network"
    ):
        open_card(card.model_copy(update={"sources": card.sources[:2]}), context)


def test_digits_that_are_not_those_of_the_card_are_refused(tmp_path):
    block = {"sources": [{"sklearn": {"dataset": "digits", "sha256": "0" * 64}}]}
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="").parsed(ImageCard)
    with pytest.raises(CardError, match=r"scikit-learn's digits have sha256 65e5b461\w+, the card pins 0000"):
        open_card(card, make_context(tmp_path / "out", offline=True))


def members_of(name: str) -> dict[str, bytes]:
    """Return the package of a card if it is installed or cached; no network is used."""
    package = load_card(name).parsed(ImageCard).sources[0].package
    assert package is not None
    try:
        return read_package(package, offline=True)
    except GroundupError:
        pytest.skip(f"{package.name} is neither installed nor in the cache")


@pytest.mark.slow
def test_mnist_is_as_its_card_says():
    items = list(read_mnist_json(members_of("mnist-10k"), load_card("mnist-10k").parsed(ImageCard)))
    assert len(items) == 10_000
    assert len({item.values.tobytes() for item in items}) == 10_000
    values = np.stack([item.values for item in items])
    assert (values == np.rint(values)).all()
    assert (values.min(), values.max()) == (0, 255)
    counts = [sum(item.label == str(digit) for item in items) for digit in range(10)]
    assert (min(counts), max(counts)) == (863, 1127)


@pytest.mark.slow
def test_fashion_mnist_has_seven_thousand_of_each_class_and_pools_to_16x16(tmp_path):
    card = load_card("fashion-mnist").parsed(ImageCard)
    items = list(read_idx(members_of("fashion-mnist"), card))
    assert [sum(item.label == name for item in items) for name in card.classes] == [7000] * 10
    artifact = run_stage("stages.image.dataset", tmp_path / "out", {"card": "fashion-mnist-16", "max_images": 700}, offline=True)
    assert load_grid(artifact).shape == (1, 16, 16)
    by_hand = set()
    for item in items:
        assert isinstance(item, Pixels)
        wide = np.pad(item.values.astype(int), 2)
        sums = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
        by_hand.add(((sums + 2) // 4).astype(np.uint8).tobytes())
    for name in SPLITS:
        assert all(image.numpy().tobytes() in by_hand for image in load_split(artifact, name).images)


@pytest.mark.slow
def test_emoji_are_drawn_in_colour_and_blanks_are_dropped(tmp_path):
    members_of("emoji")
    artifact = run_stage("stages.image.dataset", tmp_path / "out", {"card": "emoji"}, offline=True)
    grid = load_grid(artifact)
    assert (grid.shape, sum(grid.sizes.values()), grid.license) == ((3, 32, 32), 1446, "ofl-1.1")
    images = load_split(artifact, "train").images
    assert (images[:, 0] != images[:, 2]).any(dim=(1, 2)).float().mean() > 0.9
    assert (images[:, :, 0, 0] == 255).all(dim=1).float().mean() > 0.8  # drawn in the middle, over white


@pytest.mark.slow
def test_a_dataset_in_hub_form_is_streamed_from_a_local_folder_with_its_faults_named(tmp_path):
    """Slow, as opening any dataset imports most of the library."""
    root = tmp_path / "data" / "train"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(30):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(root / name / f"{number}.png")
    (root / "cat" / "broken.png").write_bytes(b"nonsense")
    block = {"sources": [{"hub": {"repo": str(tmp_path / "data")}}], "on": {"corrupt": "drop"}}
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="").parsed(ImageCard)
    origin = open_card(card, make_context(tmp_path / "out", offline=True))
    items = list(origin.items)
    assert (origin.classes, len(items)) == (("cat", "dog"), 61)
    assert sorted({item.label for item in items}) == ["cat", "dog"]
    contents = [item.read() for item in items if isinstance(item, Encoded)]
    assert sum(content == b"nonsense" for content in contents) == 1
    assert sum(content.startswith(b"\x89PNG") for content in contents) == 60
    with pytest.raises(CardError, match="no column 'picture'; it has image, label"):
        open_hub(Hub(repo=str(tmp_path / "data"), image_column="picture"), offline=True)


@pytest.mark.slow
def test_rows_of_a_hub_table_carry_bytes_labels_and_hidden_labels(tmp_path):
    import datasets

    images = [Image.fromarray(np.full((2, 2, 3), number, np.uint8)) for number in range(3)]
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"img": images, "kind": [1, 0, -1]}, features=features)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "data" / f"{split}-0.parquet")
    hub = Hub(repo=str(tmp_path / "data"), split="train+test", image_column="img", label_column="kind")
    origin = open_hub(hub, offline=True)
    items = list(origin.items)
    assert [item.label for item in items] == ["b", "a", None] * 2
    assert origin.classes == ("a", "b")
    without = open_hub(hub.model_copy(update={"label_column": None}), offline=True)
    assert ({item.label for item in without.items}, without.classes) == ({None}, ())
