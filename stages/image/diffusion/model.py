"""Diffusion: images dissolve in noise step by step; a network learns to undo one step, and so makes images out of noise.

Legend: B images, C channels, H height, W width of the image as the network sees it (in patches, see `unet`), T timesteps.

Forward, the noise needs no learning (Ho et al., arXiv 2006.11239, eq. 4):
    x_t = √a_t·x + √(1 - a_t)·e,   e ~ N(0, I),   t = 0 (hardly any noise) ... T-1 (nothing but noise),
with a_t ("alpha bar") falling along a cosine (Nichol and Dhariwal, arXiv 2102.09672, eq. 17). The network predicts e, and
with it the denoised image x^ = (x_t - √(1 - a_t)·e^) / √a_t (eq. 15). x are the centres of the grid's bins: integers need
no dequantisation here, for the last step of the bound is a distribution over bins.

Names, schedule and steps are diffusers' own (`DDPMScheduler`), so the saved model is a plain `DDPMPipeline`. Samples clip
x^ to [-1, 1] at each step (`clip_sample`): no image lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from pipeline.contract import Context
from stages.common.images.family import Family, History, Likelihood, Optimisation, Player, Sampler
from stages.common.images.grid import Grid, centres, quantise
from stages.common.images.noise import BatchNoise
from stages.common.images.parts import Parts
from stages.common.images.unet import build_unet, choose_patch_size, from_patches, to_patches
from stages.image.diffusion import report
from stages.image.diffusion.bound import Bound, first_timestep, variational_bound
from stages.image.diffusion.config import Config
from stages.image.diffusion.networks import SquaredErrorTable

IMAGES_AT_ONCE = 250
"""Images that are denoised together, so that memory does not grow with their number."""
SHORTER_STEPS = (5, 10, 25)
"""Steps, fewer than usual, that samples are drawn with as well: quality against calls."""


def make_scheduler(config: Config) -> DDPMScheduler:
    """Return the noise schedule; its last step takes 99.9 % of what is left, so that a_(T-1) is about 0 for any T."""
    return DDPMScheduler(
        num_train_timesteps=config.num_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=config.prediction,
        variance_type="fixed_small",
        clip_sample=True,
        clip_sample_range=1.0,
        timestep_spacing="trailing",  # the other spacings start below the last timestep, from noise that was never trained
    )


def denoised(scheduler: DDPMScheduler, output: Tensor, x: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return x^ in [-1, 1] of noisy `x` and what the network said of it, (B, C, H, W); `alphas_cumprod` broadcasts."""
    signal, noise = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
    if scheduler.config.prediction_type == "epsilon":
        clean = (x - noise * output) / signal
    else:
        clean = signal * x - noise * output  # v = √a·e - √(1 - a)·x (Salimans and Ho, arXiv 2202.00512, appendix D)
    return clean.clamp(-1, 1)


def sizes_of_parts(num_images: int) -> list[int]:
    """Return how many images are made together, part by part."""
    return [min(IMAGES_AT_ONCE, num_images - first) for first in range(0, num_images, IMAGES_AT_ONCE)]


class DenoisingPlayer(Player):
    """E || e^(x_t, t) - e ||², mean over values (2006.11239, eq. 14), and the fit of the table of errors."""

    def __init__(
        self, unet: UNet2DModel, errors: SquaredErrorTable, scheduler: DDPMScheduler, *, levels: int, patch_size: int
    ) -> None:
        super().__init__()
        self.unet, self.errors = unet, errors
        self._scheduler, self._levels, self._patch_size = scheduler, levels, patch_size

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:  # noqa: ARG002
        scheduler, num_timesteps = self._scheduler, len(self._scheduler)
        x = to_patches(centres(images, self._levels), self._patch_size)
        t = (noise.uniform() * num_timesteps).long()
        e = noise.normal(*x.shape[1:])
        noisy = scheduler.add_noise(x, e, t)
        target = e if scheduler.config.prediction_type == "epsilon" else scheduler.get_velocity(x, e, t)
        output = self.unet(noisy, t).sample.float()
        denoising = (output - target).square().mean()
        # The table is the variance of a normal density of x - x^: its likelihood is highest at the mean squared error.
        a = scheduler.alphas_cumprod.to(x)[t]
        error = (x - denoised(scheduler, output.detach(), noisy, a.view(-1, 1, 1, 1))).square()
        expected = self.errors(t / (num_timesteps - 1), a)
        fit = 0.5 * (torch.log(expected) + error / expected).mean()
        return {"loss": denoising + fit, "denoising": denoising, "error_fit": fit}


class Diffusion(Family):
    """DDPM with a U-Net and the cosine schedule."""

    name = "diffusion"

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self.config = grid, config
        self.scheduler = make_scheduler(config)
        self.patch_size = choose_patch_size(config, height=grid.height, width=grid.width)
        self.unet = build_unet(config, grid)
        height, width = self.unet.config.sample_size
        self.errors = SquaredErrorTable(shape=(self.unet.config.in_channels, height, width))

    def players(self) -> dict[str, Player]:
        player = DenoisingPlayer(self.unet, self.errors, self.scheduler, levels=self.grid.levels, patch_size=self.patch_size)
        return {"denoiser": player}

    def optimisation(self) -> dict[str, Optimisation]:
        return {"denoiser": Optimisation.of(self.config)}

    def averaged(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "errors": self.errors}

    @property
    def num_function_evaluations(self) -> int:
        return self.config.num_sample_steps

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return pure noise (num_images, C, H, W) on the network's device; drawn on the CPU, as diffusers' pipelines do."""
        height, width = self.unet.config.sample_size
        drawn = torch.randn(num_images, self.unet.config.in_channels, height, width, generator=generator)
        return drawn.to(self.unet.device)

    @torch.no_grad()
    def path(self, x: Tensor, num_steps: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the images, ever less noisy, after each ancestral step from pure noise `x` (2006.11239, alg. 2)."""
        self.scheduler.set_timesteps(num_steps)
        by_parts = Parts()  # of the network alone: a step draws noise for all images together
        for t in self.scheduler.timesteps:
            output = by_parts(lambda part, t=t: self.unet(part, t).sample, x)
            x = self.scheduler.step(output, t, x, generator=generator).prev_sample
            yield x

    def to_images(self, x: Tensor) -> Tensor:
        """Return the images on the grid, uint8 on the CPU, of values (B, C, H, W)."""
        return quantise(from_patches(x, self.patch_size), self.grid.levels).cpu()

    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        return self._draw(self.config.num_sample_steps, num_images, generator)

    def shorter_paths(self) -> dict[int, Sampler]:
        possible = [steps for steps in SHORTER_STEPS if len(self.scheduler) % steps == 0]
        return {steps: partial(self._draw, steps) for steps in possible if steps < self.config.num_sample_steps}

    def _draw(self, num_steps: int, num_images: int, generator: torch.Generator) -> Tensor:
        parts = []
        for size in sizes_of_parts(num_images):
            *_, x = self.path(self.noise(size, generator), num_steps, generator)
            parts.append(self.to_images(x))
        return torch.cat(parts)

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        nats = torch.cat([self.bound(part, generator).nats.cpu() for part in images.split(IMAGES_AT_ONCE)])
        first = first_timestep(self.scheduler.alphas_cumprod, self.grid.levels)
        detail = (
            f"variational bound over timesteps {first} to {len(self.scheduler) - 1} with learnt variances, discretised "
            f"normal decoder at timestep {first}"
        )
        return Likelihood(bits=nats / math.log(2) / self.grid.num_dims, kind="lower bound", detail=detail)

    @torch.no_grad()
    def bound(self, images: Tensor, generator: torch.Generator) -> Bound:
        """Return the parts of the bound on -ln P of images uint8 (B, C, H, W)."""
        device = self.unet.device
        alphas_cumprod = self.scheduler.alphas_cumprod.to(device)
        last, by_parts = len(alphas_cumprod) - 1, Parts()

        def denoise(x: Tensor, t: int) -> Tensor:
            output = by_parts(lambda part: self.unet(part, torch.tensor(t, device=device)).sample, x)
            return denoised(self.scheduler, output, x, alphas_cumprod[t])

        def squared_error(t: int) -> Tensor:
            return self.errors(torch.tensor([t / last], device=device), alphas_cumprod[t])

        return variational_bound(
            to_patches(images, self.patch_size).to(device),
            levels=self.grid.levels,
            alphas_cumprod=alphas_cumprod,
            denoise=denoise,
            squared_error=squared_error,
            generator=generator,
        )

    def saved(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "errors": self.errors}

    def save(self, directory: Path) -> None:
        """Save what `DDPMPipeline` and `DDIMPipeline` load, and beside it the table of errors, which only the bound needs."""
        DDPMPipeline(unet=self.unet, scheduler=self.scheduler).save_pretrained(directory)
        self.errors.save_pretrained(directory / "errors")
        report.write_usage(directory, self)

    def usage(self) -> str:
        return report.usage_code(self)

    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        report.write(context, self, images, generator, history)


def load_model(directory: Path, grid: Grid, config: Config) -> Diffusion:
    """Return the averaged weights of a diffusion model that `save` wrote under `directory`."""
    return Diffusion(grid, config).restored(directory)
