"""A step in bfloat16, as on a GPU: matrix products are rounded, yet losses stay finite and reach every weight."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from stages.common.images.grid import load_grid, load_split
from stages.common.images.training import ImageTraining
from tests.harness import make_context
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS, tiny_family


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"), height=8, width=8)


def make_training(name, dtype, directory, images):
    training = ImageTraining(
        config=CONFIGS[name],
        context=make_context(directory, {"images": images}),
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        family=tiny_family(name, load_grid(images)),
        train=load_split(images, "train"),
        identity={},
        autocast_dtype=dtype,
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # a fresh network has zeros, behind which nothing gets a gradient
        for parameter in training.parameters.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return training


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_in_bfloat16_has_a_finite_loss_and_a_gradient_in_every_weight(name, tmp_path, images):
    exact, rounded = (make_training(name, dtype, tmp_path / str(dtype), images) for dtype in (None, torch.bfloat16))
    for index, (seat, other) in enumerate(zip(rounded.seats, exact.seats, strict=True)):
        losses = [t._loss(player.player, 0, index)["loss"] for t, player in ((rounded, seat), (exact, other))]
        assert losses[0].item() != losses[1].item(), "nothing was rounded: autocast does not reach this player"
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.05, abs=0.05)
        for loss in losses:
            loss.backward()
        for (key, parameter), same in zip(seat.player.named_parameters(), other.player.parameters(), strict=True):
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            # Some gradients are 0 by mathematics: a constant in all logits changes no comparison of them.
            assert parameter.grad.abs().sum() > 0 or same.grad.abs().max() < 1e-6, key
        gradients = [torch.cat([p.grad.flatten() for p in each.player.parameters()]) for each in (seat, other)]
        assert torch.cosine_similarity(*gradients, dim=0) > 0.95
