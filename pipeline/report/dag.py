"""The picture of a recipe's graph: a layered layout of our own and the SVG drawn from it.

The method of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system structures", 1981) in its
simplest form: a stage's layer is its longest path from a source; an edge over several layers gets a point of its own in
each of them, so that it bends around boxes; layers are ordered by the mean place of their neighbours; places are the
least-squares fit to the neighbours' that keeps order and distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP, LAYER_GAP, LANE = 18.0, 42.0, 10.0
"""Distance between boxes of a layer, between layers, and the width kept free for a passing edge; in CSS pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle in CSS pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Boxes by name, edges, and the size of the picture.

    An edge is a list of points, two for each layer that it touches: straight from the first to the second of a pair, by any
    curve on to the next pair, since there is no box between layers.
    """

    boxes: dict[str, Box]
    edges: list[list[tuple[float, float]]]
    width: float
    height: float
    downwards: bool


def layout(needs: Mapping[str, Sequence[str]], sizes: Mapping[str, tuple[float, float]], *, downwards: bool = False) -> Layout:
    """Place a graph's boxes without overlap.

    Args:
        needs: name -> names of what it needs, in topological order (a stage stands after all it needs).
        sizes: name -> (width, height) of its box.
        downwards: layers from top to bottom instead of from left to right.
    """
    along, across = (1, 0) if downwards else (0, 1)  # which of (width, height) lies along the edges
    layer_of = _layers(needs)
    chains = _chains(needs, layer_of)
    links = [(a, b) for chain in chains for a, b in pairwise(chain)]
    layers = _ordered(needs, layer_of, chains, links)
    breadths = {node: (sizes[node][across] if isinstance(node, str) else LANE) for layer in layers for node in layer}
    places = _places(layers, links, breadths)
    depths = [max(sizes[name][along] for name in needs if layer_of[name] == index) for index in range(len(layers))]
    starts = [sum(depths[:index]) + LAYER_GAP * index for index in range(len(layers))]

    def point(far: float, aside: float) -> tuple[float, float]:
        return (aside, far) if downwards else (far, aside)

    boxes = {}
    for name, index in layer_of.items():
        start = starts[index] + (depths[index] - sizes[name][along]) / 2
        boxes[name] = Box(*point(start, places[name] - sizes[name][across] / 2), *sizes[name])
    edges = []
    for chain in chains:
        first, last = str(chain[0]), str(chain[-1])  # a chain starts and ends at a stage, between them it passes layers
        points = []
        for layer, node in enumerate(chain, layer_of[first]):
            inset = (depths[layer] - sizes[node][along]) / 2 if isinstance(node, str) else 0
            enter = starts[layer] + (depths[layer] - inset if node == first else 0)
            leave = starts[layer] + (inset if node == last else depths[layer])
            points += [point(enter, places[node]), point(leave, places[node])]
        edges.append(points)
    reach = starts[-1] + depths[-1] if layers else 0.0
    width, height = point(reach, max((places[node] + breadths[node] / 2 for node in places), default=0.0))
    return Layout(boxes, edges, width, height, downwards)


Node = str | tuple[str, str, int]
"""A stage, or the point at which an edge (from, to) passes a layer."""


def _layers(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    layer_of: dict[str, int] = {}
    for name, inputs in needs.items():
        layer_of[name] = 1 + max((layer_of[one] for one in inputs), default=-1)
    return layer_of


def _chains(needs: Mapping[str, Sequence[str]], layer_of: Mapping[str, int]) -> list[list[Node]]:
    """Return each edge as its source, the points where it passes layers, and its target."""
    chains: list[list[Node]] = []
    for name, inputs in needs.items():
        for source in dict.fromkeys(inputs):
            passed: list[Node] = [(source, name, layer) for layer in range(layer_of[source] + 1, layer_of[name])]
            chains.append([source, *passed, name])
    return chains


def _ordered(
    needs: Mapping[str, Sequence[str]],
    layer_of: Mapping[str, int],
    chains: list[list[Node]],
    links: list[tuple[Node, Node]],
) -> list[list[Node]]:
    """Return the layers, each ordered so that few edges cross: four sweeps of the barycentre rule, there and back."""
    layers: list[list[Node]] = [[] for _ in range(1 + max(layer_of.values(), default=-1))]
    for name in needs:
        layers[layer_of[name]].append(name)
    for node in (node for chain in chains for node in chain if not isinstance(node, str)):
        layers[node[2]].append(node)
    before, after = _neighbours(links)
    for sweep in range(8):
        neighbours = after if sweep % 2 else before
        for layer in reversed(layers) if sweep % 2 else layers:
            rank = {node: place / max(1, len(one) - 1) for one in layers for place, node in enumerate(one)}
            layer.sort(key=lambda node: _mean([rank[one] for one in neighbours.get(node, [])], rank[node]))
    return layers


def _places(layers: list[list[Node]], links: list[tuple[Node, Node]], sizes: Mapping[Node, float]) -> dict[Node, float]:
    """Return the middle of each node across its layer, the smallest edge at 0."""
    before, after = _neighbours(links)
    places: dict[Node, float] = {}
    for layer in layers:
        places |= _fit([0.0] * len(layer), layer, sizes)
    for sweep in range(12):
        for layer in reversed(layers) if sweep % 2 else layers:
            near = [before.get(node, []) + after.get(node, []) for node in layer]
            wanted = [_mean([places[one] for one in ones], places[node]) for node, ones in zip(layer, near, strict=True)]
            places |= _fit(wanted, layer, sizes)
    lowest = min((places[node] - sizes[node] / 2 for node in places), default=0.0)
    return {node: round(place - lowest, 2) for node, place in places.items()}


def _fit(wanted: list[float], layer: list[Node], sizes: Mapping[Node, float]) -> dict[Node, float]:
    """Return the places nearest to `wanted` (least squares) that keep the layer's order and distances.

    Isotonic regression by pooling adjacent violators, after the least offset of each node was taken off.
    """
    offsets, offset = [], 0.0
    for index, node in enumerate(layer):
        if index:
            offset += sizes[layer[index - 1]] / 2 + GAP + sizes[node] / 2
        offsets.append(offset)
    pools: list[tuple[float, int]] = []
    for want, off in zip(wanted, offsets, strict=True):
        mean, count = want - off, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return {node: mean + off for node, mean, off in zip(layer, means, offsets, strict=True)}


def _neighbours(links: list[tuple[Node, Node]]) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    before: dict[Node, list[Node]] = {}
    after: dict[Node, list[Node]] = {}
    for source, target in links:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
    return before, after


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
