"""`groundup publish --push` from an artifact to a Hub, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pipeline.artifact import Artifact, differences
from stages.common.release.layout import CARD
from tests.harness import run_stage
from tests.hub.client import client
from tests.hub.server import HubServer
from tests.image.comparisons import make_extractors
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS
from tests.release import toy_store as toy
from tests.text.tiny_bases import TINY, save_base, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each program imports the libraries anew


def in_store(root: Path, made: Artifact) -> Artifact:
    """Give an artifact of the harness its place in a store."""
    place = root / "artifacts" / made.record.stage.removeprefix("stages.") / made.fingerprint[:8]
    place.parent.mkdir(parents=True, exist_ok=True)
    made.path.rename(place)
    return Artifact.open(place)


def publish(hub: HubServer, artifact: Artifact, repo: str, *arguments: str) -> str:
    """Run the command; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "publish", str(artifact.path), "--repo", repo, *arguments],
        env=hub.environment("hf_ada"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hf_ada" not in done.stdout + done.stderr
    return done.stdout


def test_an_adapter_is_published_and_loads_on_its_published_base(hub: HubServer, tmp_path: Path) -> None:
    data = toy.corpus(tmp_path)
    saved = save_base(tmp_path / "saved", tiny_model("qwen3"))
    files = {f"model/{path.name}": path.read_bytes() for path in saved.iterdir()}
    model = toy.put(tmp_path, "stages.text.pretrain", "b0000001", "causal_lm", files, inputs={"corpus": [data]})
    values = TINY | {"learning_rate": 0.02, "num_steps": 2}
    tuned = in_store(tmp_path, run_stage("stages.text.finetune", tmp_path / "made", values, {"base": model, "corpus": data}))
    code = """
        api.create_repo("ada/base")
        api.upload_folder(repo_id="ada/base", folder_path=sys.argv[1])
        api.create_tag("ada/base", tag="v1")
        result = None
    """
    client(hub, code, saved)
    shown = publish(hub, tuned, "ada/adapter", "--part", "adapter", "--base-repo", "ada/base@v1", "--push")
    assert "the adapter needs ada/base@v1: downloading it" in shown
    assert "loaded in a clean process: bits_per_byte" in shown
    record = tuned.path.with_name(tuned.path.name + ".published.json")
    assert [entry["repo"] for entry in json.loads(record.read_bytes())["published"]] == ["ada/adapter"]
    assert differences(tuned.path, tuned.record) == []  # the artifact is as it was


def test_an_image_model_of_our_own_classes_goes_with_its_own_figures_and_a_corpus_with_its_rows(
    hub: HubServer, tmp_path: Path
) -> None:
    images = in_store(tmp_path, toy_artifact(tmp_path / "images"))
    values = {"num_samples": 40, "num_likelihood_images": 16}

    def fitted(model: str, seed: int) -> Artifact:
        folder = tmp_path / "made" / f"{model}{seed}"
        chosen = values | {"model": model, "seed": seed}
        return in_store(tmp_path, run_stage("stages.image.classic", folder, chosen, {"images": images}))

    models = [fitted("independent", 1), fitted("independent", 2), fitted("gaussian", 1)]
    extractors = in_store(tmp_path, make_extractors(tmp_path / "extractors", images))
    inputs = {"images": images, "extractors": extractors, "models": models}
    made = run_stage("stages.image.compare", tmp_path / "compared", {"num_parts": 4, "num_resamples": 100}, inputs)
    comparison = in_store(tmp_path, made)
    shown = publish(hub, models[1], "ada/pixels", "--push")
    assert "loaded in a clean process: bits_per_dim" in shown
    assert "measures one number on 32 images of noise" in shown  # the data of the test come out of no card
    assert "published: ada/pixels at commit" in shown
    _check_figures(tmp_path / "published" / "ada--pixels", models[1], comparison)
    shown = publish(hub, toy.corpus(tmp_path), "ada/texts", "--push")
    assert "loaded in a clean process: mean_bytes" in shown
    assert ("dataset", "ada/texts") in hub.state.repositories


@pytest.mark.parametrize("name", ["vae", "vae_kl", "gan", "flow_autoregressive", "flow_matching", "diffusion"])
def test_every_image_family_goes_the_whole_way(hub: HubServer, tmp_path: Path, name: str) -> None:
    images = in_store(tmp_path, toy_artifact(tmp_path / "images", height=8, width=8))
    stage = type(CONFIGS[name]).__module__.removesuffix(".config")
    few = {"budget_tflop": 0.002, "num_samples": 32, "num_likelihood_images": 8}
    values = CONFIGS[name].model_dump(mode="json", exclude_unset=True) | few
    model = in_store(tmp_path, run_stage(stage, tmp_path / "made", values, {"images": images}))
    shown = publish(hub, model, "ada/images", "--push")
    metric = "laplacian_ratio" if name == "gan" else "bits_per_dim"
    assert f"loaded in a clean process: {metric}" in shown
    assert "published: ada/images at commit" in shown
    [entry] = json.loads(model.path.with_name(model.path.name + ".published.json").read_bytes())["published"]
    assert entry["commit"] == hub.state.repositories["model", "ada/images"].head().oid
    assert entry["verified"]["num_files"] > 10


@pytest.mark.parametrize(
    ("stage", "values", "metric"),
    [
        ("discriminative", {"num_labels": 40, "budget_tflop": 0.0005, "batch_size": 32}, "accuracy"),
        ("classifier", {"num_steps": 25, "batch_size": 64, "num_parts": 2}, "accuracy"),
    ],
)
def test_whatever_answers_is_measured_again_by_its_accuracy_on_images_that_all_may_have(
    hub: HubServer, tmp_path: Path, stage: str, values: dict[str, object], metric: str
) -> None:
    made = toy_artifact(tmp_path / "images", height=8, width=8, num=200)
    identity = made.record.identity | {"sources": [{"card": toy.CARD}]}
    made.record.model_copy(update={"identity": identity}).save(made.path)
    images = in_store(tmp_path, Artifact.open(made.path))
    small = {"first_width": 8, "num_features": 16}
    made = in_store(tmp_path, run_stage(f"stages.image.{stage}", tmp_path / "made", values | small, {"images": images}))
    shown = publish(hub, made, "ada/eyes", "--push")
    assert f"loaded in a clean process: {metric}" in shown
    assert "measures one number on 32 test images of bars (licence cc-by-4.0)" in shown
    [entry] = json.loads(made.path.with_name(made.path.name + ".published.json").read_bytes())["published"]
    assert entry["verified"]["metric"] == metric


def _check_figures(folder: Path, model: Artifact, comparison: Artifact) -> None:
    """The index holds what the comparison measured of this model alone, and the means over its two seeds; nothing of others."""
    ours = [row for row in comparison.record.metrics if row.get("label") == "independent"]
    assert len(ours) > 10
    alone = {row["name"]: next(one["value"] for one in row["of"] if one["artifact"] == model.fingerprint) for row in ours}
    results = [
        one for one in ModelCard.load(folder / CARD).data.eval_results if one.metric_args["stage"] == "stages.image.compare"
    ]
    means = {one.metric_type: one.metric_value for one in results if one.metric_args.get("mean_over_seeds") == 2}
    assert means == {row["name"]: row["value"] for row in ours}
    assert {one.metric_type: one.metric_value for one in results if "mean_over_seeds" not in one.metric_args} == alone
    assert len(results) == 2 * len(ours)
    assert "gaussian" not in (folder / "metrics.json").read_text()
    assert "of a network, `supervised-0`, whose record is here" in (folder / CARD).read_text()
    assert sorted(path.name.partition("-")[0] for path in (folder / "provenance").iterdir()) == [
        "image.classic",
        "image.classifier",
        "image.compare",
        "image.dataset",
    ]
