"""SIGKILL at a write of any image family, then run again: nothing lost, nothing twice, the same bytes in the end.

As a script (`python -m tests.image.test_kill`) it has loaded the libraries and forks a process for each attempt that a line
of its input describes: that costs a second instead of ten. An attempt is what a worker does: take over what an earlier one
left, run the stage, commit.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from safetensors.torch import load_file

from pipeline.artifact import Artifact, Record, differences, manifest
from pipeline.process import descendants, wait_gone
from pipeline.store import Store, clean
from pipeline.worker import _is_complete
from tests.engine.conftest import Project
from tests.harness import make_context
from tests.image.digits import toy_artifact

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 8
SMALL = {"batch_size": 8, "num_samples": 6, "num_likelihood_images": 2, "seed": 3, "budget_tflop": (NUM_STEPS + 0.5) / 1000}
UNET = {"block_out_channels": [4], "num_sample_steps": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "vae": {"hidden_size": 8, "latent_channels": 2, "num_importance_samples": 4},
    "gan": {"generator_size": 8, "discriminator_size": 8, "latent_size": 4},
    "flow": {"num_transforms": 2, "hidden_size": 8, "num_dequantisation_draws": 2},
    "flow_matching": UNET | {"num_likelihood_steps": 2, "num_probes": 1},
    "diffusion": UNET | {"num_timesteps": 4},
}
CHECKPOINT, ANYTIME, ARTIFACT = "checkpoint", "samples on the way", "artifact"
FINGERPRINT = "f" * 64


def attempt(root: Path, images: Path, family: str, kill: tuple[str, int] | None) -> None:
    """Do what a worker does, in this process; `kill`: SIGKILL at the n-th write of a kind. Notes each write in `writes`."""
    stage = f"stages.image.{family}"
    config = importlib.import_module(f"{stage}.config").Config.parse(SMALL | FAMILIES[family], where=stage)
    store = Store(root / "store")
    place = store.place(stage, FINGERPRINT)
    watch_writes(root / "writes", kill)
    if store.find(stage, FINGERPRINT):
        return
    if _is_complete(place.partial):
        store.finish_commit(place)
        return
    place.partial.mkdir(parents=True, exist_ok=True)
    clean(place.partial)
    context = make_context(place.partial, {"images": Artifact.open(images)})
    context.resolve("flops_per_step", lambda: 10**9)  # so the budget buys NUM_STEPS of any family
    importlib.import_module(f"{stage}.run").run(config, context)
    context.finish()
    record = Record(
        name=family,
        stage=stage,
        produces=config.produces,
        fingerprint=FINGERPRINT,
        identity={},
        inputs={},
        files=manifest(place.partial),
        metrics=[],
        provenance={},
    )
    store.commit(place, record)


def watch_writes(log: Path, kill: tuple[str, int] | None) -> None:
    """Count every write by its kind; the n-th of the kind to be killed is not made. A file of tensors is first half written."""
    counts: Counter[str] = Counter()

    def watched(function):
        def call(target, *args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            kind = CHECKPOINT if "checkpoints/training" in path else ANYTIME if "checkpoints/anytime" in path else ARTIFACT
            counts[kind] += 1
            if kill == (kind, counts[kind]):
                os.kill(os.getpid(), signal.SIGKILL)
            with open(log, "a") as file:
                file.write(f"{kind}\n")
            return function(target, *args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))
    serialize = safetensors.torch.serialize_file

    def saving(tensors, path, **rest):
        watched(lambda target: Path(target).write_bytes(safetensors.torch.serialize(tensors)[:-7]))(path)
        watched(lambda target: serialize(tensors, target, **rest))(path)

    safetensors.torch.serialize_file = saving


class Nursery:
    """A process that has loaded the libraries; each attempt is a child of it."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.image.test_kill"]
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def attempt(self, root: Path, images: Path, family: str, kill: tuple[str, int] | None = None) -> int:
        """Return how the attempt ended: 0, or minus the signal that killed it."""
        root.mkdir(parents=True, exist_ok=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(root), str(images), family, kill]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def serve() -> None:
    """Fork a child for each line of the input; print how it ended."""
    for name in ("matplotlib.pyplot", "accelerate", *(f"stages.image.{family}.run" for family in FAMILIES)):
        importlib.import_module(name)
    for line in sys.stdin:
        root, images, family, kill = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            with open(Path(root) / "log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            try:
                attempt(Path(root), Path(images), family, tuple(kill) if kill else None)
                code = 0
            finally:
                if code:
                    import traceback

                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return toy_artifact(tmp_path_factory.mktemp("images") / "images").path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, nursery, images):
    """Return where a family was trained without a kill; each is trained once."""
    root = tmp_path_factory.mktemp("uninterrupted")

    def of(family):
        if not (root / family).exists():
            assert nursery.attempt(root / family, images, family) == 0, (root / family / "log").read_text()[-3000:]
        return root / family

    return of


def artifact_of(root: Path) -> Path:
    (path,) = Store(root / "store").all()
    return path


def newest_checkpoint(root: Path) -> int:
    """Return the step of the newest checkpoint that a killed attempt left."""
    return max((int(path.name[5:]) for path in root.glob("store/artifacts/*/.*.partial/checkpoints/training/step-*")), default=0)


def events_of(artifact: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifact / "events.jsonl").read_text().splitlines()]


def assert_equal(found: Path, expected: Path) -> None:
    """Every tensor that was saved is the same to the last bit, and every step was logged once."""
    names = sorted(str(path.relative_to(expected)) for path in expected.rglob("*.safetensors"))
    assert "samples.safetensors" in names
    assert any(name.startswith("model/") for name in names)
    assert names == sorted(str(path.relative_to(found)) for path in found.rglob("*.safetensors"))
    for name in names:
        one, other = load_file(expected / name), load_file(found / name)
        assert one.keys() == other.keys()
        assert all(one[key].equal(other[key]) for key in one), name
    losses = [(event["name"], event["step"], event["value"]) for event in events_of(found) if event["name"].endswith(".loss")]
    assert sorted(losses) == sorted(
        (event["name"], event["step"], event["value"]) for event in events_of(expected) if event["name"].endswith(".loss")
    )
    assert Counter(losses).most_common(1)[0][1] == 1


@pytest.mark.parametrize("kind", [CHECKPOINT, ANYTIME, ARTIFACT])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kill_at_a_write_loses_nothing_and_changes_no_bit(family, kind, tmp_path, nursery, images, uninterrupted):
    whole = uninterrupted(family)
    writes = (whole / "writes").read_text().splitlines().count(kind)
    assert writes >= 9, "there are more writes of this kind: they were not seen"
    for number in (writes // 4, 2 * writes // 3, writes):
        root = tmp_path / str(number)
        assert nursery.attempt(root, images, family, (kind, number)) == -signal.SIGKILL, (root / "log").read_text()[-3000:]
        saved = newest_checkpoint(root)
        assert nursery.attempt(root, images, family) == 0, (root / "log").read_text()[-3000:]
        assert not differences(artifact_of(root), Record.load(artifact_of(root)))
        assert not list(root.glob("store/artifacts/*/.*.partial"))
        assert_equal(artifact_of(root), artifact_of(whole))
        notes = [event["value"] for event in events_of(artifact_of(root)) if event["name"] == "note"]
        assert not saved or not notes or notes[-1] == f"resumed at step {saved}", "work that was saved was done again"
        shutil.rmtree(root)


def test_a_kill_at_the_commit_leaves_it_to_be_completed_without_training_again(tmp_path, nursery, images, uninterrupted):
    writes = (uninterrupted("vae") / "writes").read_text().splitlines().count(ARTIFACT)
    assert nursery.attempt(tmp_path, images, "vae", (ARTIFACT, writes - 1)) == -signal.SIGKILL
    (tmp_path / "writes").unlink()
    assert nursery.attempt(tmp_path, images, "vae") == 0
    assert CHECKPOINT not in (tmp_path / "writes").read_text()
    assert_equal(artifact_of(tmp_path), artifact_of(uninterrupted("vae")))


RECIPE = """
    name: r
    seed: 3
    stages:
      images: {stage: stages.image.dataset, card: digits, max_images: 240}
      gan:
        stage: stages.image.gan
        needs: {images: images}
        budget_tflop: 0.004
        batch_size: 8
        num_samples: 6
        generator_size: 16
        discriminator_size: 16
        launch: {processes: 2}
"""


def test_with_two_processes_the_death_of_one_ends_both_and_the_next_run_ends_with_the_same_weights(tmp_path):
    whole = Project(tmp_path / "whole")
    whole.environment = {key: value for key, value in whole.environment.items() if key != "PYTHONWARNINGS"}  # DDP gives hints
    whole.recipe(RECIPE)
    whole.groundup("run", "recipe.yaml", "--only", "images")
    killed = whole.copy(tmp_path / "killed")
    whole.groundup("run", "recipe.yaml")
    process = killed.start("run", "recipe.yaml")
    (rank,) = waited_for(killed.root, "artifacts/*/.*.partial/checkpoints/training/step-*", "artifacts/*/.*.partial/.rank-1.json")
    family = descendants([process.pid])
    os.kill(int(json.loads(rank.read_text())[0]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert wait_gone(family, 20), "a process outlived the others"
    killed.groundup("run", "recipe.yaml")
    one, other = (project.root / "runs/r/gan" for project in (whole, killed))
    assert any("resumed at step" in str(event["value"]) for event in events_of(other))
    assert_equal(other.resolve(), one.resolve())
    assert json.loads((other / "family.json").read_text())["num_processes"] == 2


def waited_for(root: Path, first: str, then: str) -> list[Path]:
    """Wait until something fits the pattern `first`; return what fits `then`."""
    deadline = time.monotonic() + 120
    while not list(root.glob(first)):
        assert time.monotonic() < deadline, "the training did not get so far"
        time.sleep(0.02)
    return list(root.glob(then))


if __name__ == "__main__":
    serve()
