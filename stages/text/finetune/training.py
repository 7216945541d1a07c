"""What is trained, over how many steps, and with which loss; the loop itself is `stages.common.training`."""

from __future__ import annotations

from dataclasses import replace

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.contract import Context
from stages.common.causal_lm import max_positions
from stages.common.devices import resolve
from stages.common.loss import CausalLmLoss
from stages.common.packing import IGNORED, PackedRows
from stages.common.training import Training, TrainingPlan
from stages.text.finetune.config import Config

_MOST_CONTEXT = 512
_MOST_LEARNING_RATE = 5e-3
_WARMUP_STEPS = 10
_TOKENS_PER_PASS = {"cpu": 4096, "gpu": 32_768}


class LogitsLoss(nn.Module):
    """The loss by way of the model's own logits: slower than `CausalLmLoss`, right for every causal LM.

    Needed where something lies between the hidden states and the logits: an adapter on the head, or an architecture that
    scales or caps its logits.
    """

    def __init__(self, model: nn.Module, *, autocast_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.autocast_dtype = model, autocast_dtype

    def forward(self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None, scale: float) -> Tensor:
        """Return `scale` times the summed negative log-likelihood of all labels that are not -100; all are (B, L)."""
        dtype = self.autocast_dtype
        with torch.autocast(input_ids.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        nll = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return nll * scale


def flops_per_token(model: PeftModel, context_length: int) -> int:
    """Return the floating-point operations of forward and backward for one token: 4N + 6A + 12·layers·heads·head_dim·context.

    N counts the weights of the base that are multiplied with, of which backward needs only the gradient of their inputs; A
    those of the adapter, which need their own gradient, too. Attention is counted without regard to the causal half
    (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B).
    """
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]
    trained = sum(weight.numel() for weight in matrices if weight.requires_grad)
    frozen = sum(weight.numel() for weight in matrices if not weight.requires_grad)
    config = model.get_base_model().config.get_text_config()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 4 * frozen + 6 * trained + 12 * config.num_hidden_layers * heads * head_dim * context_length


def loss_module(model: PeftModel, autocast_dtype: torch.dtype | None) -> nn.Module:
    """Return the fast loss where it is the model's own loss, else the plain one."""
    plain: PreTrainedModel = model.get_base_model()
    slow = LogitsLoss(plain, autocast_dtype=autocast_dtype)
    head = plain.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:  # an adapter on the head, among others
        return slow
    fast = CausalLmLoss(plain, autocast_dtype=autocast_dtype)
    ids = torch.arange(16, device=model.device)[None] % int(plain.get_input_embeddings().weight.shape[0])
    with torch.no_grad():
        expected, found = (float(loss.eval()(ids, ids.roll(-1, 1), None, 1 / 16)) for loss in (slow, fast))
    return fast if abs(found - expected) <= 1e-3 * max(1.0, abs(expected)) else slow


def context_length_of(config: Config, model: PreTrainedModel) -> int:
    """Return the row length: as configured, else what the base can read, at most 512."""
    return config.context_length or min(max_positions(model) or _MOST_CONTEXT, _MOST_CONTEXT)


def learning_rate_of(config: Config, model: PreTrainedModel) -> float:
    """Return the full learning rate: as configured, else 1 / width, at most 0.005.

    At width 192 a short training liked 3e-3 and 1e-2 about equally well, and the larger rate forgot more of the old text;
    at width 4,096 the rule gives 2.4e-4, near what is usual for LoRA there.
    """
    width = int(model.get_input_embeddings().weight.shape[1])
    return config.learning_rate or min(_MOST_LEARNING_RATE, 1 / width)


def make_plan(config: Config, rows: PackedRows, *, num_processes: int, on_gpu: bool) -> TrainingPlan:
    """Return the numbers of a training of one step; `with_horizon` gives it its length."""
    rows_per_step = max(1, round(config.global_batch_size_tokens / rows.context_length))
    cap = max(1, _TOKENS_PER_PASS["gpu" if on_gpu else "cpu"] // rows.context_length)
    return TrainingPlan(
        num_steps=1,
        warmup_steps=0,
        cooldown_steps=0,
        rows_per_step=rows_per_step,
        micro_batch_size=config.micro_batch_size or _largest_divisor(rows_per_step // num_processes, cap),
        max_gradient_norm=config.max_gradient_norm,
        checkpoint_seconds=config.checkpoint_seconds,
        seed=config.seed,
    )


def with_horizon(config: Config, context: Context, training: Training) -> TrainingPlan:
    """Return the plan with its number of steps; a horizon in minutes is measured once and kept in `resolved.json`."""
    plan = training.plan
    if config.budget_minutes is not None:
        context.phase("measuring how long a step takes")
        seconds = 1.0 if "num_steps" in context.resolved() else training.seconds_per_step()
        affordable = max(1, int(60 * config.budget_minutes / seconds))
        num_steps = int(resolve(context, training.accelerator, "num_steps", lambda: affordable))
    else:
        epochs = config.num_epochs or 1
        num_steps = config.num_steps or max(1, round(epochs * training.rows.num_rows / plan.rows_per_step))
    warmup = min(_WARMUP_STEPS, num_steps // 10) if config.warmup_steps is None else config.warmup_steps
    return replace(
        plan,
        num_steps=num_steps,
        warmup_steps=warmup,
        cooldown_steps=min(round(config.cooldown_share * num_steps), max(0, num_steps - warmup)),
        evaluation_steps=frozenset(index * num_steps // config.num_evaluations for index in range(config.num_evaluations)),
        log_every_steps=max(1, num_steps // 1000),
    )


def _largest_divisor(number: int, cap: int) -> int:
    return max((size for size in range(1, min(number, cap) + 1) if number % size == 0), default=1)
