"""Flow matching: learn which way to go at every place and time between noise and images, then follow it.

Legend: B images, C channels, H height, W width of the image as the network sees it (in patches, see `unet`).

The path of an image x1 from its noise x0 is a straight line, and its velocity is constant (Lipman et al.,
arXiv 2210.02747, eq. 20-23 with sigma_min = 0; Liu et al., arXiv 2209.03003, eq. 1):
    x_t = (1 - t)·x0 + t·x1,   dx_t/dt = x1 - x0,   t = 0 noise, t = 1 image.
The network learns the mean velocity of all lines through a place; the field of means carries noise to images.

diffusers counts the other way: sigma = 1 - t is the share of noise, the network is told 1000·sigma and predicts
d x/d sigma = x0 - x1. The network here speaks diffusers' language from the start, so that it is saved as it is trained;
`velocity` alone translates.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from diffusers import DDPMPipeline, FlowMatchEulerDiscreteScheduler, UNet2DModel
from torch import Tensor, nn

from pipeline.contract import Context
from stages.common.images.class_scores import mixture_likelihood
from stages.common.images.family import ConditionalFamily, History, Likelihood, Optimisation, Player, Sampler
from stages.common.images.grid import Grid, dequantise, quantise
from stages.common.images.labels import labels_in_turn
from stages.common.images.noise import BatchNoise
from stages.common.images.ode import CALLS_PER_HEUN_STEP, Field, heun, log_density
from stages.common.images.parts import Parts
from stages.common.images.unet import build_unet, choose_patch_size, from_patches, to_patches
from stages.image.flow_matching import report
from stages.image.flow_matching.config import Config

TIME_SCALE = 1000
"""The U-Net's embedding of time is made for 0 ... 1000; times in [0, 1] would all look alike to it."""
IMAGES_AT_ONCE = 250
"""Images that are integrated together, so that memory does not grow with their number."""
SHORTER_STEPS = (1, 2, 5, 10)
"""Steps of Heun's method, fewer than usual, that samples are drawn with as well: quality against calls."""


def velocity(unet: UNet2DModel, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return v(x, t) = E[x1 - x0 | x_t = x], float32 of the shape of x (B, C, H, W); t float in [0, 1], (B,).

    With `labels`, int64 (B,), the mean is over images of that class.
    """
    given = {} if labels is None else {"class_labels": labels}
    return -unet(x, TIME_SCALE * (1 - t), **given).sample.float()


def straight_path(noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_t on the line from `noise` (t = 0) to `data` (t = 1), and its velocity; t (B,)."""
    share = t.view(-1, *[1] * (data.ndim - 1))
    return (1 - share) * noise + share * data, data - noise


class VelocityPlayer(Player):
    """The squared error of the velocity, mean over values: E || v(x_t, t) - (x1 - x0) ||² (2210.02747, eq. 23)."""

    def __init__(self, unet: UNet2DModel, config: Config, *, levels: int, patch_size: int) -> None:
        super().__init__()
        self.unet = unet
        self._config, self._levels, self._patch_size = config, levels, patch_size

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:
        dequantised = dequantise(images, self._levels, noise.uniform(*images.shape[1:]))
        data = to_patches(dequantised, self._patch_size)
        # Logit-normal times (Esser et al., arXiv 2403.03206, eq. 19): the ends of the line are the easy part.
        t = torch.sigmoid(self._config.time_mean + self._config.time_scale * noise.normal())
        x, target = straight_path(noise.normal(*data.shape[1:]), data, t)
        given = labels if self._config.class_conditional else None
        return {"loss": (velocity(self.unet, x, t, given) - target).square().mean()}


class FlowMatching(ConditionalFamily):
    """Flow matching with a U-Net, Heun's method for samples and for densities."""

    name = "flow_matching"
    pooling = "logarithms"  # a draw of the divergence is noisy, and the mean of exp(noise) would be too large

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self.config = grid, config
        self.patch_size = choose_patch_size(config, height=grid.height, width=grid.width)
        self.num_classes = len(grid.classes) if config.class_conditional else 0
        self.unet = build_unet(config, grid, num_classes=self.num_classes)

    def players(self) -> dict[str, Player]:
        return {"velocity": VelocityPlayer(self.unet, self.config, levels=self.grid.levels, patch_size=self.patch_size)}

    def optimisation(self) -> dict[str, Optimisation]:
        return {"velocity": Optimisation.of(self.config)}

    def averaged(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    @property
    def num_function_evaluations(self) -> int:
        return CALLS_PER_HEUN_STEP * self.config.num_sample_steps

    def field(self, x: Tensor, t: float) -> Tensor:
        """Return v(x, t) for one time of all images: what `ode` integrates."""
        return velocity(self.unet, x, torch.full((len(x),), t, device=x.device))

    def field_given(self, labels: Tensor) -> Field:
        """Return the field of images whose classes are `labels`, int64 (B,), or (1,): one class for all."""
        given = labels.to(self.unet.device)
        return lambda x, t: velocity(self.unet, x, torch.full((len(x),), t, device=x.device), given.expand(len(x)))

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return x0, (num_images, C, H, W) on the network's device; drawn on the CPU, as diffusers' pipelines do."""
        height, width = self.unet.config.sample_size
        drawn = torch.randn(num_images, self.unet.config.in_channels, height, width, generator=generator)
        return drawn.to(self.unet.device)

    @torch.no_grad()
    def integrate(self, start: Tensor, num_steps: int) -> Tensor:
        """Return x1, (B, C, H, W), from the noise `start`."""
        return Parts(IMAGES_AT_ONCE)(lambda part: heun(self.field, part, num_steps=num_steps), start)

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noise x0, (B, C, H, W) on the CPU, that the flow carries to `images`; in as many steps as a sample."""

        def backwards(x: Tensor, t: float) -> Tensor:
            return -self.field(x, 1 - t)

        return heun(backwards, self._dequantised(images, generator), num_steps=self.config.num_sample_steps).cpu()

    def decode(self, noise: Tensor) -> Tensor:
        """Return the images of x0, as `noise` and `encode` give it: uint8 on the CPU."""
        return self.to_images(self.integrate(noise.to(self.unet.device), self.config.num_sample_steps))

    def to_images(self, x: Tensor) -> Tensor:
        """Return the images on the grid, uint8 on the CPU, of values (B, C, H, W)."""
        return quantise(from_patches(x, self.patch_size), self.grid.levels).cpu()

    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        if self.num_classes:
            return self.sample_given(labels_in_turn(num_images, self.num_classes), generator)
        return self._draw(self.config.num_sample_steps, num_images, generator)

    def shorter_paths(self) -> dict[int, Sampler]:
        if self.num_classes:
            return {}
        shorter = [steps for steps in SHORTER_STEPS if steps < self.config.num_sample_steps]
        return {CALLS_PER_HEUN_STEP * steps: partial(self._draw, steps) for steps in shorter}

    def _draw(self, num_steps: int, num_images: int, generator: torch.Generator) -> Tensor:
        return self.to_images(self.integrate(self.noise(num_images, generator), num_steps))

    @torch.no_grad()
    def sample_given(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        def followed(part: Tensor, given: Tensor) -> Tensor:
            return heun(self.field_given(given), part, num_steps=self.config.num_sample_steps)

        return self.to_images(Parts(IMAGES_AT_ONCE)(followed, self.noise(len(labels), generator), labels))

    def log_probs_given(self, images: Tensor, label: int, generator: torch.Generator) -> Tensor:
        config, field = self.config, self.field_given(torch.tensor([label]))
        draws = [
            self._log_densities(images, generator, field, num_steps=config.num_class_steps, num_probes=1)
            for _ in range(config.num_class_draws)
        ]
        return torch.stack(draws) + self.grid.bin_log2_volume * math.log(2)

    @property
    def class_detail(self) -> str:
        config = self.config
        return (
            f"ODE by Heun, N = {config.num_class_steps}, mean over {config.num_class_draws} draws of dequantisation "
            "noise and signs, the same for every class"
        )

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        if self.num_classes:
            return mixture_likelihood(self, images, generator)
        config = self.config
        bits = self.bits_per_dim(images, generator, num_steps=config.num_likelihood_steps, num_probes=config.num_probes)
        divergence = "exact divergence" if config.num_probes >= self.grid.num_dims else f"{config.num_probes} signs at each call"
        detail = f"ODE by Heun, N = {config.num_likelihood_steps}, {divergence}, one draw of dequantisation noise"
        return Likelihood(bits=bits, kind="numerical", detail=detail)

    def bits_per_dim(self, images: Tensor, generator: torch.Generator, *, num_steps: int, num_probes: int) -> Tensor:
        """Return -log2 P(image) / D, float64 (B,); see `grid` for the bound by dequantisation, `ode` for the density."""
        densities = [
            self._log_densities(part, generator, self.field, num_steps=num_steps, num_probes=num_probes) / math.log(2)
            for part in images.split(IMAGES_AT_ONCE)
        ]
        return -(torch.cat(densities) + self.grid.bin_log2_volume) / self.grid.num_dims

    def _log_densities(
        self, images: Tensor, generator: torch.Generator, field: Field, *, num_steps: int, num_probes: int
    ) -> Tensor:
        """Return log p(y) of dequantised images, float64 (B,), in nats, on the CPU; see `ode`."""
        data = self._dequantised(images, generator)
        return log_density(field, data, num_steps=num_steps, num_probes=num_probes, generator=generator).cpu()

    def _dequantised(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images, uint8 (B, C, H, W), as the field sees them: dequantised, in patches, on the network's device."""
        values = dequantise(images, self.grid.levels, torch.rand(images.shape, generator=generator))
        return to_patches(values, self.patch_size).to(self.unet.device)

    def saved(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def save(self, directory: Path) -> None:
        """Save what `DDPMPipeline.from_pretrained(directory)` loads: the U-Net and diffusers' Euler scheduler for flows."""
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIME_SCALE)
        DDPMPipeline(unet=self.unet, scheduler=scheduler).save_pretrained(directory)
        report.write_usage(directory, self)

    def usage(self) -> str:
        return report.usage_code(self)

    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        report.write(context, self, images, generator, history)


def load_model(directory: Path, grid: Grid, config: Config) -> FlowMatching:
    """Return the averaged weights of a flow-matching model that `save` wrote under `directory`."""
    return FlowMatching(grid, config).restored(directory)
