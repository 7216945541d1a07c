"""Every family of image models at a size that trains in moments, on images of 8x8 pixels."""

from __future__ import annotations

import torch

from stages.common.images.config import ImageModelConfig
from stages.common.images.family import Family
from stages.common.images.grid import Grid
from stages.image.diffusion import config as diffusion
from stages.image.diffusion.model import Diffusion
from stages.image.flow import config as flow
from stages.image.flow.model import Flow
from stages.image.flow_matching import config as flow_matching
from stages.image.flow_matching.model import FlowMatching
from stages.image.gan import config as gan
from stages.image.gan.model import GAN
from stages.image.vae import config as vae
from stages.image.vae.model import VAE

_ALL = {"batch_size": 8, "learning_rate": 1e-3, "seed": 3}
_VAE = _ALL | {"hidden_size": 8, "encoder_hidden_size": 8, "latent_channels": 4}
_FLOW = _ALL | {"hidden_size": 8, "num_transforms": 2, "num_layers": 1, "patch_size": 4}
_UNET = _ALL | {"block_out_channels": (4, 8), "patch_size": 2, "num_sample_steps": 3}
_CLASSES = {"class_conditional": True}

CONFIGS: dict[str, ImageModelConfig] = {
    "vae": vae.Config(**_VAE),
    "vae_of_classes": vae.Config(**_VAE, **_CLASSES),
    "vae_kl": vae.Config(**_ALL, architecture="autoencoder_kl", hidden_size=32, latent_channels=2),
    "gan": gan.Config(**_ALL, generator_size=8, discriminator_size=8, latent_size=4),
    "flow_coupling": flow.Config(**_FLOW),
    "flow_autoregressive": flow.Config(**_FLOW, architecture="autoregressive"),
    "flow_of_classes": flow.Config(**_FLOW, **_CLASSES),
    "flow_matching": flow_matching.Config(**_UNET),
    "flow_matching_of_classes": flow_matching.Config(**_UNET, **_CLASSES),
    "diffusion": diffusion.Config(**_UNET, num_timesteps=21),
}
_MODELS = {vae.Config: VAE, gan.Config: GAN, flow.Config: Flow, flow_matching.Config: FlowMatching, diffusion.Config: Diffusion}


def tiny_family(name: str, grid: Grid) -> Family:
    """Return a family with fresh weights that follow from the seed of its config."""
    config = CONFIGS[name]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _MODELS[type(config)](grid, config)
