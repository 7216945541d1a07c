"""What a training costs: memory of its steps alone, images in a second, the share of a GPU's speed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from stages.common import devices
from stages.common.images import memory
from stages.common.images.config import ImageModelConfig
from stages.common.images.memory import TrainingMemory
from stages.common.images.stage import run_family
from tests.harness import commit, make_context
from tests.image.digits import toy_artifact
from tests.image.toy_family import ToyFamily

CPU, GIB = torch.device("cpu"), 2**30


@pytest.fixture
def process(monkeypatch):
    """A process whose memory, GiB, the test sets: `now` is what it holds, `most` the most it ever held."""
    held = SimpleNamespace(now=1.0, most=1.0)

    def status(key):
        return int({"VmRSS": held.now, "VmHWM": held.most}[key] * GIB)

    monkeypatch.setattr(memory, "_status_bytes", status)
    return held


def test_training_memory_is_what_the_steps_take_without_what_the_process_had_before(process):
    measured = TrainingMemory(CPU)
    measured.start()
    process.most = 3.0
    assert measured.peak_gib == 2.0


def test_what_is_done_while_paused_is_left_out_and_what_comes_after_is_not(process):
    measured = TrainingMemory(CPU)
    measured.start()
    process.most = 1.5
    with measured.paused():
        process.now = process.most = 9.0  # of which much stays with the process
    assert measured.peak_gib == 0.5
    process.most = 11.0
    assert measured.peak_gib == 10.0


def test_steps_below_the_peak_of_the_imports_are_told_by_what_they_hold(process):
    process.most = 4.0
    measured = TrainingMemory(CPU)
    measured.start()
    process.now = 1.25
    assert measured.peak_gib == 0.25


def test_the_figures_of_this_process_are_those_of_the_system():
    measured = TrainingMemory(CPU)
    measured.start()
    block = torch.ones(GIB // 16)  # of four bytes
    grown = measured.peak_gib
    del block
    assert 0.2 < grown < 2.0
    assert measured.peak_gib >= grown


def test_a_family_reports_training_memory_images_in_a_second_and_the_share_of_a_known_peak(tmp_path, monkeypatch):
    peak = 1e9
    monkeypatch.setattr(devices, "known_peak", lambda device: peak)
    context = make_context(tmp_path / "run", {"images": toy_artifact(tmp_path / "images")})
    config = ImageModelConfig(budget_tflop=1e-7, batch_size=8, num_samples=20, num_likelihood_images=10, seed=3)
    run_family(config, context, ToyFamily)
    metrics = {metric["name"]: metric for metric in commit("stages.image.toy", config, context).record.metrics}
    facts = json.loads((tmp_path / "run/family.json").read_text())
    seconds = facts["wall_seconds"]
    assert metrics["images_per_second"]["value"] == pytest.approx(8 * facts["num_steps"] / seconds)
    assert metrics["mfu"]["value"] == pytest.approx(facts["num_steps"] * facts["flops_per_step"] / seconds / peak)
    assert metrics["mfu"]["value"] == facts["mfu"]
    assert metrics["training_memory_gib"]["value"] == facts["peak_memory_gib"] < 0.5, "the libraries alone take as much"
    assert "peak_memory_gib" not in metrics


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_the_peak_is_that_of_the_gpu_and_not_of_one_with_a_similar_name(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert devices.known_peak(torch.device("cuda")) == peak
