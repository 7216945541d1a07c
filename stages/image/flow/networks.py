"""The networks that read off one part of an image which splines the other part goes through.

Legend: B images, T tokens (patches, h rows of w), S tokens seen so far, M hidden size, A heads, E = M / A, F values of an
input token, P outputs for a token.

A class-conditional network has for every class what it has for every place, a learnt vector that is added to the token; a
class may ask for other features at other places.

The last layer starts at zero, so every spline starts as the identity and a new flow says that all images are equally likely.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.common.images.noise import BatchNoise

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values (B, A, S, E) of each layer for the tokens seen so far."""


def drop_features(hidden: Tensor, rate: float, noise: BatchNoise | None) -> Tensor:
    """Set whole features of an image to zero with probability `rate`, the same in all its tokens, and enlarge the others.

    Spatial dropout (Tompson et al., arXiv 1411.4280, section 3.2), drawn from the noise of the step: a resumed training and one
    with more processes drop the same features. Without noise, that is outside training, nothing is dropped.

    Args:
        hidden: (B, T, M) or (B, M, h, w).
        rate: in [0, 1).
        noise: of the step, or None.
    """
    if noise is None or not rate:
        return hidden
    axis = 2 if hidden.ndim == 3 else 1
    shape = [1] * (hidden.ndim - 1)
    shape[axis - 1] = hidden.shape[axis]
    return hidden * ((noise.uniform(*shape) >= rate) / (1 - rate))


class ConvolutionalNetwork(nn.Module):
    """Tokens (B, T, F) -> outputs (B, T, P) by 3x3 convolutions over the map of tokens; each place has a bias of its own.

    Args:
        rows, columns: h, w.
        in_size, out_size: F, P.
        hidden_size: M.
        num_layers: residual layers.
        dropout: share of features that a training step drops.
        num_classes: of a class-conditional network; 0: it knows no classes.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        in_size: int,
        out_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self._rows, self._dropout = rows, dropout
        self.embed = nn.Conv2d(in_size, hidden_size, 3, padding=1)
        self.positions = nn.Parameter(torch.randn(hidden_size, rows, columns) * 0.02)
        self.layers = nn.ModuleList(ConvolutionalLayer(hidden_size) for _ in range(num_layers))
        self.head = zeros(nn.Conv2d(hidden_size, out_size, 1))
        self.classes = nn.Parameter(torch.randn(num_classes, hidden_size, rows, columns) * 0.02) if num_classes else None

    def forward(self, tokens_BTF: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> Tensor:
        """Return all outputs."""
        hidden = self.embed(tokens_BTF.transpose(1, 2).unflatten(2, (self._rows, -1))) + self.positions
        if labels is not None:
            hidden = hidden + chosen(self.classes, labels)
        for layer in self.layers:
            hidden = hidden + drop_features(layer(hidden), self._dropout, noise)
        return self.head(drop_features(functional.silu(hidden), self._dropout, noise)).flatten(2).transpose(1, 2)


class ConvolutionalLayer(nn.Module):
    """What is added to a map (B, M, h, w): 1x1(silu(3x3(silu(x))))."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.neighbours = nn.Conv2d(hidden_size, hidden_size, 3, padding=1)
        self.mix = nn.Conv2d(hidden_size, hidden_size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.mix(functional.silu(self.neighbours(functional.silu(hidden))))


class CausalTransformer(nn.Module):
    """Tokens (B, T, F) -> outputs (B, T, P), where output t depends on the tokens before t only.

    Args:
        num_tokens: T.
        in_size, out_size: F, P.
        hidden_size: M, a multiple of `num_heads`.
        num_layers, num_heads: of the transformer.
        dropout: share of features that a training step drops.
        num_classes: of a class-conditional network; 0: it knows no classes.
    """

    def __init__(
        self,
        num_tokens: int,
        *,
        in_size: int,
        out_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_size, hidden_size)
        self.start = nn.Parameter(torch.randn(hidden_size) * 0.02)
        self.positions = nn.Parameter(torch.randn(num_tokens, hidden_size) * 0.02)
        self.layers = nn.ModuleList(CausalLayer(hidden_size, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.head = zeros(nn.Linear(hidden_size, out_size))
        self.classes = nn.Parameter(torch.randn(num_classes, num_tokens, hidden_size) * 0.02) if num_classes else None

    def forward(self, tokens_BTF: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> Tensor:
        """Return all outputs at once: a learnt start stands first, so that input t is the token before t."""
        start = self.start.expand(len(tokens_BTF), 1, -1)
        shifted = torch.cat([start, self.embed(tokens_BTF[:, :-1])], dim=1)
        return self._run(shifted, first=0, cache=None, noise=noise, labels=labels)[0]

    def step(
        self, previous_BF: Tensor | None, num_images: int, position: int, cache: Cache | None, labels: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """Return output number `position` (B, P), after the token before it (none before the first), and the longer cache."""
        hidden = self.start.expand(num_images, -1) if previous_BF is None else self.embed(previous_BF)
        outputs, cache = self._run(hidden.unsqueeze(1), first=position, cache=cache, noise=None, labels=labels)
        return outputs[:, 0], cache

    def _run(
        self, x_BTM: Tensor, *, first: int, cache: Cache | None, noise: BatchNoise | None, labels: Tensor | None
    ) -> tuple[Tensor, Cache]:
        places = slice(first, first + x_BTM.shape[1])
        x_BTM = x_BTM + self.positions[places]
        if labels is not None:
            x_BTM = x_BTM + chosen(self.classes, labels)[:, places]
        longer: Cache = []
        for number, layer in enumerate(self.layers):
            x_BTM, seen = layer(x_BTM, cache[number] if cache else None, noise)
            longer.append(seen)
        return self.head(self.norm(x_BTM)), longer


class CausalLayer(nn.Module):
    """Self-attention and a small network for each token, each added to its input after a LayerNorm (pre-norm)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self._num_heads, self._dropout = num_heads, dropout
        self.attention_norm, self.token_norm = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.queries_keys_values = nn.Linear(hidden_size, 3 * hidden_size)
        self.mix = nn.Linear(hidden_size, hidden_size)
        self.widen, self.narrow = nn.Linear(hidden_size, 4 * hidden_size), nn.Linear(4 * hidden_size, hidden_size)

    def forward(
        self, x_BTM: Tensor, past: tuple[Tensor, Tensor] | None, noise: BatchNoise | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the layer's output (B, T, M), and keys and values with those of `past` before them."""
        parts = self.queries_keys_values(self.attention_norm(x_BTM)).unflatten(-1, (3, self._num_heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        mixed = self.mix(causal_attention(queries, keys, values).transpose(1, 2).flatten(2))
        x_BTM = x_BTM + drop_features(mixed, self._dropout, noise)
        thought = self.narrow(functional.gelu(self.widen(self.token_norm(x_BTM))))
        return x_BTM + drop_features(thought, self._dropout, noise), (keys, values)


def causal_attention(queries_BATE: Tensor, keys_BASE: Tensor, values_BASE: Tensor) -> Tensor:
    """Return softmax(q k' / √E) v, (B, A, T, E), where token t of the last T of S sees the S - T + t + 1 first tokens.

    In plain matrix products: the fused kernel of a CPU has no FLOP formula, so the ledger would take attention for free.
    """
    scores = queries_BATE @ keys_BASE.transpose(-1, -2) / math.sqrt(queries_BATE.shape[-1])
    num_tokens, num_seen = scores.shape[-2:]
    later = torch.ones(num_tokens, num_seen, dtype=torch.bool, device=scores.device).triu(num_seen - num_tokens + 1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ values_BASE


def chosen(classes: Tensor | None, labels: Tensor) -> Tensor:
    """Return the vectors of each image's class, (B, ...)."""
    assert classes is not None, "labels were given to a network without classes"
    return classes[labels]


def zeros(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Return the layer with all weights at zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
