"""What follows from the dial: from `depth` and the vocabulary to every number of the model and its training.

Rules of thumb, each a default that the config can override:
- width 64 x depth from depth 9 on, as in nanochat: depth 12 is the shape of GPT-2 small (768 wide, 12 heads). Smaller
  models are meant for minutes on a CPU, where narrow ones that take more steps were measured to win.
- batch: 2,048 tokens at depth 4, 262,144 at depth 12, a power of two between, for the same reason.
- learning rates: Muon's does not depend on the width (its update has unit spectral norm); AdamW's on tables falls with
  the square root of the width, as in nanochat.
- horizon: 20 tokens per parameter (Hoffmann et al., arXiv 2203.15556).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pipeline.errors import StageError
from stages.text.pretrain.config import Config

TIED_BELOW = 50_000_000
"""Below this many parameters the token table would dominate an untied model."""

MOST_STATISTICS_ROWS = 16_384
"""Largest vocabulary whose table of bigram counts (1 GiB at this size) is built to fill token table and head."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model."""

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    context_length: int
    tie_embeddings: bool

    @property
    def num_block_parameters(self) -> int:
        """Parameters of the matrices in all blocks."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        matrices = 2 if self.architecture == "gpt2" else 3
        return self.num_layers * (attention + matrices * self.hidden_size * self.intermediate_size)

    @property
    def num_parameters(self) -> int:
        """Parameters of all matrices: blocks, token table and head (norms and positions are left out)."""
        return self.num_block_parameters + self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token: 6N + 12·layers·heads·head_dim·context.

        N counts parameters that are multiplied with: blocks and head, not the lookup of the token table. The second
        part is attention without regard to the causal half (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B).
        """
        multiplied = self.num_block_parameters + self.vocab_size * self.hidden_size
        return 6 * multiplied + 12 * self.num_layers * self.num_heads * self.head_dim * self.context_length


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Full learning rates by kind of parameter."""

    hidden: float
    embedding: float
    head: float
    vector: float


def shape_of(config: Config, tokenizer_size: int) -> Shape:
    """Return the sizes that follow from `config`; the vocabulary is rounded up to a multiple of 64 rows.

    Raises:
        StageError: sizes do not fit together.
    """
    aspect = 32 if config.depth <= 4 else 48 if config.depth <= 8 else 64
    hidden = config.hidden_size or _round_up(aspect * config.depth, 64)
    head_dim = config.head_dim or (64 if hidden >= 128 else 32 if hidden >= 32 else hidden)
    heads = config.num_heads or max(1, hidden // head_dim)
    kv_heads = config.num_kv_heads or heads
    if heads % kv_heads:
        raise StageError(f"num_heads is {heads} and num_kv_heads {kv_heads}: the second must divide the first")
    if config.architecture == "gpt2" and (heads * head_dim != hidden or kv_heads != heads):
        raise StageError(f"gpt2 needs num_heads x head_dim = hidden_size and no fewer kv heads, not {heads} x {head_dim}")
    if config.architecture != "gpt2" and head_dim % 2:
        raise StageError(f"head_dim is {head_dim}: rotary positions need an even number")
    inner = config.intermediate_size or _round_up(4 * hidden if config.architecture == "gpt2" else -(-8 * hidden // 3), 64)
    tied = Shape(
        architecture=config.architecture,
        vocab_size=_round_up(tokenizer_size, 64),
        hidden_size=hidden,
        num_layers=config.num_layers or config.depth,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=inner,
        context_length=config.context_length or (512 if config.depth <= 8 else 1024),
        tie_embeddings=True,
    )
    statistics = config.token_statistics_init and tied.vocab_size <= MOST_STATISTICS_ROWS
    small = tied.num_parameters < TIED_BELOW and not statistics
    tie = small if config.tie_embeddings is None else config.tie_embeddings
    return replace(tied, tie_embeddings=tie)


def learning_rates(config: Config, shape: Shape) -> LearningRates:
    """Return the full learning rates."""
    width = (shape.hidden_size / 128) ** -0.5
    hidden = config.muon_learning_rate if config.optimizer == "muon" else config.adamw_learning_rate
    return LearningRates(
        hidden=hidden or (0.02 if config.optimizer == "muon" else 0.003 * width),
        embedding=config.embedding_learning_rate or 0.02 * width,
        head=config.head_learning_rate or 0.006 * width,
        vector=config.vector_learning_rate or 0.006,
    )


def rows_per_step(config: Config, shape: Shape) -> int:
    """Return the rows of one step over all processes."""
    exponent = 11 + round(4.416 * math.log2(config.depth / 4))  # 2^11 tokens at depth 4, 2^18 at depth 12
    tokens = config.global_batch_size_tokens or 2 ** min(19, max(11, exponent))
    return max(1, round(tokens / shape.context_length))


def micro_batch_size(config: Config, shape: Shape, *, rows: int, num_processes: int, on_gpu: bool) -> int:
    """Return the rows of one forward pass: what was set, or the largest divisor of a process's share that fits.

    With layout grouped it may not depend on the number of processes, because it shapes the groups.

    Raises:
        StageError: the rows of a step cannot be shared by the processes.
    """
    if config.micro_batch_size:
        return config.micro_batch_size
    if config.layout == "grouped":
        num_processes = 1
    if rows % num_processes:
        raise StageError(
            f"a step of {rows} rows ({rows * shape.context_length} tokens) cannot be shared by {num_processes} processes; "
            f"set global_batch_size_tokens to a multiple of {num_processes * shape.context_length}"
        )
    share = rows // num_processes
    most = max(1, (32_768 if on_gpu else 4_096) // shape.context_length)
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= max(1, most))


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How a step is cut up.

    Attributes:
        rows_per_step: what the plan counts as rows in one step: rows of the packed layout, or groups.
        micro_batch_size: of these, how many one process takes in one forward pass.
        group_tokens: positions of a group (grouped layout), or of a forward pass.
        positions_per_step: positions of a step, padding included.
    """

    rows_per_step: int
    micro_batch_size: int
    group_tokens: int
    positions_per_step: int


def batching(config: Config, shape: Shape, *, num_processes: int, on_gpu: bool) -> Batching:
    """Return how a step is cut up; a group counts as one row, and a forward pass of the grouped layout is one group.

    Raises:
        StageError: the rows of a step cannot be shared out evenly.
    """
    rows = rows_per_step(config, shape)
    micro = micro_batch_size(config, shape, rows=rows, num_processes=num_processes, on_gpu=on_gpu)
    if config.layout == "grouped" and rows % micro:
        raise StageError(f"micro_batch_size is {micro}: with layout grouped it must divide the {rows} rows of a step")
    grouped = config.layout == "grouped"
    if grouped and rows // micro % num_processes:
        most = max((size for size in range(1, micro + 1) if rows % (size * num_processes) == 0), default=0)
        cure = f"set micro_batch_size to {most}" if most else "set global_batch_size_tokens to a multiple that can be shared"
        raise StageError(
            f"with layout grouped a step is {rows // micro} forward passes of {micro} rows, which cannot be shared by "
            f"{num_processes} processes; {cure} (it shapes the groups, so it makes another training), or layout: packed"
        )
    return Batching(
        rows_per_step=rows // micro if grouped else rows,
        micro_batch_size=1 if grouped else micro,
        group_tokens=micro * shape.context_length,
        positions_per_step=rows * shape.context_length,
    )


def warmup_and_cooldown(config: Config, num_steps: int) -> tuple[int, int]:
    """Return the steps of warm-up and of cool-down."""
    warmup = min(20, num_steps // 10) if config.warmup_steps is None else config.warmup_steps
    return warmup, min(round(config.cooldown_share * num_steps), max(0, num_steps - warmup))


def evaluation_steps(config: Config, num_steps: int) -> frozenset[int]:
    """Return after which steps to evaluate: evenly spaced, the start included, the end left to the closing evaluation."""
    return frozenset(num_steps * index // config.num_evaluations for index in range(config.num_evaluations))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
