"""Faults that no library tells of: the grid's ends, noise shared by processes, what an artifact's numbers were taken from."""

from __future__ import annotations

import json
import math

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pipeline.errors import DataError, StageError
from stages.common.images.config import ImageModelConfig
from stages.common.images.grid import SPLITS, Split, dequantise, load_grid, load_split, quantise, save_images
from stages.common.images.noise import BatchNoise, seeded_generator
from stages.common.images.stage import _SAMPLES, run_family
from stages.common.images.training import ImageTraining
from tests.harness import make_context
from tests.image.digits import toy_artifact
from tests.image.toy_family import ToyFamily

FLOPS_PER_STEP = 2 * 2 * 8 * 16 * 4
CONFIG = ImageModelConfig(budget_tflop=24.5 * FLOPS_PER_STEP / 1e12, batch_size=8, num_samples=20, num_likelihood_images=10)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    """A toy trained by the shared driver: its directory, and the family with the weights after the last step."""
    made = []

    def make(grid):
        made.append(ToyFamily(grid))
        return made[-1]

    context = make_context(tmp_path_factory.mktemp("run"), {"images": images})
    run_family(CONFIG, context, make)
    return context, made[0]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_dequantised_image_comes_back_whatever_the_noise(levels):
    images = torch.arange(levels).to(torch.uint8).view(1, 1, levels, 1)
    for noise in (0.001, 0.5, 0.999):  # an edge itself may fall to either side, by rounding
        values = dequantise(images, levels, torch.full(images.shape, noise))
        assert torch.equal(quantise(values, levels), images)
        assert float(values.min()) >= -1
        assert float(values.max()) < 1
    assert float(dequantise(images, levels, torch.zeros(images.shape))[0, 0, 0, 0]) == -1


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_values_beyond_the_grid_are_cut_to_it(levels):
    values = torch.tensor([-50.0, -1.0001, -1.0, 1.0, 1.0001, 50.0])
    assert quantise(values, levels).tolist() == [0, 0, 0, levels - 1, levels - 1, levels - 1]


def test_images_of_one_level_train_no_family(tmp_path):
    flat = toy_artifact(tmp_path / "images", levels=1)
    with pytest.raises(DataError, match=r"the images have 1 level; a model needs at least 2"):
        run_family(CONFIG, make_context(tmp_path / "run", {"images": flat}), ToyFamily)


def test_constant_images_train_to_a_finite_loss(tmp_path, images):
    splits = {name: load_split(images, name) for name in SPLITS}
    flat = {name: Split(torch.full_like(found.images, 2), found.labels) for name, found in splits.items()}
    context = make_context(tmp_path / "run", {"images": images})
    training = ImageTraining(
        config=CONFIG,
        context=context,
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        family=ToyFamily(load_grid(images)),
        train=flat["train"],
        identity={},
    )
    training.run(8, {})
    assert all(bool(torch.isfinite(parameter).all()) for parameter in training.parameters.values())


def test_a_batch_that_processes_cannot_share_is_refused_with_what_they_can(tmp_path, images):
    accelerator = type("TwoOfThree", (), {"num_processes": 3})()  # three processes cannot be started in a fast test
    with pytest.raises(StageError, match="batch_size is 8: it cannot be shared out evenly to 3 processes; set a multiple of 3"):
        ImageTraining(
            config=CONFIG,
            context=make_context(tmp_path, {"images": images}),
            accelerator=accelerator,
            family=ToyFamily(load_grid(images)),
            train=load_split(images, "train"),
            identity={},
        )


def test_each_process_sees_its_rows_of_the_noise_of_the_whole_batch():
    def drawn(first, num_rows):
        noise = BatchNoise(seeded_generator(1, 5), first=first, num_rows=num_rows, global_rows=6, device=torch.device("cpu"))
        return noise.uniform(2), noise.normal(3), noise.uniform()

    for whole, one, other in zip(drawn(0, 6), drawn(0, 2), drawn(2, 4), strict=True):
        assert torch.equal(whole, torch.cat([one, other]))


def test_likelihood_and_samples_are_both_of_the_averaged_weights(trained, images):
    context, family = trained
    bits = load_file(context.directory / "likelihood.safetensors")["test"]
    found = load_file(context.directory / "samples.safetensors")
    raw = family.likelihood(load_split(images, "test").images[:10], seeded_generator(0)).bits
    assert not torch.allclose(bits, raw), "the averages lag behind the last weights"
    newest = sorted((context.checkpoints / "training").iterdir())[-1]
    with torch.no_grad():
        family.first.table.copy_(load_file(newest / "averages.safetensors")["pixels.table"])
    torch.testing.assert_close(bits, family.likelihood(load_split(images, "test").images[:10], seeded_generator(0)).bits)
    # Samples with the same draws: the averaged weights give those called "1", the last weights those called "raw".
    assert torch.equal(found["1"], family.sample(len(found["1"]), seeded_generator(CONFIG.seed, _SAMPLES)))
    assert not torch.equal(found["1"], found["raw"])


def test_what_is_judged_is_the_end_of_the_training_and_no_choice_among_checkpoints(trained):
    context, _ = trained
    facts = json.loads((context.directory / "family.json").read_text())
    newest = sorted((context.checkpoints / "training").iterdir())[-1]
    assert newest.name == f"step-{facts['num_steps']:08d}"


def test_a_part_of_a_set_is_saved_without_the_rest_of_it(tmp_path, images):
    """`torch.save(images[:3])` writes the whole storage behind the view."""
    splits = {name: Split(found.images[:3], found.labels[:3]) for name in SPLITS for found in [load_split(images, name)]}
    save_images(tmp_path, load_grid(images), splits)
    assert len(load_split(images, "train").images) == 64
    assert (tmp_path / "images.safetensors").stat().st_size < 3 * (3 * 16 + 3 * 8) + 1000


def test_a_model_that_knows_nothing_costs_log2_of_the_levels(images):
    family = ToyFamily(load_grid(images))
    with torch.no_grad():
        family.first.table.zero_()
    bits = family.likelihood(load_split(images, "test").images, seeded_generator(0)).bits
    assert bits.tolist() == pytest.approx([math.log2(4)] * len(bits))
