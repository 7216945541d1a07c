"""Scoring by its definition: every token once, right shift, no effect of batch, padding, chunking or mode."""

import math

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, GPT2Config, LlamaConfig, PreTrainedModel, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pipeline.errors import DataError, StageError
from stages.common import scoring
from stages.common.scoring import Scores, score_documents

EOS = 0
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
CONFIGS = {
    "qwen3": Qwen3Config(vocab_size=50, intermediate_size=64, max_position_embeddings=16, **SMALL),
    "llama": LlamaConfig(vocab_size=50, intermediate_size=64, max_position_embeddings=16, **SMALL),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16),
    "gemma2": Gemma2Config(vocab_size=50, intermediate_size=64, max_position_embeddings=16, final_logit_softcapping=0.5, **SMALL),
}


def build(name: str = "qwen3") -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():  # a fresh model says nearly the same everywhere; make its opinions strong
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


def documents(lengths: tuple[int, ...] = (5, 1, 15, 9, 12)) -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, 50, size=length).tolist() for length in lengths]


def score(model: PreTrainedModel, texts: list[list[int]], *, batch_size: int = 4, context_length: int = 16) -> Scores:
    return score_documents(model, texts, bos_id=EOS, eos_id=EOS, context_length=context_length, batch_size=batch_size)


def by_hand(model: PreTrainedModel, tokens: list[int]) -> np.ndarray:
    stream = torch.tensor([[EOS, *tokens, EOS]])
    log_probs = model.eval()(stream[:, :-1]).logits.double().log_softmax(-1)
    return -log_probs[0, torch.arange(len(tokens) + 1), stream[0, 1:]].detach().numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_token_and_the_end_are_scored_once_given_all_before_them(name):
    model, texts = build(name), documents()
    scores = score(model, texts)
    expected = [by_hand(model, tokens) for tokens in texts]
    np.testing.assert_allclose(scores.nll_nats, [values[:-1].sum() for values in expected], rtol=1e-5)
    np.testing.assert_allclose(scores.eos_nll_nats, [values[-1] for values in expected], rtol=1e-4)
    assert scores.num_tokens.tolist() == [5, 1, 15, 9, 12]


def test_a_model_that_caps_its_logits_is_scored_with_the_cap():
    model = build("gemma2")
    assert not scoring._head_is_last(model.eval(), model.base_model, model.get_output_embeddings())
    assert abs(score(model, documents()).nats_per_token - math.log(50)) < 0.6  # capped at 0.5: nearly uniform


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gemma2"])
def test_neither_batch_size_nor_padding_nor_chunks_change_the_result(name, monkeypatch):
    model, texts = build(name), documents((3, 14, 7, 40, 1, 15, 2, 9) * 3)
    alone = score(model, texts, batch_size=1)
    together = score(model, texts, batch_size=16)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 130)
    chunked = score(model, texts, batch_size=16)
    for other in (together, chunked):
        np.testing.assert_allclose(other.nll_nats, alone.nll_nats, rtol=2e-5)
        np.testing.assert_allclose(other.eos_nll_nats, alone.eos_nll_nats, rtol=2e-4, atol=1e-5)


def test_chunks_bound_how_many_logits_exist_at_one_time(monkeypatch):
    model, seen = build(), []
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 500)
    score(model, documents(), batch_size=5)
    assert max(seen) <= 500 < 47 * 50


@pytest.mark.parametrize("context_length", [1, 2, 3, 7, 8])
def test_a_long_document_is_scored_once_per_token_with_half_a_context_before_it(context_length):
    model, (tokens,) = build(), documents((37,))
    scores = score(model, [tokens], context_length=context_length)
    assert scores.position_count.sum() == scores.num_tokens[0] == 37
    stream = [EOS, *tokens, EOS]
    half = max(1, context_length // 2)
    expected = 0.0
    for target in range(1, 38):
        # The window that holds the target: the first, or the one that ends at the next half-context border.
        stop = context_length + half * max(0, math.ceil((target - context_length) / half))
        stop = min(stop, 38)
        window = torch.tensor([stream[max(0, stop - context_length) : target]])
        expected -= float(model.eval()(window).logits[0, -1].detach().double().log_softmax(-1)[stream[target]])
    assert scores.nll_nats[0] == pytest.approx(expected, rel=1e-5)


def test_loss_by_position_adds_up_to_the_loss_and_leaves_the_end_token_out():
    scores = score(build(), documents((3, 14, 40, 1)))
    assert scores.position_nll_sum.sum() == pytest.approx(scores.nll_nats.sum())
    assert scores.position_count.sum() == scores.num_tokens.sum() == 58
    assert scores.position_count[0] == 4


def test_a_uniform_model_needs_log2_of_its_vocabulary_in_bits_per_token():
    model = build()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    scores = score(model, documents())
    assert scores.nats_per_token == pytest.approx(math.log(50), rel=1e-6)
    assert scores.nats_per_token_with_eos == pytest.approx(math.log(50), rel=1e-6)
    assert scores.bits_per_byte(3 * scores.num_tokens) == pytest.approx(math.log2(50) / 3, rel=1e-6)


def test_empty_documents_are_named_and_change_nothing():
    model = build()
    with_empty = score(model, [[], *documents(), []])
    assert with_empty.skipped == (0, 6)
    assert with_empty.nats_per_token_with_eos == pytest.approx(score(model, documents()).nats_per_token_with_eos, rel=1e-6)
    assert with_empty.nll_nats[0] == with_empty.eos_nll_nats[0] == with_empty.num_tokens[0] == 0


def test_the_mode_of_the_model_is_put_back_and_dropout_is_off():
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=16))
    assert model.config.resid_pdrop > 0
    first = score(model.train(), documents())
    assert model.training
    assert (score(model.train(), documents()).nll_nats == first.nll_nats).all()


def test_a_half_precision_model_is_scored_with_full_precision_logits():
    model = build()
    rounded = score(model.to(torch.bfloat16), documents())
    exact = score(model.float(), documents())  # the same, rounded weights
    assert rounded.nats_per_token == pytest.approx(exact.nats_per_token, rel=0.05)
    assert rounded.nll_nats.dtype == np.float64


def test_progress_ends_at_the_number_of_windows():
    seen = []
    score_documents(
        build(), documents((40, 3)), bos_id=0, eos_id=0, context_length=16, batch_size=2, on_progress=lambda *p: seen.append(p)
    )
    assert seen == [(2, 6), (4, 6), (6, 6)]


@pytest.mark.parametrize(
    ("texts", "context_length", "message"),
    [
        ([[1, 2]], 17, "context_length is 17: it must be from 1 to the model's 16 positions"),
        ([[1, 2]], 0, "context_length is 0"),
        ([[1], [7, 50]], 16, "document 1 has token id 50, but the model's embedding has the rows 0 to 49"),
        ([[1], [-1]], 16, "document 1 has token id -1"),
        ([[], []], 16, "none of the 2 documents has a token"),
        ([], 16, "none of the 0 documents"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(texts, context_length, message):
    with pytest.raises(DataError, match=message):
        score(build(), texts, context_length=context_length)


def test_a_boundary_id_outside_the_embedding_is_refused():
    with pytest.raises(DataError, match="eos_id is 50"):
        score_documents(build(), [[1]], bos_id=0, eos_id=50, context_length=4, batch_size=1)


def test_a_broken_model_is_named_not_averaged():
    model = build()
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(StageError, match="document 0 has a loss that is not finite"):
        score(model, documents())
