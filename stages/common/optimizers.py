"""Muon on the hidden matrices and AdamW on everything else; the split is by name, not by the number of dimensions.

Muon replaces the momentum of a weight matrix by its nearest (semi-)orthogonal matrix, so that every direction of the
matrix learns at the same speed (K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/). Embeddings and the
head are matrices too, but tables of vectors: they go to AdamW, with norms and biases.

`torch.optim.Muon` treats one matrix at a time in bfloat16 and decays weights by 0.1 unless told otherwise. Here matrices
of one shape go through Newton-Schulz as one batch, in float32 on CPU, and the weight decay must be given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from pipeline.errors import StageError
from stages.common.sharding import placed_like, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration; singular values end between about 0.7 and 1.2, which trains as well as 1."""


def orthogonalize(matrices: Tensor, *, num_iterations: int = 5) -> Tensor:
    """Return the matrices with all singular values moved near 1 (Newton-Schulz), in the given dtype.

    Args:
        matrices: a batch of N matrices with R <= C, float (N, R, C).
        num_iterations: steps of X <- aX + (bA + cA²)X with A = XXᵀ.
    """
    a, b, c = NEWTON_SCHULZ
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = matrices / norms.clamp(min=1e-7)
    for _ in range(num_iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(Optimizer):
    """Momentum, orthogonalised: W <- (1 − lr·wd)·W − lr·√max(1, rows/columns)·O, with O near-orthogonal.

    The state of a parameter is its `momentum_buffer`, a view into one buffer per shape. A sharded parameter has a sharded
    buffer of its own; the momentum is gathered for Newton-Schulz, which every process then does for itself.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        num_iterations: int = 5,
        transposed: bool = False,
    ) -> None:
        """Take 2-D `params`.

        Args:
            params: weight matrices.
            lr: learning rate; the root mean square of an update is about lr / √(larger side).
            weight_decay: decoupled decay, times lr per step.
            momentum: share of the old momentum in the new, with Nesterov's look-ahead.
            num_iterations: Newton-Schulz iterations.
            transposed: weights are stored (in, out) as in GPT-2's Conv1D, not (out, in) as in nn.Linear.
        """
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)
        self._num_iterations, self._transposed = num_iterations, transposed
        self._stacks: list[tuple[dict[str, Any], list[nn.Parameter], Tensor | None]] = []
        for group in self.param_groups:
            for shape, members in _by_shape(group["params"]).items():
                sharded = isinstance(members[0], DTensor)
                buffer = None if sharded else torch.zeros(len(members), *shape, device=members[0].device)
                for index, parameter in enumerate(members):
                    if buffer is None:
                        view = torch.zeros_like(parameter, requires_grad=False)
                    else:
                        view = buffer[index] if _is_wide(parameter) else buffer[index].t()
                    self.state[parameter]["momentum_buffer"] = view
                self._stacks.append((group, members, buffer))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "Muon takes no closure"
        for group, members, buffer in self._stacks:
            if all(parameter.grad is None for parameter in members):
                continue
            if buffer is None:
                ahead = torch.stack([self._gathered_momentum(parameter, group["momentum"]) for parameter in members])
            else:
                grads = torch.stack([_wide(_gradient(parameter)) for parameter in members]).float()
                buffer.lerp_(grads, 1 - group["momentum"])
                ahead = grads.lerp_(buffer, group["momentum"])
            updates = orthogonalize(_working_precision(ahead), num_iterations=self._num_iterations)
            for parameter, update in zip(members, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                change = (update if _is_wide(parameter) else update.t()).to(parameter.dtype)
                parameter.add_(placed_like(change, parameter), alpha=-group["lr"] * self._gain(parameter))

    def _gathered_momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Move the momentum of a sharded parameter and return it with the look-ahead, whole, float (R, C) with R <= C."""
        buffer, grad = self.state[parameter]["momentum_buffer"], _gradient(parameter).float()
        buffer.lerp_(grad, 1 - momentum)
        return _wide(whole(grad.lerp(buffer, momentum)))

    def _gain(self, parameter: nn.Parameter) -> float:
        rows, columns = parameter.shape if not self._transposed else reversed(parameter.shape)
        return math.sqrt(max(1.0, rows / columns))


def _working_precision(matrices: Tensor) -> Tensor:
    return matrices if matrices.device.type == "cpu" else matrices.bfloat16()


def _by_shape(params: list[nn.Parameter]) -> dict[tuple[int, int], list[nn.Parameter]]:
    shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
    for parameter in params:
        if parameter.ndim != 2:
            raise StageError(f"Muon takes matrices; a parameter of shape {tuple(parameter.shape)} belongs to AdamW")
        shapes.setdefault((min(parameter.shape), max(parameter.shape)), []).append(parameter)
    return shapes


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _wide(matrix: Tensor) -> Tensor:
    return matrix if _is_wide(matrix) else matrix.t()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def split_parameters(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Sort the trainable parameters of a causal LM by name into hidden, embedding, head and vector.

    hidden: weights of linear layers inside the blocks (nn.Linear, or GPT-2's Conv1D). embedding: token and position
    tables (a tied head is the token table). head: an untied output head. vector: norms and biases.
    """
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), "")
    parts: dict[str, dict[str, nn.Parameter]] = {"hidden": {}, "embedding": {}, "head": {}, "vector": {}}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "embedding" if name in tables else "head" if name == f"{head}.weight" else "hidden"
        parts[kind if parameter.ndim == 2 else "vector"][name] = parameter
    return parts


def has_transposed_weights(model: nn.Module) -> bool:
    """Return whether linear layers store their weight as (in, out): GPT-2's Conv1D does."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float = 1e-10) -> AdamW:
    """Return torch's fused AdamW over `groups`, each with params, lr and weight_decay; nothing is left to defaults."""
    for group in groups:
        assert {"params", "lr", "weight_decay"} <= group.keys(), "every group states its rate and its decay"
    return AdamW(groups, lr=0.0, betas=betas, eps=eps, weight_decay=0.0, fused=True)


def optimizer_tensors(optimizers: list[Optimizer], names: Mapping[int, str]) -> dict[str, Tensor]:
    """Return every tensor of the optimizers' state as `NAME.KEY`; `names` maps id(parameter) to its name."""
    return {
        f"{names[id(parameter)]}.{key}": value.detach()
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(optimizers: list[Optimizer], names: Mapping[int, str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned.

    Raises:
        StageError: a tensor has no parameter, or a parameter with state elsewhere has none here.
    """
    left = dict(tensors)
    for optimizer in optimizers:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            state, prefix = optimizer.state[parameter], names[id(parameter)] + "."
            mine = [name for name in left if name.startswith(prefix) and "." not in name[len(prefix) :]]
            if not mine:
                raise StageError(f"the checkpoint holds no optimizer state for {prefix[:-1]}; it belongs to another training")
            for name in mine:
                value, key = left.pop(name), name[len(prefix) :]
                if key in state:
                    state[key].copy_(placed_like(value, state[key]))
                elif value.ndim == 0:  # AdamW's count of steps: fused, it lies beside the parameter
                    state[key] = value.to(parameter.device if optimizer.defaults.get("fused") else "cpu", copy=True)
                else:
                    state[key] = placed_like(value.to(parameter.device, copy=True), parameter)
    if left:
        raise StageError(f"the checkpoint holds optimizer state for unknown parameters: {', '.join(sorted(left)[:3])}")


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Return id(parameter) -> name, for `optimizer_tensors`."""
    return {id(parameter): name for name, parameter in model.named_parameters()}
