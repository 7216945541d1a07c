"""Counted FLOPs: what a training step really computes, double backward included.

Every tensor operation that PyTorch has a FLOP formula for (matrix products, convolutions, attention) is counted as it is
dispatched: 2 for each multiply-add. `torch.utils.flop_counter.FlopCounterMode` counts the same way, but its tracking of
modules fails on the gradient penalties of a GAN ("leaf node was passed to _will_engine_execute_node"); here only the
formulas are taken from it. Element-wise work is not counted: it is memory traffic more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopLedger(TorchDispatchMode):
    """While active, adds up the FLOPs of all operations in `flops`: `with FlopLedger() as ledger: loss.backward()`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, function: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `function` and count it."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        count: Callable[..., int] | None = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.flops += int(count(*args, **kwargs, out_val=result))
        return result
