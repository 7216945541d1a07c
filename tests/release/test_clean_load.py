"""A stranger's machine: what is published loads there with stock libraries, and a copy that is not the model is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.artifact import Artifact
from stages.common.release.layout import CARD, Manifest, differences
from stages.common.release.probe import load_probe, measure
from stages.release.publish.assemble import assemble
from stages.release.publish.checks import problems
from stages.release.publish.clean_load import prove
from tests.harness import run_stage
from tests.image.digits import digits_artifact, toy_artifact
from tests.release import toy_store as toy
from tests.text.tiny_bases import TINY, save_base, tiny_model

pytestmark = pytest.mark.slow  # every proof starts a process that imports the libraries

ROOT = Path(__file__).resolve().parents[2]


def in_store(root: Path, made: Artifact) -> Artifact:
    """Give an artifact of the harness its place in a store."""
    place = root / "artifacts" / made.record.stage.removeprefix("stages.") / made.fingerprint[:8]
    place.parent.mkdir(parents=True, exist_ok=True)
    made.path.rename(place)
    return Artifact.open(place)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A corpus, a tiny real model, and its fine-tuning, in a store."""
    root = tmp_path_factory.mktemp("store")
    data = toy.corpus(root)
    saved = save_base(root / "saved", tiny_model("qwen3"))
    files = {f"model/{path.name}": path.read_bytes() for path in saved.iterdir()}
    model = toy.put(root, "stages.text.pretrain", "b0000001", "causal_lm", files, inputs={"corpus": [data]})
    values = TINY | {"learning_rate": 0.02, "num_steps": 2}
    tuned = in_store(root, run_stage("stages.text.finetune", root / "made", values, {"base": model, "corpus": data}))
    return {"root": root, "corpus": data, "model": model, "finetune": tuned}


def test_a_model_proves_itself_without_groundup(store, tmp_path):
    evidence = prove(assemble(store["model"], None, "me/toy", tmp_path / "out"))
    assert evidence.problems == ()
    assert "no Groundup on the path" in evidence.shown[0]
    assert "differ from the artifact's by 0 of" in evidence.shown[1]
    assert "generated 8 tokens" in evidence.shown[2]
    assert (evidence.probe.metric, len(evidence.probe.texts)) == ("bits_per_byte", 3)  # of ours: those of the corpus are private


def test_an_adapter_proves_itself_on_its_base(store, tmp_path):
    adapter = assemble(store["finetune"], "adapter", "me/adapter", tmp_path / "out", base_repo="me/base@v1")
    evidence = prove(adapter)
    assert evidence.problems == ()
    assert "PeftModelForCausalLM generated 8 tokens" in evidence.shown[2]


def test_weights_that_are_not_the_artifacts_are_noticed_by_their_logits(store, tmp_path):
    assembled = assemble(store["model"], None, "me/toy", tmp_path / "out")
    path = assembled.folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.up_proj.weight"] += 0.1
    save_file(weights, path, metadata={"format": "pt"})
    (problem,) = prove(assembled).problems
    assert problem.startswith("logits differ from the artifact's by")


def test_a_model_with_half_its_tensors_or_none_is_refused(store, tmp_path):
    assembled = assemble(store["model"], None, "me/toy", tmp_path / "out")
    (assembled.folder / "model.safetensors").unlink()
    (problem,) = prove(assembled).problems
    assert problem.startswith("it does not load in a clean process with stock libraries alone")


def test_code_of_a_card_that_needs_groundup_or_the_network_fails(store, tmp_path):
    assembled = assemble(store["model"], None, "me/toy", tmp_path / "out")
    for code, said in (
        ("import stages.common.loss\n", "No module named 'stages'"),
        ("import pipeline\n", "No module named 'pipeline'"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n", "must load without a network"),
    ):
        (problem,) = prove(replace(assembled, usage=replace(assembled.usage, code=code))).problems
        assert said in problem


def test_a_process_that_hangs_is_given_up(store, tmp_path):
    assembled = assemble(store["model"], None, "me/toy", tmp_path / "out")
    slow = replace(assembled, usage=replace(assembled.usage, code="import time; time.sleep(60)\n"))
    assert prove(slow, timeout_seconds=1).problems == ("the clean process did not answer within 1 s",)


def test_the_code_in_the_card_is_what_was_tried_and_runs_for_a_stranger(store, tmp_path):
    assembled = assemble(store["model"], None, "me/toy", tmp_path / "out")
    (block,) = re.findall(r"```python\n(.*?)```", (assembled.folder / CARD).read_text(), re.DOTALL)
    assert block == assembled.usage.code
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "toy").symlink_to(assembled.folder)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "The" in done.stdout


def test_a_corpus_is_read_back_row_by_row(store, tmp_path):
    assembled = assemble(store["corpus"], None, "me/texts", tmp_path / "out")
    evidence = prove(assembled)
    assert evidence.problems == ()
    assert evidence.shown[1].startswith("load_dataset reads every row as it is in the artifact (train 5")
    other = assemble(toy.corpus(tmp_path, "c0000009"), None, "me/texts", tmp_path / "other")
    (other.folder / "data" / "test-00000-of-00001.parquet").write_bytes(
        (other.folder / "data" / "train-00000-of-00001.parquet").read_bytes()
    )
    assert prove(other).problems == ("load_dataset reads other rows than the artifact holds",)


def test_own_classes_load_with_groundup_and_draw_the_same_images(tmp_path):
    images = in_store(tmp_path, digits_artifact(tmp_path / "images", num_train=200))
    model = run_stage(
        "stages.image.classic",
        tmp_path / "made",
        {"model": "independent", "num_samples": 16, "num_likelihood_images": 16},
        {"images": images},
    )
    assembled = assemble(in_store(tmp_path, model), None, "me/pixels", tmp_path / "out")
    evidence = prove(assembled)
    assert evidence.problems == ()
    assert "Groundup for its own classes" in evidence.shown[0]
    assert "equal the artifact's bit by bit" in evidence.shown[1]
    assert evidence.shown[2].startswith("in a clean process with Groundup: bits_per_dim")
    assert (evidence.probe.metric, evidence.probe.n) == ("bits_per_dim", 32)
    assert "Run this in a checkout of Groundup." in (assembled.folder / CARD).read_text()


def test_feature_extractors_load_with_groundup_and_give_the_same_features(tmp_path):
    images = in_store(tmp_path, digits_artifact(tmp_path / "images", num_train=200))
    quick = {"num_steps": 25, "batch_size": 64, "num_features": 16, "first_width": 8, "learning_rate": 6e-3, "num_parts": 2}
    made = in_store(tmp_path, run_stage("stages.image.classifier", tmp_path / "made", quick, {"images": images}))
    assembled = assemble(made, None, "me/eyes", tmp_path / "out")
    assert problems(assembled) == []
    evidence = prove(assembled)
    assert evidence.problems == ()
    assert "Groundup for its own classes" in evidence.shown[0]
    assert evidence.shown[1] == "features (4, 16) equal the artifact's bit by bit, from the same seed"
    assert (evidence.probe.metric, evidence.probe.n) == ("mean_largest_probability", 32)  # of noise: the digits are no card's
    assert "probe.json measures one number on 32 images of noise" in (assembled.folder / CARD).read_text()


def test_a_classifier_loads_with_groundup_and_gives_the_same_probabilities(tmp_path):
    images = in_store(tmp_path, toy_artifact(tmp_path / "images", num=200))
    quick = {"num_labels": 40, "budget_tflop": 0.0005, "batch_size": 32, "first_width": 8, "num_features": 16}
    made = in_store(tmp_path, run_stage("stages.image.discriminative", tmp_path / "made", quick, {"images": images}))
    assembled = assemble(made, None, "me/namer", tmp_path / "out")
    assert problems(assembled) == []
    evidence = prove(assembled)
    assert evidence.problems == ()
    assert evidence.shown[1] == "probabilities (4, 2) equal the artifact's bit by bit, from the same seed"
    card = (assembled.folder / CARD).read_text()
    assert "pipeline_tag: image-classification" in card
    assert "An image classifier, made from the ground up with Groundup" in card


def test_a_tokenizer_alone_proves_itself_without_groundup(store, tmp_path):
    saved = save_base(tmp_path / "saved", tiny_model("qwen3"))
    files = {f"tokenizer/{path.name}": path.read_bytes() for path in saved.iterdir() if path.name.startswith("tokenizer")}
    made = toy.put(store["root"], "stages.text.tokenizer", "70000009", "tokenizer", files, inputs={"corpus": [store["corpus"]]})
    assembled = assemble(made, None, "me/words", tmp_path / "out")
    assert problems(assembled) == []
    evidence = prove(assembled)
    assert evidence.problems == ()
    assert "no Groundup on the path" in evidence.shown[0]
    assert evidence.shown[1].endswith("encodes 4 texts as the artifact's does")
    assert evidence.probe.metric == "tokens_per_byte"


def test_the_command_shows_files_card_and_checks_and_sends_nothing(store, tmp_path):
    command = [sys.executable, "-m", "pipeline", "publish", str(store["finetune"].path), "--repo", "me/toy", "--offline"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--part adapter, --part merged" in refused.stderr
    command += ["--part", "merged", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for said in ("model.safetensors", "pipeline_tag", "generated 8 tokens", "nothing left this machine"):
        assert said in done.stdout
    noted = json.loads((tmp_path / "out.checks.json").read_bytes())
    assert noted["problems"] == []
    *proofs, probe = noted["evidence"]
    assert len(proofs) == 3
    assert probe.startswith("probe.json measures one number on 3 texts of Groundup's own")
    out = tmp_path / "out"
    assert differences(out, Manifest.load(out)) == []
    assert measure(out, "merged", repo="me/toy").agrees(load_probe(out))
    published = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert published == (store["finetune"] / "merged" / "model.safetensors").read_bytes()
