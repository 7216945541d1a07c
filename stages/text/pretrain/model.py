"""The model as a stock transformers class, its first weights, and its optimizers.

Legend: V vocabulary, D hidden size. First weights (all seeded, drawn on CPU):
- linear layers uniform in ±√(3 / inputs), so that outputs keep the variance of inputs;
- the layers that write into the residual stream start at zero: each block is the identity (nanochat; Zhang et al., Fixup);
- token table and head from the bigram counts of the training tokens, see `bigram_factors`, or from noise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, Qwen3Config

from stages.common.optimizers import Muon, adamw, has_transposed_weights, split_parameters
from stages.common.token_store import TokenStore
from stages.text.pretrain.config import Config
from stages.text.pretrain.shape import MOST_STATISTICS_ROWS, LearningRates, Shape

_RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight", "c_proj.weight")
_MOST_TOKENS = 20_000_000


def build_model(shape: Shape, *, bos_id: int, eos_id: int, pad_id: int | None) -> PreTrainedModel:
    """Return a model of `shape` with SDPA attention, float32, its weights not yet set with care."""
    ids = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    if shape.architecture == "gpt2":
        config = GPT2Config(**_gpt2_sizes(shape), **ids)
    else:
        family = {"qwen3": Qwen3Config, "llama": LlamaConfig}[shape.architecture]
        config = family(**_llama_sizes(shape), **ids)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return model


def _llama_sizes(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.context_length,
        "tie_word_embeddings": shape.tie_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "attention_dropout": 0.0,
    }


def _gpt2_sizes(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab_size,
        "n_embd": shape.hidden_size,
        "n_layer": shape.num_layers,
        "n_head": shape.num_heads,
        "n_inner": shape.intermediate_size,
        "n_positions": shape.context_length,
        "tie_word_embeddings": shape.tie_embeddings,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
    }


@torch.no_grad()
def initialise(model: PreTrainedModel, *, seed: int, store: TokenStore | None, bos_id: int, eos_id: int) -> None:
    """Set the first weights; `store` gives the bigram counts for an untied model (None: noise)."""
    generator = torch.Generator().manual_seed(seed)
    transposed = has_transposed_weights(model)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head is table
    for kind, parameters in split_parameters(model).items():
        for name, parameter in parameters.items():
            if kind == "vector":
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif kind != "hidden":
                scale = 0.001 if kind == "head" else 0.02 if tied or parameter is not table else 1.0
                parameter.normal_(0.0, scale, generator=generator)
            elif name.endswith(_RESIDUAL_WRITERS):
                parameter.zero_()
            else:
                bound = math.sqrt(3 / parameter.shape[0 if transposed else 1])
                parameter.uniform_(-bound, bound, generator=generator)
    if store is not None and not tied and len(table) <= MOST_STATISTICS_ROWS:
        counts = bigram_counts(store, len(table), bos_id=bos_id, eos_id=eos_id)
        embedding, unembedding = bigram_factors(counts, table.shape[1], generator)
        table.copy_(embedding)
        head.copy_(unembedding)


def bigram_counts(store: TokenStore, vocab_size: int, *, bos_id: int, eos_id: int) -> Tensor:
    """Count in the first documents how often one id follows another, bos and eos included; float32 (V, V)."""
    last = int(store.offsets.searchsorted(min(_MOST_TOKENS, store.num_tokens), side="right")) - 1
    offsets = torch.from_numpy(store.offsets[: last + 1].astype("int64"))
    tokens = torch.from_numpy(store.tokens[: int(offsets[-1])].astype("int64"))
    filled = offsets[1:] > offsets[:-1]
    starts, ends = offsets[:-1][filled], offsets[1:][filled] - 1
    inner = torch.ones(len(tokens), dtype=torch.bool)
    inner[ends] = False
    pairs = (tokens * vocab_size).add_(tokens.roll(-1))[inner]
    counts = torch.bincount(pairs, minlength=vocab_size**2)
    counts += torch.bincount(bos_id * vocab_size + tokens[starts], minlength=vocab_size**2)
    counts += torch.bincount(tokens[ends] * vocab_size + eos_id, minlength=vocab_size**2)
    return counts.view(vocab_size, vocab_size).float()


def bigram_factors(counts: Tensor, hidden_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factor bigram statistics into a token table and a head, so that the fresh model predicts like a bigram model.

    The log ratio of p(b|a), backed off to p(b), to p(b) is a (V, V) matrix M (pointwise mutual information, which
    word2vec factors implicitly: Levy and Goldberg 2014). Its best approximation of rank D - 1, weighted towards frequent
    tokens, gives both tables; the last coordinate carries log p(b). Rows of the token table get unit mean square, since
    the final norm divides by it, and a random rotation spreads the components over all coordinates.
    """
    vocab_size, rank = len(counts), min(hidden_size, len(counts)) - 1
    totals = counts.sum(1, keepdim=True)
    unigram = counts.sum(0) + 0.5
    unigram /= unigram.sum()
    backed_off = (counts + 40.0 * unigram) / (totals + 40.0)
    row_weights = ((totals + 1) / (totals + 20)).sqrt()
    column_weights = (unigram * vocab_size).sqrt()
    matrix = (backed_off / unigram).log_() * row_weights * column_weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        left, values, right = torch.svd_lowrank(matrix, q=min(rank + 16, vocab_size), niter=2)
    roots = values[:rank].sqrt()
    rows = left[:, :rank] * roots / row_weights
    rows = torch.cat([rows, rows.square().sum(1).mean().sqrt().expand(vocab_size, 1)], 1)
    norms = rows.square().mean(1, keepdim=True).sqrt()
    rows = rows / norms
    columns = right[:, :rank] * roots / column_weights[:, None] * norms.mean()
    bias = (unigram.log() - unigram.log().mean()) / rows[:, -1].mean()
    rotation = torch.linalg.qr(torch.randn(rank + 1, rank + 1, generator=generator)).Q
    pad = (0, hidden_size - rank - 1)
    embedding = nn.functional.pad(rows @ rotation, pad)
    return embedding, nn.functional.pad(torch.cat([columns, bias[:, None]], 1) @ rotation, pad)


def make_optimizers(model: nn.Module, config: Config, rates: LearningRates) -> list[Optimizer]:
    """Return Muon and AdamW (or AdamW alone) over all parameters of `model`."""
    parts = {kind: list(parameters.values()) for kind, parameters in split_parameters(model).items()}
    groups = [
        {"params": parts["embedding"], "lr": rates.embedding, "weight_decay": 0.0},
        {"params": parts["head"], "lr": rates.head, "weight_decay": 0.0},
        {"params": parts["vector"], "lr": rates.vector, "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = []
    if config.optimizer == "muon":
        muon = Muon(
            parts["hidden"],
            lr=rates.hidden,
            weight_decay=config.weight_decay,
            momentum=config.muon_momentum,
            transposed=has_transposed_weights(model),
        )
        optimizers.append(muon)
    else:
        groups.append({"params": parts["hidden"], "lr": rates.hidden, "weight_decay": config.weight_decay})
    optimizers.append(adamw([group for group in groups if group["params"]], betas=config.adamw_betas))
    return optimizers
