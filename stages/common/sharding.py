"""Full sharding (FSDP): weights, gradients and optimizer state are shared out, each process holds a part of every tensor.

Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054, stage 3); Zhao et al. 2023 (arXiv:2304.11277); `torch.distributed.fsdp.
fully_shard`. It is asked for in Accelerate's own file (`distributed_type: FSDP`, `fsdp_version: 2`). What differs from
data-parallel training is where tensors lie, not what is computed: checkpoints hold whole tensors, so that a training may
go on with another number of processes, sharded or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pipeline.errors import StageError


def is_asked_for() -> bool:
    """Return whether Accelerate's file says `distributed_type: FSDP`; its launcher hands that on in the environment."""
    return _flag("accelerate_use_fsdp")


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the blocks of the transformers model in `module`: what the model itself says must not be split."""
    names = {name for child in module.modules() for name in getattr(child, "_no_split_modules", None) or ()}
    return [child for child in module.modules() if type(child).__name__ in names]


def shard(module: nn.Module) -> nn.Module:
    """Share out the parameters of `module` over all processes, in place, and return it; make optimizers after this.

    Each block of the transformer is a unit: its weights are gathered when it computes and dropped afterwards, unless the
    file says `fsdp_reshard_after_forward: false`. The rest (embeddings, last norm, head) stays whole during a pass.

    Args:
        module: a loss around a transformers model (`loss.CausalLmLoss`), on its device; its blocks may be compiled.
    """
    reshard = _flag("fsdp_reshard_after_forward", "true")
    for block in blocks_of(module):
        fully_shard(block, reshard_after_forward=reshard)
    fully_shard(module)
    return module


def check_settings() -> None:
    """Check what Accelerate's launcher made of `fsdp_config`: variables that begin with FSDP_.

    Raises:
        StageError: the file asks for something of Accelerate's FSDP that this loop does not do.
    """
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise StageError(f"fsdp_config.fsdp_version is {version} in Accelerate's file; this loop shards with version 2 only")
    for key in ("fsdp_offload_params", "fsdp_activation_checkpointing"):
        if _flag(key):
            raise StageError(f"fsdp_config.{key} is true in Accelerate's file; this loop does not do that, set it to false")


def _flag(key: str, default: str = "false") -> bool:
    return os.environ.get(key.upper(), default).lower() == "true"


def set_gradient_sync(module: nn.Module, wanted: bool) -> None:
    """Let the next backward pass of a sharded module share out gradients, or keep them for accumulation."""
    assert isinstance(module, FSDPModule), "only a sharded module"
    module.set_requires_gradient_sync(wanted)


def whole(tensor: Tensor) -> Tensor:
    """Return `tensor`, gathered if it is sharded; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return all of `tensors` whole, sharded ones on the CPU, one at a time; every process must call this.

    Args:
        tensors: sharded or not.
        keep: whether this process wants them; without, sharded tensors are left out.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if keep or full is tensor:
            found[name] = full if full is tensor else full.cpu()
    return found


def placed_like(value: Tensor, target: Tensor) -> Tensor:
    """Return the whole tensor `value`, equal in all processes, shared out as `target` is; nothing is sent."""
    if not isinstance(target, DTensor):
        return value
    value = value.to(target.to_local().device)
    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def copy_weights(source: nn.Module, into: nn.Module) -> None:
    """Copy the weights of `source`, sharded or not, into a whole copy of it; every process must call this."""
    targets = dict(into.named_parameters())
    for name, parameter in source.named_parameters():
        targets[name].copy_(whole(parameter.detach()))
