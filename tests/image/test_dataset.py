"""The dataset stage end to end: a folder of images or a card in, one grid with three disjoint splits out."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError, RecipeError
from pipeline.fingerprint import identity_of
from pipeline.graph import Node
from pipeline.hashes import HashCache
from pipeline.launch import Launch
from stages.common.images.grid import SPLITS, load_grid, load_split
from stages.image.dataset.config import Config
from tests.harness import run_stage

STAGE = "stages.image.dataset"
SMALL = {"min_split_images": 2, "validation_fraction": 0.2, "test_fraction": 0.2}


def write_folder(root: Path, *, classes: tuple[str, ...] = ("cats", "dogs"), each: int = 20, seed: int = 0) -> Path:
    """Write `each` random grey 4x4 PNG files into a sub-folder for each class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def labelled(artifact) -> dict[bytes, int]:
    """Return pixels -> label over all splits."""
    splits = [load_split(artifact, name) for name in SPLITS]
    return {i.numpy().tobytes(): int(k) for split in splits for i, k in zip(split.images, split.labels, strict=True)}


def test_a_folder_of_images_becomes_a_grid_with_its_sub_folders_as_labels(tmp_path):
    root = write_folder(tmp_path / "photos")
    artifact = run_stage(STAGE, tmp_path / "out", {"files": str(root), "license": "cc0-1.0", **SMALL})
    grid = load_grid(artifact)
    assert (grid.shape, grid.levels, grid.classes, grid.license) == ((1, 4, 4), 256, ("cats", "dogs"), "cc0-1.0")
    assert sum(grid.sizes.values()) == 40
    assert min(grid.sizes.values()) >= 2
    found = labelled(artifact)
    for label, name in enumerate(grid.classes):
        for path in (root / name).iterdir():
            with Image.open(path) as image:
                assert found[np.asarray(image).tobytes()] == label
    assert artifact.metric("images", "train") == grid.sizes["train"]
    assert "cc0-1.0" in (artifact / "card.md").read_text()
    section = json.loads((artifact / "section.json").read_text())
    figures = [block["path"] for block in section["blocks"] if block["kind"] == "figure"]
    assert figures == ["figures/images.png", "figures/levels.svg"]
    assert all((artifact / path).stat().st_size > 500 for path in figures)


def test_the_same_images_give_the_same_bytes_wherever_they_lie(tmp_path):
    first = write_folder(tmp_path / "a")
    shutil.copytree(first, tmp_path / "elsewhere" / "b")
    made = [
        run_stage(STAGE, tmp_path / f"out {number}", {"files": str(root), **SMALL})
        for number, root in enumerate((first, tmp_path / "elsewhere" / "b"))
    ]
    files = ("grid.json", "images.safetensors", "statistics.json", "figures/images.png", "figures/levels.svg", "card.md")
    for name in (*files, "metrics.json", "section.json"):
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes(), name
    assert str(tmp_path) not in (made[0] / "statistics.json").read_text()


def sources_of(config: Config, tmp_path: Path) -> object:
    node = Node("images", STAGE, config, {}, Launch())
    identity = identity_of(node, {}, HashCache(tmp_path / "hashes.json"), offline=True)
    return identity["sources"], identity["config"]


def test_a_renamed_label_folder_makes_the_images_stale_and_a_moved_root_does_not(tmp_path):
    root = write_folder(tmp_path / "photos", each=1)
    before = sources_of(Config(files=str(root)), tmp_path)
    moved = root.rename(tmp_path / "moved")
    assert sources_of(Config(files=str(moved)), tmp_path) == before
    (moved / "dogs").rename(moved / "wolves")
    assert sources_of(Config(files=str(moved)), tmp_path) != before


def test_swapped_labels_make_the_images_stale(tmp_path):
    root = write_folder(tmp_path / "photos", each=1)
    before = sources_of(Config(files=str(root)), tmp_path)
    for old, new in (("cats", "x"), ("dogs", "cats"), ("x", "dogs")):
        (root / old).rename(root / new)
    assert sources_of(Config(files=str(root)), tmp_path) != before


def test_files_and_patterns_give_images_without_labels(tmp_path):
    root = write_folder(tmp_path / "photos")
    artifact = run_stage(STAGE, tmp_path / "out", {"files": str(root / "*" / "*.png"), **SMALL})
    assert load_grid(artifact).classes == ()
    assert set(labelled(artifact).values()) == {-1}


def test_the_digits_come_out_as_scikit_learn_has_them_each_in_one_split(tmp_path):
    from sklearn.datasets import load_digits

    artifact = run_stage(STAGE, tmp_path / "out", {"card": "digits"}, offline=True)
    grid, digits = load_grid(artifact), load_digits()
    assert (grid.shape, grid.levels, grid.name, grid.license) == ((1, 8, 8), 17, "digits", "bsd-3-clause")
    assert sum(grid.sizes.values()) == 1797
    assert 400 < grid.sizes["test"] < 500
    expected = {i.astype(np.uint8).tobytes(): int(k) for i, k in zip(digits.images, digits.target, strict=True)}
    assert labelled(artifact) == expected


def test_a_corrupt_file_is_refused_by_name_or_dropped_and_counted(tmp_path):
    root = write_folder(tmp_path / "photos")
    whole = (root / "cats" / "0.png").read_bytes()
    (root / "cats" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "dogs" / "notes.txt").write_text("not an image")
    with pytest.raises(
        DataError, match=r"2 x files that are no image, or damaged \(instead of refusing: on_corrupt=drop\)"
    ) as caught:
        run_stage(STAGE, tmp_path / "refused", {"files": str(root), **SMALL})
    assert "cats/cut.png: damaged or cut off" in str(caught.value)
    assert "dogs/notes.txt: no image of a known format" in str(caught.value)
    artifact = run_stage(STAGE, tmp_path / "out", {"files": str(root), "on_corrupt": "drop", **SMALL})
    assert len(labelled(artifact)) == 40
    assert artifact.metric("dropped") == 2
    assert "damaged: 2 (drop)" in (artifact / "card.md").read_text()


def test_photos_of_all_kinds_are_brought_onto_one_grid_when_told(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        image = Image.fromarray(rng.integers(0, 256, (9 + number % 3, 12, 3), dtype=np.uint8))
        image = image.convert(("RGB", "L", "P", "RGBA", "CMYK")[number % 5])
        image.save(root / f"{number}.{'tif' if image.mode == 'CMYK' else 'png'}")
    values = {"files": str(root), "size": 8, "channels": 3, "levels": 32, "on_wrong_size": "resize", "on_wrong_mode": "convert"}
    artifact = run_stage(STAGE, tmp_path / "out", {**values, **SMALL})
    assert (load_grid(artifact).shape, load_grid(artifact).levels) == ((3, 8, 8), 32)
    assert max(int(load_split(artifact, name).images.max()) for name in SPLITS) < 32
    found = json.loads((artifact / "statistics.json").read_text())["findings"]
    assert {(row["kind"], row["action"], row["count"]) for row in found} == {
        ("wrong_size", "resize", 30),
        ("wrong_mode", "convert", 24),
    }


def test_more_levels_than_the_source_has_are_refused(tmp_path):
    with pytest.raises(DataError, match="levels is 32, but the images of scikit-learn digits have 17"):
        run_stage(STAGE, tmp_path / "out", {"card": "digits", "levels": 32}, offline=True)
    with pytest.raises(RecipeError, match="key 'levels' is 1: .*greater than or equal to 2"):
        run_stage(STAGE, tmp_path / "out", {"card": "digits", "levels": 1}, offline=True)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({}, "nothing to read: give 'card'"),
        ({"card": "digits", "test_fraction": 0.0}, "key 'test_fraction' is 0.0"),
        ({"card": "digits", "on_corrupt": "ignore"}, "key 'on_corrupt'"),
        ({"card": "digits", "channel": 3}, "unknown key 'channel' (did you mean 'channels'"),
    ],
)
def test_a_wrong_setting_is_refused_by_key_and_rule(tmp_path, values, rule):
    with pytest.raises(RecipeError) as caught:
        run_stage(STAGE, tmp_path / "out", values)
    assert rule in str(caught.value)


def test_too_few_images_are_refused_with_a_number_that_would_work(tmp_path):
    root = write_folder(tmp_path / "few", classes=tuple("abcdefgh"), each=1)
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(root / "a" / "0.png")
    for name in "bcd":
        shutil.copy(root / "a" / "0.png", root / name / "0.png")
    values = {"files": str(root), "on_conflicting_label": "drop", **SMALL}
    with pytest.raises(
        DataError, match=r"4 images for 8 classes \(left out before: 3 copies, 1 dropped\): give about \d+ images"
    ) as caught:
        run_stage(STAGE, tmp_path / "out", values)
    enough = int(str(caught.value).split("give about ")[1].split(" ")[0])
    more = write_folder(tmp_path / "more", classes=tuple("abcdefgh"), each=-(-enough // 8))
    run_stage(STAGE, tmp_path / "out", {**values, "files": str(more)})


@pytest.mark.parametrize("fault", ["on_constant", "on_corrupt", "on_conflicting_label"])
def test_where_every_image_is_dropped_the_rest_of_none_is_refused_in_words(fault, tmp_path):
    root = write_folder(tmp_path / "photos", classes=("a", "b"), each=2)
    for place, path in enumerate(sorted(root.rglob("*.png"))):
        if fault == "on_corrupt":
            path.write_bytes(path.read_bytes()[:40])
        else:
            level = place if fault == "on_constant" else place % 2
            pixels = np.full((4, 4), level, dtype=np.uint8)
            pixels[0, 0] += fault == "on_conflicting_label"
            Image.fromarray(pixels).save(path)
    with pytest.raises(DataError, match=r"there is no image \(left out before: "):
        run_stage(STAGE, tmp_path / "out", {"files": str(root), fault: "drop", **SMALL})


def test_names_from_outside_cannot_break_out_of_the_card(tmp_path):
    name = "x\n---\n# <script>alert(1)</script>"
    root = write_folder(tmp_path / "photos", classes=("cats", name.replace("/", "_")))
    artifact = run_stage(STAGE, tmp_path / "out", {"files": str(root), **SMALL})
    assert "alert" not in (artifact / "card.md").read_text()
    assert name.replace("/", "_") in load_grid(artifact).classes


def test_images_from_a_png_written_by_hand_keep_their_levels(tmp_path):
    """One image is followed by hand: 16 bits, padded onto the grid of 4 levels."""
    root = write_folder(tmp_path / "photos", classes=("a",))
    values = np.array([[0, 16384, 32768, 65535]] * 4, dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    (root / "a" / "deep.png").write_bytes(buffer.getvalue())
    artifact = run_stage(STAGE, tmp_path / "out", {"files": str(root), "levels": 4, "on_wrong_mode": "convert", **SMALL})
    assert bytes([0, 1, 2, 3] * 4) in labelled(artifact)
