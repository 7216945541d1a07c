"""Counted FLOPs: what a training step really computes, double backward included.

Every tensor operation that PyTorch has a FLOP formula for (matrix products, convolutions, attention) is counted as it is
dispatched: 2 for each multiply-add. `torch.utils.flop_counter.FlopCounterMode` counts the same way, but its tracking of
modules fails on the gradient penalties of a GAN ("leaf node was passed to _will_engine_execute_node"); here only the
formulas are taken from it, but for two: its backward pass of a convolution forgets `groups` (8 groups were counted as
4.5 times what they cost), and it has none for the CPU's fused attention. Element-wise work is not counted: it is memory
traffic more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pipeline.errors import StageError


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *settings: Any, **_: Any) -> int:
    """The gradients by input and by weight cost each what the forward pass cost, whatever the groups.

    `settings` are bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask.
    """
    transposed, output_mask = settings[4], settings[7]
    return int(conv_flop_count(list(x.shape), list(weight.shape), list(grad.shape), transposed) * sum(output_mask[:2]))


def _attention(queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(queries.shape, keys.shape, values.shape))


def _attention_backward(grad: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, queries.shape, keys.shape, values.shape))


_FORMULAS: Mapping[OpOverloadPacket, Callable[..., int]] = flop_registry | {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class FlopLedger(TorchDispatchMode):
    """While active, adds up the FLOPs of all operations in `flops`: `with FlopLedger() as ledger: loss.backward()`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, function: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `function` and count it.

        Raises:
            StageError: an attention kernel without a formula; it would be free.
        """
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        count = _FORMULAS.get(function._overloadpacket)
        if count is None and "attention" in function._overloadpacket.__name__:
            raise StageError(f"the FLOPs of {function} cannot be counted, so no budget can be kept; set attention: false")
        if count is not None:
            self.flops += int(count(*args, **kwargs, out_val=result))
        return result
