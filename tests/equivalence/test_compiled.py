"""Compiled = eager within rounding: losses of ten steps within 1e-4 relative."""

from __future__ import annotations

import copy

import pytest
import torch

from stages.common import devices
from stages.common.loss import CausalLmLoss
from stages.common.sharding import blocks_of
from stages.text.pretrain import run
from stages.text.pretrain.config import Config
from stages.text.pretrain.evaluation import Evaluator
from stages.text.pretrain.model import build_model, initialise, make_optimizers
from stages.text.pretrain.shape import learning_rates, shape_of
from tests.equivalence.inputs import STAGE, TINY, make_inputs
from tests.harness import run_stage


def losses(model, config, shape, *, compiled):
    module = CausalLmLoss(model)
    if compiled:
        devices.compile_blocks(module)
    optimizers = make_optimizers(model, config, learning_rates(config, shape))
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(10):
        ids = torch.randint(0, 60, (2, 17), generator=generator)
        positions = torch.cat([torch.arange(9), torch.arange(7)]).expand(2, -1)
        loss = module(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), positions.contiguous(), 1 / 32)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")  # the compiler's own
def test_compiled_training_follows_eager_training():
    reason = devices.why_not_compile(torch.device("cpu"))
    if reason:
        pytest.skip(f"torch.compile does not work here: {reason}")
    config = Config(depth=2, hidden_size=32, head_dim=16, context_length=16)
    shape = shape_of(config, 60)
    model = build_model(shape, bos_id=0, eos_id=1, pad_id=None)
    initialise(model, seed=0, store=None, bos_id=0, eos_id=1)
    eager = losses(copy.deepcopy(model), config, shape, compiled=False)
    assert losses(model, config, shape, compiled=True) == pytest.approx(eager, rel=1e-4)
    assert not [name for name in model.state_dict() if "_orig_mod" in name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")  # the compiler's own
def test_evaluations_and_samples_leave_the_compiler_to_the_training(tmp_path, monkeypatch):
    calls, elsewhere, steps = [], [], 3

    def counting(graph, inputs):
        return lambda *args: calls.append(1) or graph.forward(*args)

    def watched(original):
        def call(*args):
            before = len(calls)
            found = original(*args)
            elsewhere.append(len(calls) - before)
            return found

        return call

    monkeypatch.setattr(devices, "decide_compile", lambda wanted, device: (True, "on"))
    monkeypatch.setattr(devices, "compile_blocks", lambda module: [b.compile(backend=counting) for b in blocks_of(module)])
    for owner, name in ((Evaluator, "score"), (Evaluator, "samples"), (run, "save_model")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    values = TINY | {"num_steps": steps, "num_evaluations": 2, "prompts": ["the "], "dtype": "float32"}
    run_stage(STAGE, tmp_path / "artifact", values, make_inputs(tmp_path))
    assert len(elsewhere) >= 6
    assert not any(elsewhere)
    assert len(calls) >= steps * TINY["depth"]
    assert len(calls) % steps == 0, "a step ran without the compiler"
