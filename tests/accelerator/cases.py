"""What must hold on a device that is not the CPU; `test_accelerator.py` runs this with the simulated one."""

from __future__ import annotations

import json
from importlib import import_module

import pytest
import torch
from safetensors.torch import load_file

from pipeline.contract import Context, StageConfig
from pipeline.errors import Interrupted
from stages.common.images.sums import running_sum
from tests.accelerator import simulated
from tests.equivalence import inputs as text_inputs
from tests.harness import commit, make_context
from tests.image.digits import digits_artifact, toy_artifact
from tests.image.tiny_families import CONFIGS
from tests.text.test_evaluate import QUICK, write_corpus, write_model
from tests.text.test_evaluate import STAGE as EVALUATE
from tests.text.tiny_bases import TINY as FINETUNE
from tests.text.tiny_bases import base_artifact, corpus, tiny_model

STEPS = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"), height=8, width=8)


def ones(device):
    return torch.ones(2, 3).to(device)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ones("sim") + ones("cpu"),
        lambda: torch.cat([ones("sim"), ones("cpu")]),
        lambda: torch.nn.Linear(3, 2)(ones("sim")),
        lambda: ones("sim").numpy(),
        lambda: torch.randn(3, device="sim", generator=torch.Generator()),
    ],
    ids=["a sum", "a join", "a layer", "an array", "a generator"],
)
def test_what_a_gpu_refuses_is_refused(wrong):
    with pytest.raises((RuntimeError, TypeError)):
        wrong()


def test_what_has_no_deterministic_kernel_is_refused_when_that_is_asked_for(deterministic):
    with pytest.raises(RuntimeError, match="deterministic"):
        ones("sim").cumsum(1)
    assert running_sum(ones("sim"), 1).cpu().equal(ones("cpu").cumsum(1))
    assert running_sum(ones("sim"), 0).cpu().equal(ones("cpu").cumsum(0))


def test_the_device_draws_from_a_stream_of_its_own():
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    drawn = torch.rand(3, device="sim")
    assert torch.rand(3).equal(first)
    torch.manual_seed(0)
    assert torch.rand(3, device="sim").equal(drawn)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class StoppedContext(Context):
    """A context whose user asks for a stop in the middle of the training."""

    def progress(self, step, total, **rest):
        super().progress(step, total, **rest)
        if step == STEPS // 2 and rest.get("unit", "step") == "step":
            self._stop_signal = 15


def run(stage, values, directory, inputs, kind=Context):
    """Run a stage with deterministic algorithms; return its artifact."""
    config = values if isinstance(values, StageConfig) else import_module(f"{stage}.config").Config.parse(values, where=stage)
    directory.mkdir(exist_ok=True)
    context = kind(directory, {role: [artifact] for role, artifact in inputs.items()}, deterministic=True)
    if stage.startswith("stages.image"):
        context.resolve("flops_per_step", lambda: 10**9)  # so the budget of `family_of` buys STEPS steps of any family
    import_module(f"{stage}.run").run(config, context)
    return commit(stage, config, context)


def family_of(name, **changes):
    """Return the stage of a family, and a config of STEPS steps."""
    sizes = {"num_samples": 6, "num_likelihood_images": 2, "budget_tflop": (STEPS + 0.5) / 1000}
    if name == "flow_matching":
        sizes |= {"num_likelihood_steps": 2, "num_probes": 1}
    if name == "flow_matching_of_classes":
        sizes |= {"num_class_steps": 1}
    config = CONFIGS[name].model_copy(update=sizes | changes)
    return type(config).__module__.removesuffix(".config"), config


def stopped_and_resumed(stage, values, directory, inputs):
    with pytest.raises(Interrupted):
        run(stage, values, directory, inputs, StoppedContext)
    return run(stage, values, directory, inputs)


def tensors(artifact):
    return {
        f"{path.relative_to(artifact.path)}: {key}": tensor
        for path in sorted(artifact.path.rglob("*.safetensors"))
        if "checkpoints" not in path.parts
        for key, tensor in load_file(path).items()
    }


def assert_same(first, second):
    one, two = tensors(first), tensors(second)
    assert one.keys() == two.keys()
    assert [key for key in one if not one[key].equal(two[key])] == []


@pytest.fixture
def trained_on_device():
    """Fails the test when nothing was trained on the device, or not with deterministic algorithms, as `run` asks for."""
    simulated.RAN.clear()
    yield
    assert any("backward" in operation for operation in simulated.RAN)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("trained_on_device")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_trains_exactly_stopped_or_not_and_in_bfloat16(name, tmp_path, images):
    stage, config = family_of(name)
    whole = run(stage, config, tmp_path / "whole", {"images": images})
    assert_same(whole, stopped_and_resumed(stage, config, tmp_path / "cut", {"images": images}))
    rounded = run(*family_of(name, dtype="bfloat16"), tmp_path / "rounded", {"images": images})
    assert json.loads((rounded.path / "resolved.json").read_text())["dtype"] == "bfloat16"
    assert all(tensor.isfinite().all() for tensor in tensors(rounded).values())
    assert any(not tensor.equal(tensors(rounded)[key]) for key, tensor in tensors(whole).items()), "nothing was rounded"


@pytest.mark.usefixtures("trained_on_device")
def test_a_classifier_that_was_stopped_ends_as_an_uninterrupted_one(tmp_path):
    images = digits_artifact(tmp_path / "images")
    stage, values = "stages.image.classifier", {"num_steps": 25, "batch_size": 64, "num_features": 16, "first_width": 8}
    values |= {"learning_rate": 6e-3, "num_parts": 2}
    whole = run(stage, values, tmp_path / "whole", {"images": images})
    assert_same(whole, stopped_and_resumed(stage, values, tmp_path / "cut", {"images": images}))


@pytest.mark.usefixtures("trained_on_device")
def test_a_pretraining_that_was_stopped_ends_as_an_uninterrupted_one(tmp_path):
    inputs = text_inputs.make_inputs(tmp_path)
    values = text_inputs.TINY | {"num_evaluations": 2, "num_steps": STEPS}
    whole = run(text_inputs.STAGE, values, tmp_path / "whole", inputs)
    assert_same(whole, stopped_and_resumed(text_inputs.STAGE, values, tmp_path / "cut", inputs))


@pytest.mark.usefixtures("trained_on_device")
def test_a_finetuning_that_was_stopped_ends_as_an_uninterrupted_one(tmp_path):
    inputs = {"base": base_artifact(tmp_path / "base", tiny_model()), "corpus": corpus(tmp_path / "corpus")}
    values = FINETUNE | {"num_evaluations": 2, "num_steps": STEPS, "lora_dropout": 0.1}
    whole = run("stages.text.finetune", values, tmp_path / "whole", inputs)
    assert_same(whole, stopped_and_resumed("stages.text.finetune", values, tmp_path / "cut", inputs))
    assert any("native_dropout" in operation for operation in simulated.RAN)


def test_a_model_is_evaluated_on_the_device_as_on_the_cpu(tmp_path):
    values = QUICK | {"num_samples": 2}
    inputs = {"model": write_model(tmp_path / "model"), "corpus": write_corpus(tmp_path / "corpus")}
    found = []
    for device in ("cpu", "sim"):
        simulated.RAN.clear()
        (tmp_path / device).mkdir()
        make_context(tmp_path / device).resolve("device", lambda device=device: device)
        rows = run(EVALUATE, values, tmp_path / device, inputs).record.metrics
        found.append({(row["name"], row.get("split")): row["value"] for row in rows if "second" not in row["name"]})
        assert bool(simulated.RAN) == (device == "sim")
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6, nan_ok=True)
