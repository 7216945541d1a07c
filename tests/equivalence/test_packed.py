"""Packed = unpacked: rows of several documents give the gradients that the documents give one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.common.loss import CausalLmLoss
from stages.common.packing import IGNORED, PackedRows
from stages.common.token_store import write_token_store
from stages.text.pretrain.config import Config
from stages.text.pretrain.model import build_model
from stages.text.pretrain.shape import shape_of


@pytest.fixture
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 60, size=n).tolist() for n in (3, 11, 5, 2, 9)]


def gradients(model, batches):
    model.zero_grad()
    module = CausalLmLoss(model)
    loss = sum(module(*batch, 1 / 35) for batch in batches)
    loss.backward()
    return float(loss.detach()), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def alone(document):
    return torch.tensor([[0, *document]]), torch.tensor([[*document, 1]]), None


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("isolate", [True, False])
def test_the_gradient_of_packed_documents_is_that_of_separate_ones_if_and_only_if_isolated(
    tmp_path, documents, architecture, isolate
):
    torch.manual_seed(0)
    config = Config(architecture=architecture, depth=2, hidden_size=32, head_dim=16, context_length=64)
    model = build_model(shape_of(config, 60), bos_id=0, eos_id=1, pad_id=None)
    store = write_token_store(tmp_path / "s", [documents], vocab_size=60)
    rows = PackedRows(store, context_length=64, seed=0, bos_id=0, eos_id=1, isolate_documents=isolate)
    batch = rows.batch([0])
    assert int((batch.labels != IGNORED).sum()) == 35
    packed = gradients(model, [(batch.input_ids, batch.labels, batch.position_ids)])
    separate = gradients(model, [alone(document) for document in documents])
    worst = max(
        float((packed[1][name] - grad).abs().max() / grad.abs().max().clamp(min=1e-6)) for name, grad in separate[1].items()
    )
    assert (abs(packed[0] - separate[0]) < 1e-5) is isolate
    assert (worst < 1e-3) is isolate
