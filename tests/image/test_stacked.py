"""Stacked images: what a stack is made of, modes that are equally likely and counted, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import chisquare

from pipeline.errors import DataError
from stages.common.images.grid import SPLITS, Split, load_grid, load_split, save_images
from stages.common.images.stacks import CLASSES, Stacked, load_stacked
from stages.image.compare.modes import load_judge
from tests.harness import commit, make_context, run_stage
from tests.image.comparisons import make_extractors, model_artifact
from tests.image.digits import ImagesConfig, toy_artifact

STAGE = "stages.image.stacked"
SIZES = {"num_train": 400, "num_validation": 50, "num_test": 120}
NUM_SAMPLES = 64


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Rows and columns, which the classifier tells apart."""
    return toy_artifact(tmp_path_factory.mktemp("bars"), num=256)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory, bars):
    return run_stage(STAGE, tmp_path_factory.mktemp("stacks"), SIZES, {"images": bars})


@pytest.fixture(scope="module")
def judge(tmp_path_factory, bars):
    values = {"num_steps": 60, "batch_size": 64, "num_features": 6, "first_width": 8, "learning_rate": 1e-2, "num_parts": 2}
    return run_stage("stages.image.classifier", tmp_path_factory.mktemp("judge"), values, {"images": bars})


def test_each_channel_is_an_image_of_the_class_that_is_noted_and_of_the_same_split(bars, stacks):
    classes = load_file(stacks / CLASSES)
    for name in SPLITS:
        source, made = load_split(bars, name), load_split(stacks, name)
        assert made.images.shape == (SIZES[f"num_{name}"], 3, 4, 4)
        assert (made.labels == -1).all()
        known = {(image.numpy().tobytes(), int(label)) for image, label in zip(source.images, source.labels, strict=True)}
        for stack, triple in zip(made.images, classes[name].tolist(), strict=True):
            assert {(channel.numpy().tobytes(), label) for channel, label in zip(stack, triple, strict=True)} <= known


def test_all_modes_are_equally_likely_whatever_the_shares_of_the_classes(tmp_path, bars):
    splits = {}
    for name in SPLITS:  # one column in twenty images
        split = load_split(bars, name)
        rows = torch.cat([(split.labels == 0).nonzero().flatten(), (split.labels == 1).nonzero().flatten()[:3]])
        splits[name] = Split(split.images[rows], split.labels[rows])
    context = make_context(tmp_path / "uneven")
    save_images(context.directory, load_grid(bars), splits)
    uneven = commit("stages.image.dataset", ImagesConfig(name="uneven", num_train=len(splits["train"])), context)
    stacks = run_stage(STAGE, tmp_path / "stacks", SIZES | {"num_train": 4000}, {"images": uneven})
    about = load_stacked(stacks)
    counts = np.bincount(about.modes(load_file(stacks / CLASSES)["train"]), minlength=8)
    assert chisquare(counts).pvalue > 0.001


def test_the_same_seed_makes_the_same_stacks_and_another_makes_others(tmp_path, bars, stacks):
    again = run_stage(STAGE, tmp_path / "again", SIZES, {"images": bars})
    other = run_stage(STAGE, tmp_path / "other", SIZES | {"seed": 2}, {"images": bars})
    assert load_grid(again).sha256 == load_grid(stacks).sha256
    assert not set(load_grid(other).sha256.values()) & set(load_grid(stacks).sha256.values())


def test_a_mode_is_its_triple_read_as_a_number():
    about = Stacked(name="digits", classes=tuple("0123456789"), levels=17, sha256={})
    assert about.num_modes == 1000
    assert about.modes(torch.tensor([[0, 0, 7], [9, 4, 0], [9, 9, 9]])).tolist() == [7, 940, 999]


def test_stacks_cannot_be_stacked(tmp_path, stacks):
    with pytest.raises(DataError, match=r"'bars, stacked'\) has 3 channel\(s\) and 0 classes; grey images of two classes"):
        run_stage(STAGE, tmp_path / "run", SIZES, {"images": stacks})


def test_a_class_without_an_image_in_a_split_is_named(tmp_path, bars):
    splits = {name: load_split(bars, name) for name in SPLITS}
    test = splits["test"]
    splits["test"] = Split(test.images[test.labels == 0], test.labels[test.labels == 0])
    context = make_context(tmp_path / "rows")
    save_images(context.directory, load_grid(bars), splits)
    rows = commit("stages.image.dataset", ImagesConfig(name="rows", num_train=256), context)
    with pytest.raises(DataError, match="class 'column' of 'bars' has no test image, so not every stack can be made"):
        run_stage(STAGE, tmp_path / "run", SIZES, {"images": rows})


def test_the_judge_reads_each_channel_of_real_stacks(judge, stacks):
    found = load_judge(stacks, [judge])
    truth = found.stacked.modes(load_file(stacks / CLASSES)["test"]).numpy()
    assert (found.modes(load_split(stacks, "test").images) == truth).mean() > 0.9


def test_a_judge_of_other_images_and_a_judge_without_stacks_are_refused(tmp_path, bars, judge, stacks):
    assert load_judge(stacks, []) is None
    with pytest.raises(DataError, match=r"needs.images has no stacked.json; stack grey images by stages.image.stacked"):
        load_judge(bars, [judge])
    other = toy_artifact(tmp_path / "other", num=64)
    with pytest.raises(DataError, match=r"was made from 'bars', which are not the images that were stacked \('bars'\)"):
        load_judge(stacks, [make_extractors(tmp_path / "judge", other)])


@pytest.fixture(scope="module")
def compared(tmp_path_factory, stacks, judge):
    """A VAE that draws real stacks, and a GAN all of whose red images are rows, two seeds each."""
    root = tmp_path_factory.mktemp("modes")
    train, classes = load_split(stacks, "train").images, load_file(stacks / CLASSES)["train"]
    rows = train[classes[:, 0] == 0]
    models = []
    for seed in (1, 2):
        first = (seed - 1) * NUM_SAMPLES
        models += [
            model_artifact(root / f"v{seed}", stacks, {"1": train[first:][:NUM_SAMPLES]}, family="vae", seed=seed),
            model_artifact(root / f"g{seed}", stacks, {"1": rows[first:][:NUM_SAMPLES]}, family="gan", seed=seed, bits=None),
        ]
    extractors = make_extractors(root / "extractors", stacks, ("rotation", "random"))
    inputs = {"images": stacks, "extractors": extractors, "models": models, "judge": judge}
    values = {"num_parts": 4, "num_resamples": 100, "page_images": 4, "columns": 6}
    return run_stage("stages.image.compare", root / "run", values, inputs)


def test_what_a_model_never_draws_is_counted_beside_what_real_stacks_have(compared):
    found = json.loads((compared.path / "comparison.json").read_text())
    assert found["modes"]["num_modes"] == 8
    assert found["modes"]["real_modes"] == 8
    assert found["modes"]["accuracy"] > 0.9
    assert found["numbers"]["vae"]["modes"]["mean"] == 8
    assert found["numbers"]["gan"]["modes"]["mean"] <= 6  # four, and what the judge misreads
    assert found["numbers"]["gan"]["mode_divergence"]["mean"] > found["numbers"]["vae"]["mode_divergence"]["mean"] + 0.3
    (pair,) = [pair for pair in found["pairs"] if pair["column"] == "mode_divergence"]
    assert (pair["first"], pair["outcome"]) == ("vae", "better")
    (claim,) = [claim for claim in found["claims"] if claim["sentence"] == "A GAN drops modes"]
    assert "modes reached, gan minus vae" in claim["evidence"]


def test_modes_are_shown_with_their_anchor_and_recorded_with_their_judge(compared):
    blocks = json.loads((compared.path / "section.json").read_text())["blocks"]
    (table,) = [block for block in blocks if block.get("title") == "How many of 8 modes"]
    assert [row[0] for row in table["rows"]] == ["vae", "gan", "real train stacks"]
    assert table["rows"][-1][1] == "8"
    assert "perfect samples would reach 8 modes" in table["caption"]
    assert (compared.path / "figures" / "modes.png").stat().st_size > 200
    rows = [row for row in compared.record.metrics if row["name"] == "modes"]
    assert {row["num_modes"] for row in rows} == {8}
    assert all(len(row["judge_sha256"]) == 64 for row in rows)
