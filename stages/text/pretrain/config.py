"""What the pretrain stage takes: one dial, `depth`, from which the rest follows, and overrides for each part of the rest.

A field that is None follows from the dial; `shape.py` has the rules and says where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Config(StageConfig):
    """Pretrain a causal language model from random weights."""

    produces: ClassVar[str] = "causal_lm"
    inputs: ClassVar[Mapping[str, Input]] = {
        "corpus": Input(kinds=("corpus",), help="documents to learn from, with validation and test splits"),
        "tokenizer": Input(kinds=("tokenizer",), help="turns the documents into token ids"),
    }
    shares_work: ClassVar[bool] = True

    seed: int = 1337
    """Seed of the initial weights, of the order of documents and of samples."""

    architecture: Literal["qwen3", "llama", "gpt2"] = "qwen3"
    """Family of the transformers class: qwen3 (RMSNorm, SwiGLU, rotary, normalised queries and keys), llama, gpt2."""
    depth: Count = 4
    """The dial: number of layers; width, heads, batch, learning rates and horizon follow from it unless set below."""
    hidden_size: Count | None = None
    """Width of the residual stream; None: 32 x depth up to depth 4, 48 x up to 8, then 64 x depth."""
    num_layers: Count | None = None
    """Transformer blocks; None: depth."""
    head_dim: Count | None = None
    """Width of one attention head; None: 64, or 32 when the model is narrower than 128."""
    num_heads: Count | None = None
    """Query heads; None: hidden_size / head_dim."""
    num_kv_heads: Count | None = None
    """Key and value heads, a divisor of num_heads; None: num_heads."""
    intermediate_size: Count | None = None
    """Width inside the feed-forward part; None: 8/3 of hidden_size (gpt2: 4 times), rounded up to a multiple of 64."""
    context_length: Annotated[int, Field(ge=2)] | None = None
    """Tokens in one row, and positions of the model; None: 512 up to depth 8, then 1024."""
    tie_embeddings: bool | None = None
    """Share the token table with the output head; None: below 50 million parameters, unless token statistics fill both."""
    token_statistics_init: bool = True
    """Start the token table and an untied head from the bigram counts of the training tokens instead of from noise."""

    num_steps: Count | None = None
    """Horizon in optimizer updates; set at most one of num_steps, num_tokens, budget_minutes."""
    num_tokens: Count | None = None
    """Horizon in tokens; None with no other horizon: 20 for each parameter."""
    budget_minutes: Rate | None = None
    """Horizon in minutes of wall time from the start of the stage to the last step, turned into steps once by a probe."""

    global_batch_size_tokens: Count | None = None
    """Tokens in one step over all processes, rounded to whole rows; None: follows from depth."""
    micro_batch_size: Count | None = None
    """Rows in one forward pass of one process; None: as many as keep a pass near 4,096 tokens on CPU, 32,768 on GPU.
    With layout grouped a forward pass takes as many documents as fit into that many full rows."""
    layout: Literal["packed", "grouped"] = "packed"
    """packed: documents follow each other in rows of one length; grouped: one document per row, rows of like length together,
    faster on a CPU where documents are short. Both lose no token."""
    isolate_documents: bool = True
    """Keep packed documents from seeing each other, exactly; false is plain causal attention over the row, and faster."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon on hidden matrices and AdamW on the rest; adamw: AdamW on everything."""
    muon_learning_rate: Rate | None = None
    """Learning rate of Muon on hidden matrices; None: follows."""
    adamw_learning_rate: Rate | None = None
    """Learning rate of AdamW on hidden matrices when optimizer is adamw; None: follows from the width."""
    embedding_learning_rate: Rate | None = None
    """Learning rate of AdamW on token and position tables (and a tied head); None: follows."""
    head_learning_rate: Rate | None = None
    """Learning rate of AdamW on an untied output head; None: follows."""
    vector_learning_rate: Rate | None = None
    """Learning rate of AdamW on norms and biases; None: follows."""
    muon_momentum: Share = 0.95
    """Momentum of Muon."""
    adamw_betas: tuple[Share, Share] = (0.8, 0.95)
    """Decay of AdamW's two averages."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of hidden matrices, times the learning rate per step; tables and vectors have none."""
    max_gradient_norm: Rate = 1.0
    """Gradients longer than this are scaled down to it."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps over which the learning rate rises; None: 20, or a tenth of a short training."""
    cooldown_share: Share = 0.5
    """Share of the steps over which the learning rate falls at the end."""
    final_learning_rate_share: Share = 0.0
    """Where the fall would end, as a share of the full learning rate."""

    num_evaluations: Annotated[int, Field(ge=0)] = 4
    """Evaluations and samples during training, evenly spaced."""
    num_evaluation_documents: Count = 200
    """Validation documents scored by each evaluation during training."""
    max_test_documents: Count = 20_000
    """Documents of validation and of test that are scored at the end, the first ones; fewer splits are scored whole."""
    prompts: tuple[str, ...] = ("", "The ", "In 19")
    """Openings that samples continue; an empty one starts from nothing."""
    sample_tokens: Count = 60
    """Tokens of each sample."""
    checkpoint_seconds: Rate = 60.0
    """Wall time between checkpoints, s; also saved before evaluations, at the end and on request."""
    keep_checkpoints: Count = 2
    """How many checkpoints stay on disk while training."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto: whichever of the two is faster here, measured once. Weights stay float32."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model with torch.compile; auto: on GPU only."""

    @model_validator(mode="after")
    def _one_horizon(self) -> Self:
        given = [name for name in ("num_steps", "num_tokens", "budget_minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"set at most one horizon, not {' and '.join(given)}; on the command line null unsets one, "
                f"as in stages.NAME.{given[0]}=null"
            )
        return self

    @model_validator(mode="after")
    def _betas_below_one(self) -> Self:
        if max(self.adamw_betas) >= 1 or self.muon_momentum >= 1:
            raise ValueError("adamw_betas and muon_momentum must be below 1")
        return self
