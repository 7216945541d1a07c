"""Sampling from a causal LM, so that one prompt's sample depends on nothing but that prompt, the seed and the model.

Prompts of one call run as one batch without padding and without a mask: the batch reads the shortest prompt's length at
once, then goes on token by token, and a row that still has prompt left is fed its prompt. So positions are exact in every
architecture, and each row draws from its own generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import DataError, StageError
from stages.common.causal_lm import max_positions, vocab_rows
from stages.common.encoding import boundary_ids, encode_texts, special_ids


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> list[str]:
    """Return a continuation of each prompt (without the prompt), which ends at the end token or at `max_new_tokens`.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        prompts: may be empty strings: then the model starts a document of its own. Equal prompts give unlike samples.
        seed: the same seed gives the same sample for a prompt, whichever other prompts are in the call.
        max_new_tokens: bound on the new tokens.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens only; None for all.

    Raises:
        DataError: prompt and new tokens do not fit the model's positions, or a setting is out of range.
        StageError: the model gave logits that are not finite.
    """
    rows: list[list[int]] = [[] for _ in prompts]
    for row, token in generate_tokens(
        model, tokenizer, prompts, seed=seed, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k
    ):
        rows[row].append(token)
    return [tokenizer.decode(tokens, clean_up_tokenization_spaces=False) for tokens in rows]


def generate_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield (index of the prompt, new token) as they are drawn, end tokens left out; see `generate_texts`."""
    if not prompts:
        return
    _check_settings(max_new_tokens, temperature, top_k)
    bos_id, eos_id = boundary_ids(tokenizer)
    encoded = [[bos_id, *tokens] for tokens in encode_texts(tokenizer, prompts)]
    _check_lengths(model, encoded, max_new_tokens)
    was_training = model.training
    model.eval()
    try:
        yield from _run(
            model,
            encoded,
            _generators(encoded, seed),
            allowed=_allowed(model, tokenizer),
            eos_id=eos_id,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
        )
    finally:
        model.train(was_training)


def _run(
    model: PreTrainedModel,
    prompts: list[list[int]],
    generators: list[np.random.Generator],
    *,
    allowed: np.ndarray,
    eos_id: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
) -> Iterator[tuple[int, int]]:
    ends = [len(prompt) + max_new_tokens for prompt in prompts]
    position = min(len(prompt) for prompt in prompts)
    columns = torch.tensor([prompt[:position] for prompt in prompts])
    cache, finished = None, [False] * len(prompts)
    while True:
        with torch.no_grad():
            output = model(input_ids=columns.to(model.device), cache=cache, use_cache=True, logits_to_keep=1)
        cache = output.cache
        logits = output.logits[:, -1].double().cpu().numpy()
        column = []
        for row, prompt in enumerate(prompts):
            if position < len(prompt):
                column.append(prompt[position])
                continue
            token = eos_id if finished[row] else _draw(logits[row], generators[row], allowed, temperature, top_k)
            if token != eos_id:
                yield row, token
            finished[row] = token == eos_id or position + 1 >= ends[row]
            column.append(token)
        if all(finished):
            return
        columns, position = torch.tensor(column)[:, None], position + 1


def _draw(logits: np.ndarray, generator: np.random.Generator, allowed: np.ndarray, temperature: float, top_k: int | None) -> int:
    if not np.isfinite(logits[allowed]).all():
        raise StageError("the model gave logits that are not finite; its weights are broken")
    logits = np.where(allowed, logits, -np.inf)
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits = np.where(logits >= np.partition(logits, -top_k)[-top_k], logits, -np.inf)
    weights = np.exp((logits - logits.max()) / temperature)
    # By the inverse of the distribution function: one uniform number a token, so a change in the last bit of a logit
    # (another batch size) almost never changes the draw.
    cumulative = weights.cumsum()
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))


def _generators(prompts: list[list[int]], seed: int) -> list[np.random.Generator]:
    # Seeded by what the prompt says, and which of its repetitions it is: not by its place in the batch.
    seen: Counter[tuple[int, ...]] = Counter()
    generators = []
    for prompt in prompts:
        generators.append(np.random.default_rng([seed, seen[tuple(prompt)], *prompt]))
        seen[tuple(prompt)] += 1
    return generators


def _allowed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    # Rows that only pad the embedding, and control tokens other than the end token, are never drawn.
    allowed = np.zeros(vocab_rows(model), dtype=bool)
    allowed[: len(tokenizer)] = True
    allowed[sorted(index for index in special_ids(tokenizer) if index < len(allowed))] = False
    allowed[tokenizer.eos_token_id] = True
    return allowed


def _check_settings(max_new_tokens: int, temperature: float, top_k: int | None) -> None:
    if max_new_tokens < 1:
        raise DataError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise DataError(f"temperature is {temperature}; it must be 0 (the likeliest token) or above")
    if top_k is not None and top_k < 1:
        raise DataError(f"top_k is {top_k}; it must be at least 1, or left out")


def _check_lengths(model: PreTrainedModel, prompts: list[list[int]], max_new_tokens: int) -> None:
    positions, rows = max_positions(model), vocab_rows(model)
    for index, prompt in enumerate(prompts):
        # The last new token is drawn but never read, so it needs no position of its own.
        needed = len(prompt) + max_new_tokens - 1
        if positions is not None and needed > positions:
            raise DataError(
                f"prompt {index} has {len(prompt)} tokens (with the start token); with {max_new_tokens} new tokens that is "
                f"{needed} positions, but the model has {positions}: shorten the prompt or max_new_tokens"
            )
        if max(prompt) >= rows:
            raise DataError(f"prompt {index} has token id {max(prompt)}, but the model's embedding ends at {rows - 1}")
