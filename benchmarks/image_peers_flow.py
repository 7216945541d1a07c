"""normflows' Glow and zuko's spline flow against our flows on digits: `python -m benchmarks.image_peers_flow [--seeds 3]`.

See `image_peers` for the rules. Compared are bits/dim on all test images: the bound with 32 draws of dequantisation noise, on
both sides. normflows' Glow (`MultiscaleFlow` of `GlowBlock`s, two scales) stands against our coupling flow, zuko's `NSF`
(masked autoregressive, rational-quadratic splines of 8 bins) against our autoregressive flow; all have about as many
parameters. Neither package trains, so both get our stages' recipe (AdamW, warm-up and cosine, clipping, averaged weights)
and, as a favour, the best of 20 looks at the validation images. Tried are for Glow: images in [-0.5, 0.5), or through
the logit as in Real NVP; for zuko: the images over the whole range of its splines or with unit variance (as its manual
recommends), two transforms or three narrower ones.
"""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.image_peer_side import (
    NUM_DRAWS,
    Density,
    DensityTraining,
    Images,
    parser_of,
    serve_bursts,
    start,
    write_result,
)

RATES = (1e-3, 4e-3, 3e-4, 1e-2)
BATCH_SIZES = {"normflows": 128, "zuko": 256}
BURST_IMAGES = 2048
GLOW = ("centred", "logit")
NSF = ("whole-2x42", "unit-2x42", "whole-3x28")
SPLINE_BOUND = 5.0
"""zuko's splines act on [-5, 5]; outside they are the identity."""


def main() -> None:
    """Measure and print, or be a peer's side in its environment."""
    if "--side" in sys.argv:
        _peer(parser_of(__doc__).parse_args())
        return
    from benchmarks import image_peers as peers
    from benchmarks.measuring import Row, Table

    arguments = peers.options(__doc__)
    table = Table("Flows against normflows and zuko, bits/dim on digits", packages=["torch", "diffusers"], other="peer")
    peers.prepare()
    rows: list[Row] = []
    notes: list[str] = []
    for ours, package, name, variants, share in (
        ("coupling", "normflows", "normflows Glow", GLOW, 1.0),
        ("autoregressive", "zuko", "zuko NSF", NSF, 0.25),  # its whole budget pays for 660 epochs
    ):
        mine = peers.Chosen(peers.ours(f"flow-{ours}", f"Groundup {ours} flow"))
        python = peers.environment(package, package)
        module = "benchmarks.image_peers_flow"
        side = peers.Side(name=name, key=package, module=module, python=python, variants=variants, rates=RATES, trial_share=share)
        chosen, trials = peers.tune(side, arguments.budget, lambda found: float(found["bits_per_dim"]))
        found = peers.final_runs([mine, chosen], arguments.seeds, arguments.budget)
        speeds = peers.images_per_second([mine, chosen], arguments.rounds)
        rows += peers.likelihood_rows(mine, [chosen], found, speeds, f"bits/dim, k = {NUM_DRAWS}")
        notes += [trials, peers.environment_note(side, package)]
    table.show(rows, notes)


def _peer(arguments: Namespace) -> None:
    images = start(arguments)
    density = {"normflows": glow, "zuko": spline_flow}[arguments.side](arguments.variant, images)
    training = DensityTraining(density, images, rate=arguments.rate, batch_size=BATCH_SIZES[arguments.side])
    if arguments.bursts:
        serve_bursts(lambda: _burst(training))
        return
    num_steps = int(arguments.budget * 1e12 // training.flops_per_step)
    training.run(num_steps)
    density.network.load_state_dict(training.best[1])
    with torch.no_grad():
        parts = [density.bits(part, images.levels, NUM_DRAWS) for part in images.test.split(256)]
    bits = torch.cat(parts)
    write_result(
        arguments,
        bits=bits.tolist(),
        bits_per_dim=float(bits.mean()),
        validation_bits_per_dim=training.best[0],
        num_parameters=sum(p.numel() for p in density.network.parameters()),
        flops=training.flops_per_step * num_steps,
        num_images=training.batch_size * num_steps,
    )


def _burst(training: DensityTraining) -> tuple[int, float]:
    training.run(BURST_IMAGES // training.batch_size, look=False)
    return BURST_IMAGES, 0.0


def glow(variant: str, images: Images) -> Density:
    """Return normflows' Glow with two scales: 4 x H/2 x W/2 places, half of which end there, then 8 x H/4 x W/4."""
    import normflows

    channels, height, width = images.shape
    num_blocks, hidden = 8, 49
    flows, bases = [], []
    for level in range(2):
        num_channels = channels * 2 ** (3 - level)
        blocks = [normflows.flows.GlowBlock(num_channels, hidden, split_mode="channel", scale=True) for _ in range(num_blocks)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        sides = (height // 2 ** (2 - level), width // 2 ** (2 - level))
        ending = num_channels if level == 0 else num_channels // 2
        bases.append(normflows.distributions.DiagGaussian((ending, *sides)))
    transform, low = (normflows.transforms.Logit(0.05), 0.0) if variant == "logit" else (None, -0.5)
    network = normflows.MultiscaleFlow(bases, flows, [normflows.flows.Merge()], transform, class_cond=False)
    return Density(network=network, log_prob=lambda values: network.log_prob(values, None), low=low, width=1.0)


def spline_flow(variant: str, images: Images) -> Density:
    """Return zuko's NSF; `variant` names the scale of the images, the number of transforms and their hidden units."""
    import zuko

    scale, _, size = variant.partition("-")
    num_transforms, hidden = map(int, size.split("x"))
    network: Any = zuko.flows.NSF(images.num_dims, transforms=num_transforms, hidden_features=(hidden,), bins=8)
    # Uniform values over a width of 2·√3 have unit variance.
    width = 2 * (0.999 * SPLINE_BOUND if scale == "whole" else math.sqrt(3))

    def log_prob(values: Tensor) -> Tensor:
        found: Tensor = network().log_prob(values.flatten(1))
        return found

    return Density(network=network, log_prob=log_prob, low=-width / 2, width=width)


if __name__ == "__main__":
    main()
