"""pythae's VAE and IWAE against our VAE stage on digits: `python -m benchmarks.image_peers_vae [--seeds 3] [--budget 0.6]`.

See `image_peers` for the rules. Compared are bits/dim on all test images by the IWAE bound with 128 latents. pythae decodes
to a mean with a squared or a cross-entropy error, and its `get_nll` adds up these; neither is a probability of integers. So it
gets what its interface allows: an own decoder whose outputs are one logit for each of the 17 levels (as ours), and a
`loss_function` (of IWAE also `forward`, whose reshaping expects a picture) that takes the categorical log probability where
pythae takes its error; all else of its losses is kept. Its trainer trains: Adam, batches of 64, cosine decay over the
epochs, and the best epoch by the loss on validation images, which our side may not look at. Two pairs of networks are tried:
pythae's own ResNet for MNIST and its default perceptron, both cut down, to about three times our parameters. Their FLOPs for
each image are not ours, so images per second compare unlike things; a third pair (`matched`: the ResNet with one halving
only) has about our parameters and, trained as a VAE, our FLOPs for each image.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.image_peer_side import (
    NUM_LATENTS,
    Images,
    flops_of,
    importance_bits,
    parser_of,
    serve_bursts,
    start,
    write_result,
)

LATENT_DIM, BATCH_SIZE = 16, 64
NUM_IMPORTANCE_SAMPLES = 5
"""Latents of IWAE for each image in training; pythae's default is 10, which would halve the steps that the budget pays for."""
RATES = (3e-3, 1e-3, 6e-3, 1.2e-2)
ROWS_AT_ONCE = 16

_MATCHED_VAE, _MATCHED_IWAE = "pythae VAE, our size", "pythae IWAE, our size"


def main() -> None:
    """Measure and print, or be pythae's side in its environment."""
    if "--side" in sys.argv:
        _peer(parser_of(__doc__).parse_args())
        return
    from benchmarks import image_peers as peers
    from benchmarks.measuring import Table

    arguments = peers.options(__doc__)
    table = Table("VAE against pythae, bits/dim on digits", packages=["torch", "diffusers"], other="pythae")
    python = peers.environment("pythae", "pythae")
    peers.prepare()
    mine = peers.Chosen(peers.ours("vae", "Groundup VAE"))
    theirs, notes = [], []
    variants: tuple[str, ...] = ("resnet", "mlp")
    for key, name in (("vae", "pythae VAE"), ("iwae", "pythae IWAE"), ("vae", _MATCHED_VAE), ("iwae", _MATCHED_IWAE)):
        if name in (_MATCHED_VAE, _MATCHED_IWAE):
            variants = ("matched",)
        side = peers.Side(name=name, key=key, module="benchmarks.image_peers_vae", python=python, variants=variants, rates=RATES)
        chosen, trials = peers.tune(side, arguments.budget, lambda found: float(found["bits_per_dim"]))
        theirs.append(chosen)
        notes.append(trials)
        variants = (chosen.variant,)  # what is better for the VAE is taken for the IWAE
    notes.append(peers.environment_note(theirs[0].side, "pythae"))
    found = peers.final_runs([mine, *theirs], arguments.seeds, arguments.budget)
    speeds = peers.images_per_second([mine, *theirs], arguments.rounds)
    table.show(peers.likelihood_rows(mine, theirs, found, speeds, f"bits/dim, IWAE bound, k = {NUM_LATENTS}"), notes)


def _peer(arguments: Namespace) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    images = start(arguments)
    model = make_model(arguments.side, arguments.variant, images)
    train, validation = (BaseDataset(split.float(), torch.zeros(len(split))) for split in (images.train, images.validation))
    batch = {"data": images.train[:BATCH_SIZE].float()}
    flops_per_image = flops_of(lambda: model(batch).loss) / BATCH_SIZE
    model.zero_grad(set_to_none=True)
    num_epochs = int(arguments.budget * 1e12 / (flops_per_image * len(train)))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=num_epochs,
            learning_rate=arguments.rate,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=len(validation),
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": num_epochs},
            seed=arguments.seed,
            no_cuda=True,
        )
        trainer = BaseTrainer(model=model, train_dataset=train, eval_dataset=validation, training_config=config)
        if arguments.bursts:
            trainer.prepare_training()
            serve_bursts(lambda: _burst(trainer, len(train)))
            return
        trainer.train()
    bits = importance_bits(log_weights(trainer._best_model.eval(), images), images.num_dims)
    write_result(
        arguments,
        bits=bits.tolist(),
        bits_per_dim=float(bits.mean()),
        num_parameters=sum(p.numel() for p in model.parameters()),
        flops=int(flops_per_image * len(train) * num_epochs),
        num_images=len(train) * num_epochs,
    )


def _burst(trainer: Any, num_images: int) -> tuple[int, float]:
    """One or two epochs of training without what pythae does between epochs."""
    for _ in range(2):
        trainer.train_step(1)
    return 2 * num_images, 0.0


@torch.no_grad()
def log_weights(model: Any, images: Images) -> Tensor:
    """Return ln p(x | z) p(z) / q(z | x) of NUM_LATENTS latents for each test image, float64 (B, k), in nats."""
    found = []
    for part in images.test.split(ROWS_AT_ONCE):
        encoded = model.encoder(part.float())
        mean, logvar = encoded.embedding.double().unsqueeze(1), encoded.log_covariance.double().unsqueeze(1)
        noise = torch.randn(len(part), NUM_LATENTS, mean.shape[-1], dtype=torch.float64)
        latents = mean + torch.exp(0.5 * logvar) * noise
        outputs = model.decoder(latents.flatten(0, 1).float())["reconstruction"]
        errors = categorical_error(outputs, part.repeat_interleave(NUM_LATENTS, dim=0), images.levels).double()
        ratio = -0.5 * latents.square().sum(-1) + 0.5 * (noise.square() + logvar).sum(-1)  # ln p(z) - ln q(z | x)
        found.append(ratio - errors.view(len(part), NUM_LATENTS))
    return torch.cat(found)


def categorical_error(outputs: Tensor, images: Tensor, levels: int) -> Tensor:
    """Return -ln p(x | z) of each image in nats, (B,), of logits (B, K·D) and integers (B, C, H, W) of any type."""
    logits = outputs.reshape(len(images), levels, -1)
    return functional.cross_entropy(logits, images.flatten(1).long(), reduction="none").sum(1)


def make_model(kind: str, variant: str, images: Images) -> Any:
    """Return pythae's VAE or IWAE with a categorical p(x | z). Its data are the levels as float; the encoder scales them."""
    from pythae.models import IWAE, VAE, IWAEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput

    levels = images.levels

    class CategoricalVAE(VAE):  # type: ignore[misc]
        def loss_function(self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor) -> Any:  # noqa: ARG002
            errors = categorical_error(recon_x, x, levels)
            kld = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp(), dim=-1)
            return (errors + kld).mean(), errors.mean(), kld.mean()

    class CategoricalIWAE(IWAE):  # type: ignore[misc]
        def forward(self, inputs: Any, **_: Any) -> Any:
            x, num = inputs["data"], self.n_samples
            encoded = self.encoder(x)
            mu, log_var = (t.unsqueeze(1).repeat(1, num, 1) for t in (encoded.embedding, encoded.log_covariance))
            z, _noise = self._sample_gauss(mu, torch.exp(0.5 * log_var))
            outputs = self.decoder(z.reshape(-1, self.latent_dim))["reconstruction"]
            errors = categorical_error(outputs, x.repeat_interleave(num, dim=0), levels).view(len(x), num)
            # From here on as in pythae: weights of the samples, without their gradients (arXiv 1509.00519, eq. 14).
            ratio = 0.5 * (z.square() - log_var - (z - mu).square() / log_var.exp()).sum(-1)
            log_w = -(errors + ratio)
            shares = log_w.softmax(1).detach()
            return ModelOutput(loss=-(shares * log_w).sum(1).mean(), recon_loss=errors.mean(), reg_loss=ratio.mean())

    encoder, decoder = _networks(variant, images)
    if kind == "vae":
        return CategoricalVAE(VAEConfig(input_dim=images.shape, latent_dim=LATENT_DIM), encoder, decoder)
    config = IWAEConfig(input_dim=images.shape, latent_dim=LATENT_DIM, number_samples=NUM_IMPORTANCE_SAMPLES)
    return CategoricalIWAE(config, encoder, decoder)


def _networks(variant: str, images: Images) -> tuple[Any, Any]:
    """Return pythae's encoder and decoder around the layers of `variant`."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    down, up, width = {"resnet": _resnet, "mlp": _perceptron, "matched": _matched_resnet}[variant](images)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = down
            self.embedding, self.log_var = nn.Linear(width, LATENT_DIM), nn.Linear(width, LATENT_DIM)

        def forward(self, x: Tensor) -> Any:
            hidden = self.layers((x + 0.5) * (2 / images.levels) - 1)
            return ModelOutput(embedding=self.embedding(hidden), log_covariance=self.log_var(hidden))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = up

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).flatten(1))

    return Encoder(), Decoder()


def _resnet(images: Images) -> tuple[nn.Module, nn.Module, int]:
    """pythae's `Encoder_ResNet_VAE_MNIST` and its decoder, with half the feature maps and one halving less."""
    from pythae.models.nn.benchmarks.utils import ResBlock

    channels, height, width = images.shape
    flat = 64 * (height // 4) * (width // 4)
    down = nn.Sequential(
        nn.Conv2d(channels, 32, 4, 2, padding=1),
        nn.Conv2d(32, 64, 4, 2, padding=1),
        *(ResBlock(64, 18) for _ in range(2)),
        nn.Flatten(),
    )
    up = nn.Sequential(
        nn.Linear(LATENT_DIM, flat),
        nn.Unflatten(1, (64, height // 4, width // 4)),
        *(ResBlock(64, 18) for _ in range(2)),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels * images.levels, 4, 2, padding=1),
    )
    return down, up, flat


def _matched_resnet(images: Images) -> tuple[nn.Module, nn.Module, int]:
    """The same blocks around one halving, so that parameters and FLOPs for each image are about those of our networks."""
    from pythae.models.nn.benchmarks.utils import ResBlock

    channels, height, width = images.shape
    flat = 24 * (height // 2) * (width // 2)
    down = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        ResBlock(16, 8),
        nn.Conv2d(16, 24, 4, 2, padding=1),
        *(ResBlock(24, 14) for _ in range(2)),
        nn.Flatten(),
    )
    up = nn.Sequential(
        nn.Linear(LATENT_DIM, flat),
        nn.Unflatten(1, (24, height // 2, width // 2)),
        ResBlock(24, 14),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 4, 2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, channels * images.levels, 3, padding=1),
    )
    return down, up, flat


def _perceptron(images: Images) -> tuple[nn.Module, nn.Module, int]:
    """pythae's default networks, one hidden layer each, narrower."""
    hidden = 120
    down = nn.Sequential(nn.Flatten(), nn.Linear(images.num_dims, hidden), nn.ReLU())
    up = nn.Sequential(nn.Linear(LATENT_DIM, hidden), nn.ReLU(), nn.Linear(hidden, images.levels * images.num_dims))
    return down, up, hidden


if __name__ == "__main__":
    main()
