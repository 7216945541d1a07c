"""The GAN as a stage: what it leaves on disk, what it reports, what it refuses."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from pipeline.errors import DataError
from stages.image.gan.model import GANPipeline
from stages.image.gan.report import smoothed
from tests.harness import run_stage
from tests.image.digits import toy_artifact

STAGE = "stages.image.gan"
VALUES = {
    "budget_tflop": 5e-4,
    "batch_size": 8,
    "num_samples": 20,
    "generator_size": 16,
    "discriminator_size": 16,
    "latent_size": 4,
    "seed": 3,
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    root = tmp_path_factory.mktemp("gan")
    return run_stage(STAGE, root / "gan", VALUES, {"images": toy_artifact(root / "images", height=8, width=8)})


@pytest.mark.slow
def test_the_stage_leaves_a_model_that_loads_and_drew_the_samples(artifact):
    facts = json.loads((artifact.path / "family.json").read_text())
    assert (facts["family"], facts["likelihood"], facts["num_function_evaluations"]) == ("gan", None, 1)
    assert facts["extra_parameters"] > 0
    assert 0 < facts["training_flops"] <= VALUES["budget_tflop"] * 1e12
    samples = load_file(artifact.path / "samples.safetensors")
    assert set(samples) == {"1/8", "1/4", "1/2", "1", "raw"}
    pipeline = GANPipeline.from_pretrained(artifact.path / "model")
    assert pipeline.generator.config.levels == 4
    parameters = sum(parameter.numel() for parameter in pipeline.generator.parameters())
    assert parameters == facts["parameters"]


@pytest.mark.slow
def test_the_report_tells_the_game_and_a_generator_that_did_not_learn(artifact):
    section = json.loads((artifact.path / "section.json").read_text())
    figures = {block["path"] for block in section["blocks"] if block["kind"] == "figure"}
    own = {"game.svg", "logit_gap.svg", "balance.svg", "gradient_norms.svg", "penalties.svg", "samples.png", "morph.png"}
    assert {f"figures/{name}" for name in own} <= figures
    assert all((artifact.path / path).stat().st_size > 0 for path in figures)
    # After so few steps every sample is nearly the same: the report must say so.
    metrics = {metric["name"]: metric for metric in artifact.record.metrics}
    assert metrics["pairwise_distance_ratio"]["fired"]
    assert metrics["collapse_signs"]["value"] >= 1
    sentences = [block["text"] for block in section["blocks"] if block["kind"] == "text"]
    assert any(text.startswith("Collapse: pairwise distance ratio is") for text in sentences)
    events = (artifact.path / "events.jsonl").read_text()
    assert "Collapse: pairwise distance ratio is" in events


def test_images_of_one_level_are_refused_by_name(tmp_path):
    images = toy_artifact(tmp_path / "images", levels=1, height=8, width=8)
    with pytest.raises(DataError, match="1 level"):
        run_stage(STAGE, tmp_path / "gan", VALUES, {"images": images})


def test_smoothing_keeps_the_mean_level_and_the_length():
    values = [float(index % 2) for index in range(300)]
    found = smoothed(values)
    assert len(found) == 300
    assert max(abs(value - 0.5) for value in found[10:-10]) < 0.1
    assert smoothed([3.0]) == [3.0]
