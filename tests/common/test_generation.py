"""Sampling: a sample belongs to its prompt and seed alone, and follows the model's distribution."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pipeline.errors import DataError, StageError
from stages.common.generation import generate_texts, generate_tokens

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|user|>"]


def letters() -> PreTrainedTokenizerBase:
    """One token per byte, after three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(SPECIAL + alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[1],
        extra_special_tokens=SPECIAL[2:],
    )


def build(rows: int = 272, scale: float = 8.0) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def draw(prompts: list[str], model: PreTrainedModel | None = None, **settings) -> list[str]:
    values = {"seed": 1, "max_new_tokens": 8} | settings
    return generate_texts(model or build(), letters(), prompts, **values)


def test_a_sample_does_not_depend_on_the_other_prompts_of_the_call():
    prompts = ["a", "a longer prompt", "", "bcd"]
    together = draw(prompts)
    assert together == [draw([prompt])[0] for prompt in prompts]
    assert draw(prompts[::-1]) == together[::-1]
    assert len(set(together)) == 4


def test_equal_prompts_give_unlike_samples_and_the_seed_decides():
    assert len(set(draw(["ab"] * 4, build(scale=1.0)))) == 4
    assert draw(["ab"]) == draw(["ab"]) != draw(["ab"], seed=2)


def test_greedy_sampling_is_what_transformers_generates():
    model, tokenizer = build(), letters()
    prompt = tokenizer("hello", return_tensors="pt").input_ids
    start = torch.tensor([[tokenizer.bos_token_id]])
    settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 1, "eos_token_id": 0}
    ids = torch.cat([start, prompt], 1)
    expected = model.eval().generate(
        ids, attention_mask=torch.ones_like(ids), suppress_tokens=[1, 2, *range(259, 272)], **settings
    )
    drawn = [token for _, token in generate_tokens(model, tokenizer, ["hello"], seed=0, max_new_tokens=6, temperature=0)]
    assert drawn == expected[0, 6:].tolist()[: len(drawn)]
    assert drawn


def test_draws_follow_the_distribution_of_the_model():
    model, tokenizer = build(scale=1.5), letters()
    logits = model.eval()(torch.tensor([[0]])).logits[0, -1].detach().double()
    allowed = [0, *range(3, 259)]
    expected = torch.zeros(272, dtype=torch.float64)
    expected[allowed] = (logits[allowed] / 0.5).softmax(-1)
    drawn = list(generate_tokens(model, tokenizer, [""] * 2000, seed=0, max_new_tokens=1, temperature=0.5))
    counts = np.bincount([token for _, token in drawn], minlength=272)
    counts[0] = 2000 - counts.sum()  # end tokens are not yielded
    spread = np.sqrt(2000 * expected.numpy() * (1 - expected.numpy())) + 1
    assert (np.abs(counts - 2000 * expected.numpy()) < 5 * spread).all()


def test_top_k_keeps_the_k_likeliest_only():
    model, tokenizer = build(scale=1.5), letters()
    drawn = {token for _, token in generate_tokens(model, tokenizer, [""] * 500, seed=0, max_new_tokens=1, top_k=3)}
    logits = model.eval()(torch.tensor([[0]])).logits[0, -1].detach()
    logits[[1, 2, *range(259, 272)]] = -torch.inf
    assert drawn | {0} == set(logits.topk(3).indices.tolist()) | {0}


def test_padding_rows_and_control_tokens_are_never_drawn():
    model, tokenizer = build(), letters()
    with torch.no_grad():
        model.get_input_embeddings().weight[[1, 2, 265]] = 50.0  # tied head: the model would say nothing else
    drawn = list(generate_tokens(model, tokenizer, ["x", "yz"] * 8, seed=0, max_new_tokens=10))
    assert drawn
    assert {token for _, token in drawn} <= set(range(3, 259))


def test_the_end_token_is_not_part_of_the_text():
    model = build()
    final = model.model.norm
    final.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().weight[0] = 1.0
    assert draw(["x", "yz"], model, temperature=0) == ["", ""]


def test_special_token_text_in_a_prompt_is_plain_text():
    assert draw(["<|user|>"])[0] != draw([""])[0]
    with pytest.raises(DataError, match="prompt 0 has 27 tokens"):
        draw(["<|endoftext|>" * 2], max_new_tokens=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"max_new_tokens": 32}, "33 positions, but the model has 32"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(DataError, match=message):
        draw(["a"], **settings)


def test_the_last_position_of_the_model_can_be_used():
    tokens = list(generate_tokens(build(scale=1.0), letters(), ["a"], seed=0, max_new_tokens=31))
    assert 0 < len(tokens) <= 31


def test_a_model_smaller_than_its_tokenizer_is_refused_where_the_prompt_shows_it():
    with pytest.raises(DataError, match="embedding ends at 99"):
        draw(["\u00ff"], build(rows=100))


def test_broken_weights_are_named():
    model = build()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="not finite"):
        draw(["a"], model)


def test_the_mode_of_the_model_is_put_back():
    model = build().train()
    draw(["a"], model)
    assert model.training


def test_no_prompts_give_no_samples():
    assert draw([]) == []
