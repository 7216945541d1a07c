"""Variational autoencoder (Kingma and Welling, arXiv 1312.6114): p(x) = ∫ p(x | z) p(z) dz.

Legend: B images, C channels, H height, W width, D = C·H·W values; Z x h x w the latents of one image; K levels.

The integral has no closed form. An encoder q(z | x) guesses which latents could have made an image, and then
    ln P(x) >= ELBO = E_q[ln p(x | z)] - KL(q(z | x) || p(z)),                                       eq. 3
which a decoder and an encoder raise together. x is an integer and p(x | z) a distribution over integers, so the bound is in
bits per dimension of the data. With classes, everything is given the class c, on both sides of the bound. An image is
*drawn* from p(x | z); the *mean* of p(x | z), which is often shown instead, is an average of images and therefore blurred.
The two are kept apart everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn

from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.images.class_scores import mixture_likelihood
from stages.common.images.family import ConditionalFamily, History, Likelihood, Optimisation, Player, Sampler
from stages.common.images.grid import Grid, centres
from stages.common.images.labels import labels_in_turn
from stages.common.images.noise import BatchNoise
from stages.common.images.parts import Parts
from stages.image.vae.bounds import iwae_bound, kl_to_prior, log_weights
from stages.image.vae.config import Config
from stages.image.vae.networks import Autoencoder, SmallAutoencoder, latent_shape, make_autoencoder, prior_of
from stages.image.vae.pixels import PixelDistribution, pixel_distribution

DECODED_AT_ONCE = 512


class ElboPlayer(Player):
    """Minimises -ELBO of encoder and decoder together, in bits per dimension."""

    def __init__(self, network: Autoencoder, pixels: PixelDistribution, config: Config) -> None:
        super().__init__()
        self.network = network
        self._pixels, self._beta, self._dropout = pixels, config.beta, config.dropout
        self._with_classes = config.class_conditional

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:
        """See `Player`; `reconstruction` is -ln p(x | z) and `kl` the divergence; for beta = 1 the loss is their sum."""
        given = {"labels": labels} if self._with_classes else {}
        posterior = self.network.encode(centres(images, self._pixels.levels), **given).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        # The draw z ~ q(z | x) as a function of noise, so that gradients reach the encoder.  section 2.4
        latents = mean + torch.exp(0.5 * logvar) * noise.normal(*mean.shape[1:])
        outputs = self._decode(latents, noise, given).sample.float()
        # Both terms are sums over an image: a mean in one of them would hide a factor in beta.
        to_bits = 1 / (images[0].numel() * math.log(2))
        reconstruction = -self._pixels.log_prob(outputs, images).flatten(1).sum(1).mean() * to_bits
        kl = kl_to_prior(prior_of(self.network), mean, logvar, latents).mean() * to_bits
        # eq. 3 with its sign turned, for beta = 1
        return {"loss": reconstruction + self._beta * kl, "reconstruction": reconstruction, "kl": kl}

    def _decode(self, latents: Tensor, noise: BatchNoise, given: dict[str, Tensor]) -> DecoderOutput:
        """Decode with dropout of whole feature maps, whose choice is drawn from the batch's noise as all else is."""
        if isinstance(self.network, AutoencoderKL) or not self._dropout:
            return self.network.decode(latents, **given)
        widths = self.network.decoder.block_widths
        kept = [(noise.uniform(width) >= self._dropout) / (1 - self._dropout) for width in widths]
        return self.network.decode(latents, factors=kept, **given)


class VAE(ConditionalFamily):
    """An encoder and a decoder on one grid.

    Raises:
        DataError: the grid has fewer than two levels, or sides that the networks cannot halve.
    """

    name: ClassVar[str] = "vae"
    pooling = "probabilities"

    def __init__(self, grid: Grid, config: Config) -> None:
        if grid.levels < 2:
            raise DataError(f"levels is {grid.levels}: images of one level are all alike; take images with at least 2 levels")
        self.grid, self._config = grid, config
        self.pixels = pixel_distribution(grid.levels, grid.channels)
        self.num_classes = len(grid.classes) if config.class_conditional else 0
        self.network = make_autoencoder(grid, config, self.pixels.outputs_per_value)

    def players(self) -> dict[str, Player]:
        return {"vae": ElboPlayer(self.network, self.pixels, self._config)}

    def optimisation(self) -> dict[str, Optimisation]:
        return {"vae": Optimisation.of(self._config)}

    def averaged(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.network}

    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw z from the prior, then x from p(x | z); with classes, from p(x | z, c) of each class in turn."""
        latents = self.prior(num_images, generator)
        return self.draw(latents, generator, self._in_turn(num_images))

    def sample_given(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self.draw(self.prior(len(labels), generator), generator, labels)

    def sample_sets(self) -> dict[str, Sampler]:
        """`mean`: the means of p(x | z) at the same latents."""

        def means(num_images: int, generator: torch.Generator) -> Tensor:
            return self.mean(self.prior(num_images, generator), self._in_turn(num_images)).round().to(torch.uint8)

        return {"mean": means}

    def prior(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return latents drawn from p(z), float32 (B, Z, h, w)."""
        normal = torch.randn(num_images, *latent_shape(self.network, self.grid), generator=generator)
        return prior_of(self.network).draw(normal, generator)

    def draw(self, latents: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """Return one draw from p(x | z), or p(x | z, c), for each latent, uint8 (B, C, H, W)."""
        uniform = torch.rand(len(latents), *self.grid.shape, generator=generator)
        return self._decoded(self.pixels.sample, latents, labels, uniform)

    def mean(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean of p(x | z), or p(x | z, c), for each latent in levels, float32 (B, C, H, W)."""
        return self._decoded(self.pixels.mean, latents, labels)

    @torch.no_grad()
    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x), each float32 (B, Z, h, w), of images uint8 (B, C, H, W)."""

        def encoded(part: Tensor) -> tuple[Tensor, Tensor]:
            latent = self.network.encode(centres(part, self.grid.levels).to(self.network.device)).latent_dist
            return latent.mean.cpu(), latent.logvar.cpu()

        means, logvars = Parts(DECODED_AT_ONCE).several(encoded, images)
        return means, logvars

    @torch.no_grad()
    def divergence(self, means: Tensor, logvars: Tensor, generator: torch.Generator) -> Tensor:
        """Return KL(q(z | x) || p(z)) of each image, float32 (B,), in nats, from its posterior (`posterior`)."""
        latents = means + torch.exp(0.5 * logvars) * torch.randn(means.shape, generator=generator)
        on_device = (tensor.to(self.network.device) for tensor in (means, logvars, latents))
        return kl_to_prior(prior_of(self.network), *on_device).cpu()

    def log_weights(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the logarithms of the importance weights of `num_importance_samples` latents, float64 (B, k), in nats."""
        return log_weights(self.network, self.pixels, images, self._config.num_importance_samples, generator)

    def log_probs_given(self, images: Tensor, label: int, generator: torch.Generator) -> Tensor:
        return log_weights(self.network, self.pixels, images, self._config.num_class_draws, generator, label).T

    @property
    def class_detail(self) -> str:
        return f"IWAE, k = {self._config.num_class_draws}, the same noise for every class"

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        if self.num_classes:
            return mixture_likelihood(self, images, generator)
        k = self._config.num_importance_samples
        bound = iwae_bound(self.log_weights(images, generator), k)
        return Likelihood(bits=-bound / (self.grid.num_dims * math.log(2)), kind="lower bound", detail=f"IWAE, k = {k}")

    @property
    def num_function_evaluations(self) -> int:
        return 1

    def saved(self) -> dict[str, nn.Module]:
        return {"": self.network}

    def save(self, directory: Path) -> None:
        self.network.save_pretrained(directory)

    def usage(self) -> str:
        own = isinstance(self.network, SmallAutoencoder)
        imported = "from stages.image.vae.networks import SmallAutoencoder" if own else "from diffusers import AutoencoderKL"
        labels = f", labels=torch.arange(16) % {self.num_classes}" if self.num_classes else ""

        def numbers(shape: Iterable[int]) -> str:
            return ", ".join(map(str, (16, *shape)))

        return f"""\
import torch
{imported}
from stages.image.vae.pixels import pixel_distribution

network = {type(self.network).__name__}.from_pretrained(FOLDER).eval()
generator = torch.Generator().manual_seed(0)
latents = torch.randn({numbers(latent_shape(self.network, self.grid))}, generator=generator)
{"latents = network.prior.draw(latents, generator)" if own else "# their prior is N(0, 1)"}
with torch.no_grad():
    outputs = network.decode(latents{labels}).sample  # parameters of the distribution of each value
pixels = pixel_distribution(levels={self.grid.levels}, channels={self.grid.channels})
images = pixels.sample(outputs, torch.rand({numbers(self.grid.shape)}, generator=generator))  # uint8, levels
"""

    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        from stages.image.vae.report import write

        write(context, self, images, generator, history)

    def _in_turn(self, num_images: int) -> Tensor | None:
        return labels_in_turn(num_images, self.num_classes) if self.num_classes else None

    @torch.no_grad()
    def _decoded(self, made: Callable[..., Tensor], latents: Tensor, labels: Tensor | None, *more: Tensor) -> Tensor:
        """Return what is `made` of what the decoder says of the latents, float32 (., C·P, H, W), and of `more` rows."""
        device = self.network.device

        def decoded(rows: Tensor, *others: Tensor) -> Tensor:
            given = {} if labels is None else {"labels": labels[rows].to(device)}
            return made(self.network.decode(latents[rows].to(device), **given).sample.float().cpu(), *others)

        return Parts(DECODED_AT_ONCE)(decoded, torch.arange(len(latents)), *more)


def load_model(directory: Path, grid: Grid, config: Config) -> VAE:
    """Return the averaged weights of a VAE that `save` wrote under `directory`."""
    return VAE(grid, config).restored(directory)
