"""The number of processes and of accumulation steps changes nothing but rounding, and never the token stream.

Tolerance: losses of every step within 1e-5 relative and weights within 1e-4 absolute after 8 steps; float32 sums in
another order differ by about 1e-7 per step, which Newton-Schulz and AdamW amplify.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from pipeline.contract import read_events
from tests.equivalence.inputs import TINY, launch, make_inputs

pytestmark = pytest.mark.slow

VALUES = TINY | {"num_steps": 8, "prompts": [], "num_evaluations": 4, "keep_checkpoints": 4}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    make_inputs(root)
    return root


def trained(directory, inputs, values=VALUES, *, num_processes):
    done = launch(directory, inputs, values, num_processes=num_processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return results(directory)


def results(directory):
    """Return the loss of every step and the saved weights."""
    losses = {event.step: event.value for event in read_events(directory / "events.jsonl") if event.name == "loss"}
    return losses, load_file(directory / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def single(tmp_path_factory, inputs):
    return trained(tmp_path_factory.mktemp("single") / "run", inputs, num_processes=1)


def assert_close(first, second):
    assert first[0].keys() == second[0].keys()
    for step, loss in first[0].items():
        assert loss == pytest.approx(second[0][step], rel=1e-5), f"step {step}"
    for name, weight in first[1].items():
        torch.testing.assert_close(weight, second[1][name], rtol=0, atol=1e-4)


def test_two_processes_equal_two_accumulation_steps(tmp_path, inputs, single):
    assert_close(single, trained(tmp_path, inputs, num_processes=2))


def test_two_processes_equal_one_with_documents_in_groups(tmp_path, inputs):
    values = VALUES | {"layout": "grouped"}
    one = trained(tmp_path / "one", inputs, values, num_processes=1)
    assert_close(one, trained(tmp_path / "two", inputs, values, num_processes=2))


def test_the_size_of_a_forward_pass_changes_rounding_only(tmp_path, inputs, single):
    assert_close(single, trained(tmp_path, inputs, VALUES | {"micro_batch_size": 4}, num_processes=1))


def test_a_mean_of_means_would_be_noticed(tmp_path, inputs, single):
    """The proof that the comparison can fail: another number of rows per step is another training."""
    other = trained(tmp_path, inputs, VALUES | {"global_batch_size_tokens": 64}, num_processes=1)
    with pytest.raises(AssertionError):
        assert_close(single, other)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_training_goes_on_with_another_number_of_processes(tmp_path, inputs, single, before, after):
    assert launch(tmp_path, inputs, VALUES, num_processes=before).returncode == 0
    for step in (6, 8):  # so that it goes on from step 4
        path = tmp_path / "checkpoints" / "training" / f"step-{step:08d}"
        (path / "manifest.json").unlink()
    assert_close(single, trained(tmp_path, inputs, num_processes=after))


def test_sigterm_saves_in_every_process_and_the_same_command_goes_on(tmp_path, inputs, single):
    values = VALUES | {"num_steps": 8, "checkpoint_seconds": 1000.0, "num_evaluations": 0}
    command = [sys.executable, "-m", "tests.equivalence.inputs", str(tmp_path), str(inputs), json.dumps(values)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not any(event.name == "loss" for event in read_events(tmp_path / "events.jsonl")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the training ended before the signal came")
    assert process.returncode == 143, error
    assert "the state is saved" in error
    assert_close(single, trained(tmp_path, inputs, values, num_processes=1))


def test_a_world_of_another_size_than_planned_writes_nothing(tmp_path, inputs):
    script = (
        "import os; os.environ['WORLD_SIZE'] = '2'; os.environ['ACCELERATE_USE_CPU'] = 'true'\n"
        "from pathlib import Path\nfrom pipeline.contract import Context\nfrom pipeline.errors import StageError\n"
        "from stages.common import devices\n"
        f"context = Context(Path({str(tmp_path)!r}), {{}}, num_processes=2)\n"
        "class Alone:\n    num_processes = 1\n    process_index = 0\n"
        "devices.Accelerator = lambda **_: Alone()\n"
        "try:\n    devices.make_accelerator(context)\nexcept StageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Accelerate runs 1 processes, WORLD_SIZE is 2, the plan says 2" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
