"""Generative adversarial network: a generator G makes images, a discriminator D tells them from real ones, and each trains
against the other (Goodfellow et al., arXiv 1406.2661).

Legend: B images, C channels, H height, W width; Z size of a latent; K levels of the grid. x is a real image, z ~ N(0, 1).

The default game is R3GAN's (Huang et al., arXiv 2501.05441): the loss compares each real image with a fake one, and D is
kept smooth by the gradient penalties R1 and R2 at every step. A GAN has no likelihood: it is judged by its samples.

The two players share both networks, but each registers and trains one only. So no gradient of one game is left in the
other network, and each player can be wrapped for data-parallel training on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from pipeline.contract import Context
from stages.common.images.family import Family, History, Likelihood, Optimisation, Player
from stages.common.images.grid import Grid, dequantise, quantise
from stages.common.images.noise import BatchNoise
from stages.common.images.parts import Parts
from stages.image.gan.config import Config
from stages.image.gan.networks import Discriminator, Generator
from stages.image.gan.pipeline import GANPipeline

PENALTIES = {"r1_r2": ("r1_penalty", "r2_penalty"), "r1": ("r1_penalty",), "none": ()}
SAMPLED_AT_ONCE = 256


class DiscriminatorPlayer(Player):
    """D's half: minimise its loss + gamma / 2 · (R1 + R2), R3GAN eq. 3 and 4, with fakes that G made beforehand."""

    def __init__(self, generator: Generator, discriminator: Discriminator, config: Config) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._opponent = (generator,)  # in a tuple, so that it is not registered: another player trains it
        self.config = config

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:  # noqa: ARG002
        """See `Player`; the logged scalars say who is winning."""
        (generator,) = self._opponent
        with torch.no_grad():
            fake = played(generator, images, noise)
        real = dequantise(images, generator.config.levels, noise.uniform(*images.shape[1:]))
        logits = self.discriminator(torch.cat([real.requires_grad_(), fake.requires_grad_()]))
        real_logits, fake_logits = logits.chunk(2)
        loss = discriminator_loss(real_logits, fake_logits, self.config.loss)
        names = PENALTIES[self.config.penalty]
        penalties = dict(zip(names, squared_gradients(logits, (real, fake)[: len(names)]), strict=True))
        if penalties:
            loss = loss + self.config.gamma / 2 * torch.stack(list(penalties.values())).sum()
        gap = real_logits.mean() - fake_logits.mean()
        return {"loss": loss, "logit_gap": gap, "accuracy": accuracy(real_logits, fake_logits), **penalties}


class GeneratorPlayer(Player):
    """G's half: make fakes that D, taken as a fixed function, finds more real."""

    def __init__(self, generator: Generator, discriminator: Discriminator, config: Config) -> None:
        super().__init__()
        self.generator = generator
        self._opponent = (discriminator,)
        self.config = config

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:  # noqa: ARG002
        """See `Player`; `spread`, from two images on, is the standard deviation of fakes over that of real images."""
        discriminator = as_constant(self._opponent[0])
        fake = played(self.generator, images, noise)
        real = dequantise(images, self.generator.config.levels, noise.uniform(*images.shape[1:]))
        with torch.no_grad():  # no gradient, but the relativistic loss needs the values
            real_logits = discriminator(real)
        loss = generator_loss(real_logits, discriminator(fake), self.config.loss)
        if len(images) < 2:
            return {"loss": loss}
        spread = (fake.detach().var(0).sum() / real.var(0).sum().clamp_min(1e-12)).sqrt()
        return {"loss": loss, "spread": spread}


def played(generator: Generator, images: Tensor, noise: BatchNoise) -> Tensor:
    """Return as many fakes as `images`, with the noise of dequantisation that real images have, u - 1/2 in bins of 2 / K.

    Without it D would learn to see the noise, and G to draw it, which the grid then throws away.
    """
    fake: Tensor = generator(noise.normal(generator.config.latent_size))
    return fake + (noise.uniform(*images.shape[1:]) - 0.5) * (2 / generator.config.levels)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, loss: str) -> Tensor:
    """Return D's loss, nats: relativistic log(1 + e^(D(G(z)) - D(x))), or -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))."""
    if loss == "relativistic":
        return softplus(fake_logits - real_logits).mean()
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(real_logits: Tensor, fake_logits: Tensor, loss: str) -> Tensor:
    """Return G's loss, nats: the same comparison turned round, or the non-saturating -log sigmoid(D(G(z)))."""
    if loss == "relativistic":
        return softplus(real_logits - fake_logits).mean()
    return softplus(-fake_logits).mean()


def squared_gradients(logits: Tensor, images: tuple[Tensor, ...]) -> list[Tensor]:
    """Return E ||dD(x) / dx||² for each batch in `images`; it can be differentiated again (Mescheder et al., 1801.04406, eq. 9).

    The gradient of the sum of logits holds each image's own, because no image sees another.
    """
    if not images:
        return []
    gradients = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return [gradient.square().flatten(1).sum(1).mean() for gradient in gradients]


def accuracy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the share of pairs of a real and a fake image that D puts in the right order; 0.5 is a fair draw."""
    return (real_logits[:, None] > fake_logits[None, :]).float().mean()


def as_constant(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return `network` as a function whose parameters get no gradient, while its input does."""
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return lambda images: functional_call(network, weights, images)


class GAN(Family):
    """A generator and a discriminator on one grid; DataError where the networks cannot halve its sides."""

    name: ClassVar[str] = "gan"

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self.config = grid, config
        common = {"channels": grid.channels, "height": grid.height, "width": grid.width}
        common |= {"num_levels": config.num_levels, "num_blocks": config.num_blocks}
        self.generator = Generator(
            latent_size=config.latent_size, levels=grid.levels, hidden_size=config.generator_size, **common
        )
        self.discriminator = Discriminator(hidden_size=config.discriminator_size, **common)

    def players(self) -> dict[str, Player]:
        """D plays first, then G against the D of this step."""
        both = (self.generator, self.discriminator, self.config)
        return {"discriminator": DiscriminatorPlayer(*both), "generator": GeneratorPlayer(*both)}

    def optimisation(self) -> dict[str, Optimisation]:
        config = self.config
        rule = Optimisation.of(config, betas=(float(config.beta1), float(config.beta2)))
        return {"discriminator": rule, "generator": rule}

    def averaged(self) -> dict[str, nn.Module]:
        return {"generator": self.generator}

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        return self.decode(torch.randn(num_images, self.config.latent_size, generator=generator))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of `latents`, float32 (B, Z), on the grid: uint8 (B, C, H, W), on the CPU."""
        device = self.generator.device
        images = Parts(SAMPLED_AT_ONCE)(lambda part: self.generator(part.to(device)).cpu(), latents)
        return quantise(images, self.grid.levels)

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood | None:  # noqa: ARG002
        """None: G says how to draw an image, not how probable one is (and Parzen windows mislead, arXiv 1511.01844)."""
        return None

    @property
    def num_function_evaluations(self) -> int:
        return 1

    def saved(self) -> dict[str, nn.Module]:
        return {"generator": self.generator}

    def save(self, directory: Path) -> None:
        GANPipeline(self.generator).save_pretrained(directory)
        self.discriminator.save_pretrained(directory / "discriminator")

    def usage(self) -> str:
        return """\
import torch
from stages.image.gan.pipeline import GANPipeline

pipeline = GANPipeline.from_pretrained(FOLDER)
generator = torch.Generator().manual_seed(0)
images = pipeline(batch_size=16, generator=generator, output_type="pt").images  # float (16, C, H, W) in [0, 1]
"""

    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        from stages.image.gan.report import write

        write(context, self, images, generator, history)


def load_model(directory: Path, grid: Grid, config: Config) -> GAN:
    """Return the averaged weights of a GAN that `save` wrote under `directory`."""
    return GAN(grid, config).restored(directory)
