"""Sharded over two processes (FSDP) = one process, within rounding; its checkpoints are whole and fit any training."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.contract import Context, read_events
from pipeline.errors import StageError
from stages.common import devices
from tests.equivalence.inputs import TINY, launch, make_inputs
from tests.equivalence.test_processes import assert_close, results

KEY_BIAS = "c_attn.bias"
"""Attention does not depend on a bias of the keys: its gradient is rounding alone, which AdamW blows up."""

pytestmark = pytest.mark.slow

VALUES = TINY | {"num_steps": 8, "num_evaluations": 4, "keep_checkpoints": 4}
FILE = Path("configs/launch/fsdp_8gpu.yaml").resolve()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    make_inputs(root)
    return root


def trained(directory, inputs, values=VALUES, *, sharded):
    done = launch(directory, inputs, values, num_processes=2 if sharded else 1, file=FILE if sharded else None)
    assert done.returncode == 0, done.stderr[-3000:]
    return results(directory)


@pytest.fixture(scope="module")
def single(tmp_path_factory, inputs):
    directory = tmp_path_factory.mktemp("single") / "run"
    return directory, trained(directory, inputs, sharded=False)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, inputs):
    directory = tmp_path_factory.mktemp("sharded") / "run"
    return directory, trained(directory, inputs, sharded=True)


def norms(directory):
    return [event.value for event in read_events(directory / "events.jsonl") if event.name == "gradient_norm"]


def test_two_sharded_processes_equal_one(single, sharded):
    assert_close(single[1], sharded[1])
    assert norms(sharded[0]) == pytest.approx(norms(single[0]), rel=1e-4)


def test_a_checkpoint_holds_whole_tensors(single, sharded):
    saved = load_file(sharded[0] / "checkpoints" / "training" / "step-00000008" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in saved.items()} == {name: tensor.shape for name, tensor in single[1][1].items()}


@pytest.mark.parametrize(
    "values", [{"layout": "grouped"}, {"architecture": "gpt2"}, {"tie_embeddings": True, "token_statistics_init": False}]
)
def test_other_shapes_of_training_are_sharded_as_well(tmp_path, inputs, values):
    found = [trained(tmp_path / str(way), inputs, VALUES | values, sharded=way) for way in (False, True)]
    assert_close(*[(losses, {name: one for name, one in weights.items() if KEY_BIAS not in name}) for losses, weights in found])


@pytest.mark.parametrize("before", [True, False])
def test_a_training_goes_on_sharded_or_not(tmp_path, inputs, single, before):
    trained(tmp_path, inputs, sharded=before)
    for step in (6, 8):  # so that it goes on from step 4
        (tmp_path / "checkpoints" / "training" / f"step-{step:08d}" / "manifest.json").unlink()
    assert_close(single[1], trained(tmp_path, inputs, sharded=not before))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fsdp_version: 2", "fsdp_version: 1", "fsdp_version is 1"),
        ("fsdp_version: 2", "fsdp_version: 2\n  fsdp_activation_checkpointing: true", "fsdp_activation_checkpointing is true"),
        ("fsdp_version: 2", "fsdp_version: 2\n  fsdp_offload_params: true", "fsdp_offload_params is true"),
    ],
)
def test_what_the_loop_does_not_do_is_refused(tmp_path, inputs, old, new, message):
    file = tmp_path / "launch.yaml"
    file.write_text(FILE.read_text().replace(old, new))
    done = launch(tmp_path / "run", inputs, VALUES, num_processes=2, file=file)
    assert done.returncode != 0
    assert message in done.stderr


def test_sharding_is_refused_where_a_stage_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(StageError, match="trains data-parallel only"):
        devices.make_accelerator(Context(tmp_path, {}))
