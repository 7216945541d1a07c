"""Muon orthogonalises and agrees with torch's; parameters are split by name; state survives a round trip."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from pipeline.errors import StageError
from stages.common.optimizers import (
    Muon,
    adamw,
    has_transposed_weights,
    load_optimizer_tensors,
    optimizer_tensors,
    orthogonalize,
    parameter_names,
    split_parameters,
)

SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
QWEN3 = Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=16, intermediate_size=48)
LLAMA = LlamaConfig(**SHAPE, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True)
GPT2 = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40)])
def test_singular_values_end_near_one_and_directions_stay(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-3, 1.0, 1e3])[: shape[0], None, None]
    result = orthogonalize(matrices, num_iterations=10)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inside = torch.einsum("nri,nrc,njc->nij", u, result, vh)
    off_diagonal = inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-3


def weights(*shapes):
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


def train(optimizer, params, steps=3):
    torch.manual_seed(2)
    for _ in range(steps):
        for parameter in params:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_muon_is_torchs_muon_up_to_its_bfloat16():
    shapes = [(16, 16), (24, 8), (8, 24), (16, 16)]
    ours, theirs = weights(*shapes), weights(*shapes)
    start = copy.deepcopy(ours)
    train(Muon(ours, lr=0.1, weight_decay=0.2, momentum=0.9), ours)
    train(torch.optim.Muon(theirs, lr=0.1, weight_decay=0.2, momentum=0.9), theirs)
    for mine, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert (mine - other).norm() < 0.02 * moved
        assert (mine - before).norm() > 0.9 * moved


def test_transposed_storage_gets_the_transposed_update():
    (linear,), (conv,) = weights((24, 8)), weights((24, 8))
    conv = torch.nn.Parameter(conv.detach().t().clone())
    grad = torch.randn(24, 8)
    linear.grad, conv.grad = grad, grad.t().clone()
    Muon([linear], lr=0.1, weight_decay=0.1).step()
    Muon([conv], lr=0.1, weight_decay=0.1, transposed=True).step()
    torch.testing.assert_close(linear, torch.nn.Parameter(conv.t()))


def test_weight_decay_shrinks_what_gets_no_gradient_beside_it():
    first, second = weights((8, 8), (8, 8))
    before = second.detach().clone()
    first.grad, second.grad = torch.randn(8, 8), torch.zeros(8, 8)
    Muon([first, second], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(second.detach(), before * 0.95)


def test_muon_refuses_vectors():
    with pytest.raises(StageError, match="belongs to AdamW"):
        Muon(weights((8,)), lr=0.1, weight_decay=0.0)


@pytest.mark.parametrize(
    ("config", "embeddings", "heads", "transposed"),
    [
        (QWEN3, {"model.embed_tokens.weight"}, {"lm_head.weight"}, False),
        (LLAMA, {"model.embed_tokens.weight"}, set(), False),
        (GPT2, {"transformer.wte.weight", "transformer.wpe.weight"}, set(), True),
    ],
)
def test_hidden_matrices_are_told_from_tables_by_name(config, embeddings, heads, transposed):
    model = AutoModelForCausalLM.from_config(config)
    parts = split_parameters(model)
    assert (set(parts["embedding"]), set(parts["head"])) == (embeddings, heads)
    assert all(parameter.ndim == 1 for parameter in parts["vector"].values())
    assert all(".layers." in name or ".h." in name for name in parts["hidden"])
    assert sum(len(part) for part in parts.values()) == len(list(model.parameters()))
    assert has_transposed_weights(model) is transposed


def test_frozen_parameters_are_left_out():
    model = AutoModelForCausalLM.from_config(QWEN3)
    model.get_input_embeddings().requires_grad_(False)
    assert split_parameters(model)["embedding"] == {}


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.wide, self.tall = torch.nn.Linear(12, 4), torch.nn.Linear(4, 12)

    def optimizers(self):
        matrices, vectors = [self.wide.weight, self.tall.weight], [self.wide.bias, self.tall.bias]
        groups = [{"params": vectors, "lr": 0.01, "weight_decay": 0.0}]
        return [Muon(matrices, lr=0.02, weight_decay=0.1), adamw(groups, betas=(0.8, 0.95))]

    def train_steps(self, optimizers, seed, steps=2):
        torch.manual_seed(seed)
        for _ in range(steps):
            self.zero_grad()
            self.tall(self.wide(torch.randn(5, 12))).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()


def test_restored_optimizers_go_on_bit_for_bit():
    toy = Toy()
    optimizers = toy.optimizers()
    toy.train_steps(optimizers, seed=4)
    saved = {name: value.clone() for name, value in optimizer_tensors(optimizers, parameter_names(toy)).items()}
    restored = copy.deepcopy(toy)
    fresh = restored.optimizers()
    load_optimizer_tensors(fresh, parameter_names(restored), saved)
    toy.train_steps(optimizers, seed=5)
    restored.train_steps(fresh, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(toy.parameters(), restored.parameters(), strict=True))


def test_missing_or_surplus_state_is_refused():
    toy = Toy()
    optimizers = toy.optimizers()
    toy.train_steps(optimizers, seed=4)
    saved = optimizer_tensors(optimizers, parameter_names(toy))
    lacking = {name: value for name, value in saved.items() if not name.startswith("tall.bias.")}
    with pytest.raises(StageError, match=r"no optimizer state for tall\.bias"):
        load_optimizer_tensors(toy.optimizers(), parameter_names(toy), lacking)
    with pytest.raises(StageError, match="unknown parameters: stray"):
        load_optimizer_tensors(toy.optimizers(), parameter_names(toy), saved | {"stray.exp_avg": torch.ones(1)})
