"""The figure of an image model or classifier that is measured again, and the images that it is measured on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.artifact import Artifact
from pipeline.contract import write_json
from pipeline.errors import Damaged
from stages.common.images.extractor import ExtractorNetwork, initialise
from stages.common.images.features import EXTRACTORS, probabilities
from stages.common.images.grid import GRID, Grid, Split, load_grid, load_split
from stages.common.images.noise import seeded_generator
from stages.common.images.turns import all_turns
from stages.common.metrics.sharpness import energies, sharpness_ratios
from stages.common.release.image_figure import _STREAM, SAMPLES, image_figure
from stages.common.release.layout import Manifest
from stages.common.release.probe import PROBE_IMAGES, Measured, kind_of
from stages.image.classic.config import Config as ClassicConfig
from stages.image.classic.model import fit
from stages.release.publish.lineage import trace
from stages.release.publish.probe_images import MOST_FLOPS, MOST_IMAGES, ProbeImages, against_stage, probe_images
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS, tiny_family
from tests.release import toy_store as toy


@pytest.fixture
def images(tmp_path: Path) -> Artifact:
    return toy_artifact(tmp_path / "images", height=8, width=8)


def published(folder: Path, images: Artifact, stage: str, settings: dict[str, object], *, produces: str = "image_model") -> Split:
    """Put beside a saved model what publishing puts there; return the images that it is measured on."""
    (folder / GRID).write_bytes((images.path / GRID).read_bytes())
    write_json(folder / "family.json", {"settings": settings})
    Manifest(artifact="0" * 64, stage=stage, part="model", produces=produces, files={}).save(folder)
    test = load_split(images, "test")
    probe = Split(test.images[:6], test.labels[:6])
    ProbeImages(probe).save(folder)
    return probe


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("flow_matching")) for name in CONFIGS if name != "gan"],
)
def test_a_family_gives_its_own_bits_and_others_with_other_weights(name: str, images: Artifact, tmp_path: Path) -> None:
    family, config = tiny_family(name, load_grid(images)), CONFIGS[name]
    family.save(tmp_path / "model")
    stage = type(config).__module__.removesuffix(".config")
    probe = published(tmp_path / "model", images, stage, config.identity())
    expected = family.likelihood(probe.images, seeded_generator(0, _STREAM))
    assert image_figure(tmp_path / "model") == ("bits_per_dim", pytest.approx(float(expected.bits.mean()), rel=1e-6), 6)
    folder = next(iter(family.saved()))
    path = tmp_path / "model" / folder / "diffusion_pytorch_model.safetensors"
    noise = seeded_generator(1)
    save_file({key: value + 0.3 * torch.randn(value.shape, generator=noise) for key, value in load_file(path).items()}, path)
    assert image_figure(tmp_path / "model")[1] != pytest.approx(float(expected.bits.mean()), rel=1e-4)


@pytest.mark.parametrize("model", ["independent", "gaussian", "ppca", "gmm"])
def test_a_classic_density_gives_its_own_bits(model: str, images: Artifact, tmp_path: Path) -> None:
    config = ClassicConfig(model=model, num_components=2, max_iterations=5)
    train, validation = (load_split(images, name).images for name in ("train", "validation"))
    fitted = fit(config, load_grid(images), train, validation)
    fitted.density.save_pretrained(tmp_path / "model")
    probe = published(tmp_path / "model", images, "stages.image.classic", config.identity() | {"note": "x", "ridge": None})
    expected = float(fitted.likelihood(probe.images, seeded_generator(0, _STREAM)).bits.mean())
    assert image_figure(tmp_path / "model") == ("bits_per_dim", pytest.approx(expected, rel=1e-9), 6)


def test_a_gan_gives_the_sharpness_of_its_samples(images: Artifact, tmp_path: Path) -> None:
    family = tiny_family("gan", load_grid(images))
    family.save(tmp_path / "model")
    probe = published(tmp_path / "model", images, "stages.image.gan", CONFIGS["gan"].identity())
    samples = family.sample(SAMPLES, seeded_generator(0, _STREAM))
    expected = sharpness_ratios(energies("", samples.numpy()), energies("", probe.images.numpy()))["laplacian_ratio"]
    assert image_figure(tmp_path / "model") == ("laplacian_ratio", pytest.approx(expected, rel=1e-9), SAMPLES)


def network(grid: Grid, num_outputs: int, seed: int) -> ExtractorNetwork:
    shape = {"channels": grid.channels, "height": grid.height, "width": grid.width, "levels": grid.levels}
    made = ExtractorNetwork(**shape, num_outputs=num_outputs, num_features=4, first_width=4)
    initialise(made, seeded_generator(seed))
    return made.eval()


def test_a_classifier_gives_its_accuracy_or_without_classes_how_sure_it_is(images: Artifact, tmp_path: Path) -> None:
    made = network(load_grid(images), 2, 0)
    made.save_pretrained(tmp_path / "model")
    probe = published(tmp_path / "model", images, "stages.image.discriminative", {}, produces="discriminative_classifier")
    answers = probabilities(made, probe.images)
    right = float((answers.argmax(axis=1) == probe.labels.numpy()).mean())
    assert image_figure(tmp_path / "model") == ("accuracy", right, 6)
    ProbeImages(Split(probe.images, torch.full((6,), -1))).save(tmp_path / "model")
    assert image_figure(tmp_path / "model") == ("mean_largest_probability", float(answers.max(axis=1).mean()), 6)


@pytest.mark.parametrize(
    ("kinds", "metric"),
    [
        ({"random": 0, "rotation": 4, "supervised": 2}, "accuracy"),
        ({"random": 0, "rotation": 4}, "turned_accuracy"),
        ({"random": 0}, "mean_feature"),
    ],
)
def test_extractors_give_the_accuracy_of_one_that_was_trained(
    kinds: dict[str, int], metric: str, images: Artifact, tmp_path: Path
) -> None:
    networks = {kind: network(load_grid(images), num_outputs, seed) for seed, (kind, num_outputs) in enumerate(kinds.items())}
    for kind, made in networks.items():
        made.save_pretrained(tmp_path / f"{kind}-0")
    write_json(tmp_path / EXTRACTORS, [{"kind": kind, "name": f"{kind}-0"} for kind in kinds])
    probe = published(tmp_path, images, "stages.image.classifier", {}, produces="feature_extractors")
    found, value, num = image_figure(tmp_path)
    assert found == metric
    if metric == "turned_accuracy":
        answers = [probabilities(networks["rotation"], part).argmax(axis=1) for part in all_turns(probe.images, (0, 1, 2, 3))]
        right = sum(int((answer == turn).sum()) for turn, answer in enumerate(answers))
        assert (value, num) == (pytest.approx(right / 24), 24)
    elif metric == "accuracy":
        answers = probabilities(networks["supervised"], probe.images).argmax(axis=1)
        assert value == float((answers == probe.labels.numpy()).mean())


def test_only_a_stage_of_images_is_asked_for_its_model(images: Artifact, tmp_path: Path) -> None:
    published(tmp_path, images, "stages.image.vae.model;os", {})
    with pytest.raises(Damaged, match=r"which is no stage of images"):
        image_figure(tmp_path)
    assert kind_of(tmp_path, "model") == "images"
    (tmp_path / PROBE_IMAGES).unlink()
    assert kind_of(tmp_path, "model") == "card"


def in_store(root: Path, images: Artifact, *, licence: str, sources: list[dict[str, object]], flops: float) -> Artifact:
    """Return an image model whose images are of that licence and came from there."""
    grid = asdict(load_grid(images)) | {"license": licence}
    files = {GRID: json.dumps(grid), "images.safetensors": (images / "images.safetensors").read_bytes()}
    data = toy.put(root, "stages.image.dataset", "d0000001", "images", files, sources=sources)
    files = {"family.json": json.dumps({"flops_per_step": flops * 8, "batch_size": 8}), GRID: json.dumps(grid)}
    return toy.put(root, "stages.image.vae", "b0000001", "image_model", files, inputs={"images": [data]})


CARD = [{"card": {"name": "bars"}}]
OWN = [{"files": [[".png", "00" * 32]]}]


@pytest.mark.parametrize(
    ("licence", "sources", "flops", "num_images", "shown"),
    [
        ("cc-by-4.0", CARD, 5e6, MOST_IMAGES, True),
        ("cc-by-4.0", CARD, MOST_FLOPS / 3, 3, True),
        ("cc-by-4.0", CARD, 3 * MOST_FLOPS, 1, True),
        ("cc-by-4.0", CARD, 0, MOST_IMAGES, True),
        ("cc-by-4.0", OWN, 5e6, MOST_IMAGES, False),
        ("not stated", CARD, 5e6, MOST_IMAGES, False),
    ],
)
def test_images_lie_beside_a_model_only_if_all_may_have_them(
    licence: str, sources: list[dict[str, object]], flops: float, num_images: int, shown: bool, images: Artifact, tmp_path: Path
) -> None:
    model = in_store(tmp_path, images, licence=licence, sources=sources, flops=flops)
    probe = probe_images(trace(model))
    test = load_split(images, "test")
    assert len(probe.split) == num_images
    assert (probe.source is not None) is shown
    assert torch.equal(probe.split.images, test.images[:num_images]) is shown
    assert torch.equal(probe.split.labels, test.labels[:num_images]) is shown
    assert int(probe.split.images.max()) < load_grid(images).levels
    assert (f"(licence {licence}), which are copied" in probe.sentence()) is shown
    assert ("no image of the data is in it" in probe.sentence()) is not shown


def test_bits_are_held_against_those_of_the_stage_on_the_same_images(images: Artifact, tmp_path: Path) -> None:
    model = in_store(tmp_path, images, licence="mit", sources=CARD, flops=5e6)
    probe = probe_images(trace(model))
    bits = torch.cat([torch.full((MOST_IMAGES,), 2.0), torch.full((9,), 50.0)])
    save_file({"test": bits.double()}, model / "likelihood.safetensors")
    near, far = (Measured(metric="bits_per_dim", value=value, n=MOST_IMAGES) for value in (2.1, 2.3))
    assert against_stage(model, near, probe) == (
        "in a clean process with Groundup: bits_per_dim 2.1 (n = 32); its stage measured 2 on the same images, with other draws",
        True,
    )
    assert not against_stage(model, far, probe)[1]
    assert against_stage(model, far, ProbeImages(probe.split))[1]  # of noise the stage measured nothing
    assert against_stage(model, far.model_copy(update={"n": 99}), probe)[1]  # nor of so many
    assert against_stage(model, far.model_copy(update={"metric": "accuracy"}), probe)[1]
