"""The chunked loss is cross-entropy: same value, same gradients, weighted by tokens."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from stages.common.loss import CausalLmLoss, nll_sum


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    labels = torch.randint(0, 50, (3, 7))
    labels[0, :3] = -100
    return torch.randn(3, 7, 8), torch.randn(50, 8), labels


def gradients(loss_of, hidden, weight, labels):
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = loss_of(hidden, weight, labels)
    loss.backward()
    return loss.detach(), hidden.grad, weight.grad


def reference(hidden, weight, labels):
    return F.cross_entropy((hidden @ weight.t()).flatten(0, 1), labels.flatten(), reduction="sum") / 18


@pytest.mark.parametrize("chunk", [1, 4, 1000, None])
def test_value_and_gradients_are_those_of_cross_entropy(tensors, chunk):
    ours = gradients(lambda h, w, y: nll_sum(h, w, y, scale=1 / 18, chunk=chunk), *tensors)
    for mine, theirs in zip(ours, gradients(reference, *tensors), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_large_logits_stay_finite(tensors):
    hidden, weight, labels = tensors
    loss, *grads = gradients(lambda h, w, y: nll_sum(h * 1e4, w, y), hidden, weight, labels)
    assert all(torch.isfinite(value).all() for value in (loss, *grads))


def test_a_frozen_head_gets_no_gradient(tensors):
    hidden, weight, labels = tensors
    hidden = hidden.requires_grad_()
    nll_sum(hidden, weight, labels).backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_without_gradients_the_value_is_the_same(tensors):
    with torch.no_grad():
        value = nll_sum(*tensors, scale=1 / 18)
    torch.testing.assert_close(value, reference(*tensors))


def test_the_sum_over_micro_batches_is_the_loss_of_all_tokens_not_a_mean_of_means(tensors):
    hidden, weight, labels = tensors
    parts = [nll_sum(hidden[i : i + 1], weight, labels[i : i + 1], scale=1 / 18) for i in range(3)]
    torch.testing.assert_close(sum(parts), reference(hidden, weight, labels))
    means = torch.stack([F.cross_entropy(hidden[i] @ weight.t(), labels[i]) for i in range(3)])
    assert abs(float(means.mean() - reference(hidden, weight, labels))) > 1e-3


def test_bfloat16_autocast_stays_near_float32(tensors):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, hidden, weight = gradients(lambda h, w, y: nll_sum(h, w, y, scale=1 / 18), *tensors)
    exact = gradients(reference, *tensors)
    assert (loss.dtype, hidden.dtype, weight.dtype) == (torch.float32,) * 3
    for mine, theirs in zip((loss, hidden, weight), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("tied", [True, False])
def test_the_module_gives_the_loss_and_gradients_of_the_model(tied):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, intermediate_size=24, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    ids, labels = torch.randint(0, 50, (2, 6)), torch.randint(0, 50, (2, 6))
    loss = CausalLmLoss(model)(ids, labels, None, 1 / 12)
    loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), labels.flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)
