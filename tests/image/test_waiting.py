"""While one process measures alone, all give signs of life; what hangs falls silent."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.errors import Interrupted
from stages.common import devices
from stages.common.images.config import ImageModelConfig
from stages.common.images.stage import run_family
from tests.harness import make_context
from tests.image.digits import toy_artifact
from tests.image.toy_family import ToyFamily


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(devices, "_BEAT_SECONDS", 0.01)


def old_beat(context):
    """Give a sign of life that is an hour old, and return its file."""
    path = context.directory / f".beat-{context.process_index}"
    context.beat()
    os.utime(path, (1, 1))
    return path


def test_a_process_that_waits_in_a_barrier_gives_signs_of_life_until_it_returns(tmp_path):
    context = make_context(tmp_path, process_index=1, num_processes=2)
    path, seen = old_beat(context), []

    def barrier():
        for _ in range(2):
            os.utime(path, (1, 1))
            deadline = time.monotonic() + 5
            while path.stat().st_mtime == 1 and time.monotonic() < deadline:
                time.sleep(0.005)
            seen.append(path.stat().st_mtime > 1)

    devices.wait_for_everyone(context, SimpleNamespace(num_processes=2, wait_for_everyone=barrier))
    assert seen == [True, True]
    assert "beats while waiting" not in {thread.name for thread in threading.enumerate()}


def test_a_barrier_that_fails_fails_here_and_its_signs_of_life_end(tmp_path):
    def barrier():
        raise RuntimeError("connection closed by peer")

    context = make_context(tmp_path, process_index=1, num_processes=2)
    with pytest.raises(RuntimeError, match="closed by peer"):
        devices.wait_for_everyone(context, SimpleNamespace(num_processes=2, wait_for_everyone=barrier))
    assert "beats while waiting" not in {thread.name for thread in threading.enumerate()}


def test_a_barrier_waits_longer_than_any_measurement_takes(tmp_path):
    handler = devices.make_accelerator(make_context(tmp_path)).init_handler
    assert handler is not None
    assert handler.timeout >= timedelta(days=1)


def test_work_on_networks_gives_signs_of_life_at_the_calls_of_their_layers_and_only_meanwhile(tmp_path):
    context = make_context(tmp_path)
    network = nn.ModuleList([nn.Linear(2, 2)])  # whose own forward nobody calls, as with a flow or an autoencoder
    path = old_beat(context)
    with devices.signs_of_life(context, [network]):
        time.sleep(0.05)
        assert path.stat().st_mtime == 1, "nothing is called, so there is no sign of life"
        network[0](torch.zeros(1, 2))
        assert path.stat().st_mtime > 1
    os.utime(path, (1, 1))
    time.sleep(0.05)
    network[0](torch.zeros(1, 2))
    assert path.stat().st_mtime == 1


def test_a_request_to_stop_is_heeded_in_the_middle_of_measuring(tmp_path):
    context = make_context(tmp_path)
    network = nn.Linear(2, 2)
    context._stop_signal = 15
    with pytest.raises(Interrupted), devices.signs_of_life(context, [network]):
        network(torch.zeros(1, 2))
    assert not network._forward_pre_hooks


class Watched(ToyFamily):
    """Notes whether a call of its network in the middle of sampling or likelihood is a sign of life."""

    def __init__(self, grid, context):
        super().__init__(grid)
        self.layer, self.context, self.alive = nn.Linear(1, 1), context, {"sample": [], "likelihood": []}

    def averaged(self):
        return super().averaged() | {"layer": self.layer}

    def call(self, method):
        path = old_beat(self.context)
        time.sleep(0.02)
        self.layer(torch.zeros(1, 1))
        self.alive[method].append(path.stat().st_mtime > 1)

    def sample(self, num_images, generator):
        self.call("sample")
        return super().sample(num_images, generator)

    def likelihood(self, images, generator):
        self.call("likelihood")
        return super().likelihood(images, generator)


def test_sampling_and_likelihood_give_signs_of_life_from_within(tmp_path):
    context = make_context(tmp_path / "run", {"images": toy_artifact(tmp_path / "images")})
    config = ImageModelConfig(budget_tflop=2e-8, batch_size=8, num_samples=20, num_likelihood_images=10, seed=3)
    families = []

    def make(grid):
        families.append(Watched(grid, context))
        return families[0]

    run_family(config, context, make)
    # After the samples on the way, four calls measure the latency, which hooks would lengthen.
    assert families[0].alive == {"sample": [True] * 3 + [False] * 4 + [True] * 2, "likelihood": [True] * 3}
