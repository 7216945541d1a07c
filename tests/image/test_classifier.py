"""The classifier stage: what it writes, what it refuses, and that a stop loses nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError, GroundupError, Interrupted, StageError
from stages.common.images.calibration import expected_calibration_error, reliability, wilson_interval
from stages.common.images.features import load_extractors
from stages.common.images.grid import SPLITS, Split, load_grid, load_split, save_images
from stages.common.images.turns import all_turns, turns_of
from stages.image.classifier.config import Config
from stages.image.classifier.metrics import Accuracy, is_above_guessing
from stages.image.classifier.run import run
from stages.image.classifier.training import Trainer
from tests.harness import commit, make_context, run_stage
from tests.image.digits import ImagesConfig, digits_artifact, toy_artifact

ROOT = Path(__file__).resolve().parents[2]
STAGE = "stages.image.classifier"
QUICK = {"num_steps": 25, "batch_size": 64, "num_features": 16, "first_width": 8, "learning_rate": 6e-3, "num_parts": 2}
TINY = {"num_steps": 40, "batch_size": 32, "num_features": 6, "first_width": 8, "learning_rate": 1e-2, "num_parts": 2}
NAMES = ["supervised-0", "supervised-1", "rotation", "random"]


def changed(root, images, change, **grid):
    """Return a copy of an artifact whose splits went through `change`."""
    splits = {name: change(load_split(images, name)) for name in SPLITS}
    context = make_context(root)
    save_images(root, replace(load_grid(images), **grid), splits)
    return commit("stages.image.dataset", ImagesConfig(name="changed", num_train=len(splits["train"])), context)


def files(artifact):
    return {name: entry.sha256 for name, entry in artifact.record.files.items() if name not in ("events.jsonl", "resolved.json")}


def section_of(artifact):
    return json.loads((artifact / "section.json").read_text())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return digits_artifact(tmp_path_factory.mktemp("digits"), num_train=300)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    return run_stage(STAGE, tmp_path_factory.mktemp("classifier") / "out", QUICK, {"images": digits})


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("toy"), num=120)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    return run_stage(STAGE, tmp_path_factory.mktemp("whole") / "out", TINY, {"images": toy})


def test_the_artifact_holds_four_extractors_in_order_each_with_its_hash(made, digits):
    entries = json.loads((made / "extractors.json").read_text())
    assert [entry["name"] for entry in entries] == NAMES
    assert [entry["seed"] for entry in entries] == [1337, 1338, 1339, 1340]
    assert len({entry["sha256"] for entry in entries}) == 4
    assert [entry["num_outputs"] for entry in entries] == [10, 10, 4, 0]
    assert entries[3]["test_accuracy"] is None
    assert (made / "grid.json").read_bytes() == (digits / "grid.json").read_bytes()
    loaded = load_extractors(made)
    assert [extractor.kind for extractor in loaded] == ["supervised", "supervised", "rotation", "random"]
    assert loaded[0].features(load_split(digits, "test").images).shape == (500, 16)
    assert not [name for name in files(made) if name.endswith((".bin", ".pt", ".pkl", ".npy"))]


def test_the_accuracy_in_the_metrics_is_that_of_the_saved_network(made, digits):
    test = load_split(digits, "test")
    answers = load_extractors(made)[0].probabilities(test.images).argmax(axis=1)
    right = int((answers == test.labels.numpy()).sum())
    assert made.metric("supervised_0_accuracy", "test") == right / 500
    (row,) = [row for row in made.record.metrics if row["name"] == "supervised_0_accuracy" and row["split"] == "test"]
    assert row["interval"] == list(wilson_interval(right, 500))
    assert row["headline"]
    assert row["n"] == 500
    assert right / 500 > 0.7
    assert made.metric("rotation_accuracy", "test") > 0.4


def test_the_report_shows_the_panel_of_faults_with_n_and_intervals(made):
    section = section_of(made)
    tables = {block["title"]: block for block in section["blocks"] if block["kind"] == "table"}
    (panel,) = [table for title, table in tables.items() if title.startswith("What the metrics make of each fault")]
    assert [row[0] for row in panel["rows"]][:2] == ["copy of train", "blurred"]
    assert "[" in panel["rows"][0][1]
    for title, shares in (("What the metrics make", ("precision", "recall", "coverage")), ("Sharpness", ("near copies",))):
        (table,) = [table for name, table in tables.items() if name.startswith(title)]
        cells = [row[table["columns"].index(share)] for row in table["rows"] for share in shares]
        ends = [end for cell in cells for end in re.findall(r"[−\d.]+", cell.partition("[")[2])]
        assert ends
        assert all(0 <= float(end) <= 1 for end in ends), cells
    assert "held against 500 test images" in panel["caption"]
    (spaces,) = [table for title, table in tables.items() if title.startswith("Frechet ratio")]
    assert spaces["columns"] == ["images", *NAMES, "pixels-pca"]
    (agreement,) = [table for title, table in tables.items() if title.startswith("Do the spaces agree")]
    assert all(row[index + 1] == 1 for index, row in enumerate(agreement["rows"]))
    pictures = [block["path"] for block in section["blocks"] if block["kind"] == "figure"]
    assert pictures == ["figures/loss.svg", "figures/confusion.svg", "figures/faults.png"]
    assert all((made / path).stat().st_size for path in pictures)
    assert "license: cc-by-4.0" in (made / "card.md").read_text()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(toy, whole, tmp_path):
    again, other = (
        run_stage(STAGE, tmp_path / name, TINY | seed, {"images": toy}) for name, seed in (("again", {}), ("other", {"seed": 9}))
    )
    assert files(whole) == files(again)
    for name in NAMES:
        weights = f"{name}/diffusion_pytorch_model.safetensors"
        assert files(whole)[weights] != files(other)[weights]


@pytest.mark.slow
def test_a_stopped_stage_keeps_the_finished_extractors_and_ends_as_if_never_stopped(toy, whole, tmp_path):
    config = Config.parse(TINY, where=STAGE)

    class Stopping(Context):
        def progress(self, step, total, **values):
            if step == 50:
                self._stop_signal = signal.SIGTERM

    with pytest.raises(Interrupted):
        run(config, Stopping(make_context(tmp_path / "stopped").directory, {"images": [toy]}))
    folder = tmp_path / "stopped" / "checkpoints" / "extractors"
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == ["supervised-0"]
    before = (folder / "supervised-0" / "statistics.safetensors").stat().st_mtime_ns
    context = make_context(tmp_path / "stopped", {"images": toy})
    run(config, context)
    assert (folder / "supervised-0" / "statistics.safetensors").stat().st_mtime_ns == before
    assert files(commit(STAGE, config, context)) == files(whole)


@pytest.mark.slow
def test_a_half_written_extractor_is_not_taken_for_a_finished_one(toy, whole, tmp_path):
    leftover = tmp_path / "killed" / "checkpoints" / "extractors" / ".partial" / "supervised-0"
    leftover.mkdir(parents=True)
    (leftover / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    assert files(run_stage(STAGE, tmp_path / "killed", TINY, {"images": toy})) == files(whole)


def test_an_extractor_that_is_not_above_chance_is_refused(toy, tmp_path):
    generator = torch.Generator().manual_seed(0)

    def shuffle(split):
        return Split(split.images, split.labels[torch.randperm(len(split), generator=generator)])

    images = changed(tmp_path / "images", toy, shuffle)
    with pytest.raises(StageError, match=r"supervised-0 names .* of 60 test images right .* not above chance"):
        run_stage(STAGE, tmp_path / "out", TINY, {"images": images})


@pytest.mark.slow
@pytest.mark.parametrize("with_classes", [False, True])
def test_turns_that_cannot_be_told_are_refused_where_they_would_judge_and_said_where_they_do_not(with_classes, toy, tmp_path):
    def same_turned(split):
        images = sum(torch.rot90(split.images.int(), turn, (2, 3)) for turn in range(4)) // 8  # 0 or 1 of the 4 levels
        images += 2 * split.labels[:, None, None, None]
        return Split(images.to(torch.uint8), split.labels if with_classes else torch.full_like(split.labels, -1))

    images = changed(tmp_path / "images", toy, same_turned, **({} if with_classes else {"classes": ()}))
    if with_classes:
        made = run_stage(STAGE, tmp_path / "out", TINY, {"images": images})
        assert any(
            "rotation does no better than guessing (25.0%)" in block.get("text", "") for block in section_of(made)["blocks"]
        )
    else:
        with pytest.raises(StageError, match=r"rotation tells .* of 60 test images, .* guessing \(25.0%\), and would judge all"):
            run_stage(STAGE, tmp_path / "out", TINY, {"images": images})


@pytest.mark.parametrize(("low", "above"), [(0.24, False), (0.25, False), (0.26, True)])
def test_turns_are_told_where_the_whole_interval_lies_above_guessing(low, above):
    assert is_above_guessing(Accuracy(value=0.3, interval=(low, 0.37), num_images=60), 4) == above


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["none", "one class"])
def test_images_without_two_classes_get_the_extractors_that_need_no_labels(toy, tmp_path, labels):
    def strip(split):
        images = split.images.clone()
        images[..., 0, 0], images[..., -1, -1] = 3, 0  # so that turns can be told
        return Split(images, torch.full_like(split.labels, -1 if labels == "none" else 0))

    classes = () if labels == "none" else ("thing",)
    images = changed(tmp_path / "images", toy, strip, classes=classes)
    made = run_stage(STAGE, tmp_path / "out", TINY, {"images": images})
    assert [extractor.name for extractor in load_extractors(made)] == ["rotation", "random"]
    assert any("have no labels" in block.get("text", "") for block in section_of(made)["blocks"])


@pytest.mark.slow
def test_images_without_a_label_are_left_out_of_what_needs_labels(toy, tmp_path):
    def some(split):
        labels = split.labels.clone()
        labels[::4] = -1
        return Split(split.images, labels)

    images = changed(tmp_path / "images", toy, some)
    made = run_stage(STAGE, tmp_path / "out", TINY, {"images": images})
    rows = {(row["name"], row["split"]): row["n"] for row in made.record.metrics}
    assert rows["supervised_0_accuracy", "test"] == 45
    assert rows["rotation_accuracy", "test"] == 60


@pytest.mark.slow
def test_images_that_are_not_square_are_turned_by_half_a_circle_only(tmp_path):
    made = run_stage(STAGE, tmp_path / "out", TINY, {"images": toy_artifact(tmp_path / "images", height=3, width=5, num=120)})
    assert [entry["num_outputs"] for entry in json.loads((made / "extractors.json").read_text())] == [2, 2, 2, 0]


def test_turns_are_quarter_turns_and_keep_the_shape():
    images = torch.arange(2 * 1 * 2 * 2).reshape(2, 1, 2, 2)
    turned = all_turns(images, turns_of(2, 2))
    assert turned.shape == (4, 2, 1, 2, 2)
    assert turned[:, 0, 0].tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]
    assert all_turns(torch.zeros(1, 1, 2, 3), turns_of(2, 3)).shape == (2, 1, 1, 2, 3)


@pytest.mark.slow
def test_where_there_are_too_few_images_the_section_says_that_the_panel_is_missing(tmp_path):
    images = toy_artifact(tmp_path / "images", num=60)
    made = run_stage(STAGE, tmp_path / "out", TINY | {"num_steps": 60, "batch_size": 24, "num_features": 28}, {"images": images})
    assert any("The faults are not measured here: " in block.get("text", "") for block in section_of(made)["blocks"])


@pytest.mark.slow
def test_out_of_memory_names_a_batch_that_was_tried_and_fits(toy, tmp_path, monkeypatch):
    look = Trainer._loss

    def hungry(self, module, split, rows, places):
        if len(rows) > 8:
            raise torch.OutOfMemoryError("no room")
        return look(self, module, split, rows, places)

    monkeypatch.setattr(Trainer, "_loss", hungry)
    with pytest.raises(StageError, match=r"out of memory with batch_size 32 \(no room\); 8 was tried and fits"):
        run_stage(STAGE, tmp_path / "out", TINY, {"images": toy})


@pytest.mark.parametrize(("num_features", "largest"), [(60, 60), (6, 16)])
def test_too_few_test_images_for_distances_are_refused_before_anything_is_trained(num_features, largest, tmp_path):
    images = toy_artifact(tmp_path / "images", num=120 if largest == 60 else 32)
    with pytest.raises(DataError, match=f"measured in up to {largest} features .* raise its test_fraction"):
        run_stage(STAGE, tmp_path / "out", TINY | {"num_features": num_features}, {"images": images})


def test_images_that_nothing_can_be_learnt_from_are_refused_by_name(toy, tmp_path):
    grey = changed(tmp_path / "grey", toy, lambda split: Split(torch.ones_like(split.images), split.labels))
    with pytest.raises(StageError, match="features .* have no variance over the 120 train images"):
        run_stage(STAGE, tmp_path / "1", TINY, {"images": grey})
    with pytest.raises(DataError, match="1 level"):
        run_stage(STAGE, tmp_path / "2", TINY, {"images": changed(tmp_path / "one", toy, lambda split: split, levels=1)})
    lone = changed(tmp_path / "lone", toy, lambda split: Split(split.images[:1], split.labels[:1]))
    with pytest.raises(DataError, match="train split has 1 images"):
        run_stage(STAGE, tmp_path / "3", TINY, {"images": lone})
    with pytest.raises(StageError, match="batch_size is 121, but supervised-0 has 120 train images"):
        run_stage(STAGE, tmp_path / "4", TINY | {"batch_size": 121}, {"images": toy})


def test_wilson_interval_holds_the_true_share_in_about_95_of_100_draws():
    for share, num in ((0.98, 100), (0.5, 20), (0.03, 60)):
        draws = np.random.default_rng(0).binomial(num, share, size=2000)
        held = [low <= share <= high for low, high in map(wilson_interval, draws.tolist(), itertools.repeat(num))]
        assert 0.91 < np.mean(held) < 0.99
    assert wilson_interval(0, 9)[0] == 0
    assert wilson_interval(9, 9)[1] == 1
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(1, 0)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_weighted_by_images():
    probabilities = np.array([[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 10)
    labels = np.array([0] * 9 + [1] + [1] * 4 + [0] * 6)
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.05 * 10 + 0.25 * 10) / 20)
    bins = reliability(probabilities, labels)
    assert bins[9].tolist() == pytest.approx([10, 0.95, 0.9])
    assert bins[6].tolist() == pytest.approx([10, 0.65, 0.4])
    assert np.isnan(bins[0, 1:]).all()
    assert reliability(np.array([[1.0, 0.0]]), np.array([0]))[9, 0] == 1


@pytest.mark.slow
def test_at_its_defaults_the_classifier_reads_97_of_100_digits(tmp_path):
    made = run_stage(STAGE, tmp_path / "out", {}, {"images": digits_artifact(tmp_path / "images")})
    for name in ("supervised_0", "supervised_1"):
        assert made.metric(f"{name}_accuracy", "test") > 0.97
    assert made.metric("rotation_accuracy", "test") > 0.9


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    images = toy_artifact(tmp_path / "images", num=120).path
    for name, num_processes in (("one", 1), ("two", 2)):
        command = [sys.executable, "-m"]
        if num_processes > 1:
            command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
            command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
        command += ["tests.image.test_classifier", str(tmp_path / name), str(images)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "RANK", "WORLD"))}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "two" / "processes").read_text() == "2"
    for name in NAMES:
        one, two = (load_file(tmp_path / run / name / "diffusion_pytorch_model.safetensors") for run in ("one", "two"))
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def _as_one_rank(directory: Path, images: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    context = Context(directory, {"images": [Artifact.open(images)]}, process_index=rank, num_processes=world_size)
    run(Config.parse(TINY, where=STAGE), context)
    context.finish()
    if context.is_main:
        (directory / "processes").write_text(str(world_size))


if __name__ == "__main__":
    try:
        _as_one_rank(Path(sys.argv[1]), Path(sys.argv[2]))
    except GroundupError as error:
        sys.exit(str(error))
