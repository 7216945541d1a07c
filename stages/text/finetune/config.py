"""What the finetune stage takes: a base, a text, the shape of the adapter, and how long to train."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.contract import HubRepo, Input, LocalFiles, Source, StageConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class Config(StageConfig):
    """Fine-tune a causal language model on another text with LoRA; the base stays as it is."""

    produces: ClassVar[str] = "causal_lm"
    inputs: ClassVar[Mapping[str, Input]] = {
        "base": Input(kinds=("causal_lm",), help="model to start from, unless `base` names one elsewhere", optional=True),
        "corpus": Input(kinds=("corpus",), help="text of the new style, with validation and test splits"),
        "old_corpus": Input(kinds=("corpus",), help="text that the base was made for, to measure forgetting", optional=True),
    }
    locations: ClassVar[frozenset[str]] = frozenset({"base"})
    shares_work: ClassVar[bool] = True

    seed: int = 1337
    """Seed of the adapter's initial weights, of the order of documents, of samples and of intervals."""

    base: str | None = None
    """Folder of a saved model, or `hub:owner/name@revision`; null when the recipe's `needs` names the base."""

    r: Count = 16
    """Rank of the learned difference of each weight."""
    lora_alpha: Rate = 32.0
    """The difference is scaled by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a layer's inputs that its adapter does not see in training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: all-linear (every linear layer but the head), or last parts of module names."""

    num_steps: Count | None = None
    """Horizon in optimizer updates; set at most one of num_steps, num_epochs, budget_minutes."""
    num_epochs: Rate | None = None
    """Horizon in passes over the training split; with no other horizon 1."""
    budget_minutes: Rate | None = None
    """Horizon in minutes of training alone (not start, evaluation, samples), turned into steps once by a probe."""

    learning_rate: Rate | None = None
    """Full learning rate of AdamW on the adapter; null: 1 / the width of the base, at most 0.005."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of the adapter, times the learning rate per step."""
    adamw_betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay of AdamW's two averages."""
    max_gradient_norm: Rate = 1.0
    """Gradients longer than this are scaled down to it."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps over which the learning rate rises; null: 10, or a tenth of a short training."""
    cooldown_share: Share = 0.5
    """Share of the steps over which the learning rate falls to zero at the end."""

    context_length: Annotated[int, Field(ge=2)] | None = None
    """Tokens in one row; null: the positions of the base, at most 512."""
    global_batch_size_tokens: Count = 1024
    """Tokens in one step over all processes, rounded to whole rows."""
    micro_batch_size: Count | None = None
    """Rows in one forward pass of one process; null: as many as keep a pass near 4,096 tokens on CPU, 32,768 on GPU."""
    isolate_documents: bool = True
    """Keep packed documents from seeing each other, exactly."""

    num_evaluations: Annotated[int, Field(ge=0)] = 4
    """Evaluations on validation documents during training, evenly spaced."""
    num_validation_documents: Count = 50
    """Validation documents scored by each evaluation during training."""
    max_test_tokens: Count | None = None
    """Score whole test documents, drawn by the seed, up to about this many tokens of each corpus; null: all."""
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("The king", "What is", "She was", "In the city of")
    """Openings that base and fine-tuned model continue side by side."""
    sample_tokens: Count = 100
    """Tokens of each sample."""
    checkpoint_seconds: Rate = 60.0
    """Wall time between checkpoints of adapter and optimizer, s."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products in training; auto: whichever is faster here, measured once. Weights stay float32."""

    @field_validator("base")
    @classmethod
    def _known_form(cls, base: str | None) -> str | None:
        if base is not None and base.startswith("hub:") and not _HUB.fullmatch(base):
            raise ValueError("a model on the Hub is written hub:owner/name or hub:owner/name@revision")
        return base

    @model_validator(mode="after")
    def _one_horizon(self) -> Self:
        given = [name for name in ("num_steps", "num_epochs", "budget_minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"set at most one horizon, not {' and '.join(given)}; on the command line null unsets one, "
                f"as in stages.NAME.{given[0]}=null"
            )
        return self

    @model_validator(mode="after")
    def _betas_below_one(self) -> Self:
        if max(self.adamw_betas) >= 1:
            raise ValueError("adamw_betas must be below 1")
        return self

    @property
    def hub_base(self) -> HubRepo | None:
        """The Hub repository that `base` names, if it names one."""
        match = _HUB.fullmatch(self.base or "")
        return HubRepo(match["repo"], match["revision"] or "main") if match else None

    def sources(self) -> list[Source]:
        """Return the base, when it does not come through `needs`."""
        if self.base is None:
            return []
        return [self.hub_base or LocalFiles((self.base,), named=True)]
