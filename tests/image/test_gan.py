"""The GAN: each player trains its own network only, penalties reach the discriminator, losses are the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.errors import DataError, RecipeError
from stages.common.images.grid import Grid
from stages.common.images.noise import seeded_generator, whole_batch
from stages.image.gan.config import Config
from stages.image.gan.model import (
    GAN,
    GANPipeline,
    accuracy,
    as_constant,
    discriminator_loss,
    generator_loss,
    played,
    squared_gradients,
)
from stages.image.gan.networks import Discriminator, Generator
from stages.image.gan.report import formula

GRID = Grid(name="toy", license="cc0-1.0", levels=5, channels=1, height=8, width=8, classes=(), sizes={}, sha256={})
CONFIG = Config(generator_size=16, discriminator_size=16, latent_size=6, gamma=2.0)
LABELS = torch.full((6,), -1)


def make_gan(config=CONFIG, grid=GRID):
    """Return a GAN whose parameters are all random, so that no zero at the start hides a path."""
    gan = GAN(grid, config)
    generator = seeded_generator(7)
    with torch.no_grad():
        for network in (gan.generator, gan.discriminator):
            for parameter in network.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return gan


def real_images(num=6):
    return torch.randint(GRID.levels, (num, *GRID.shape), generator=seeded_generator(1)).to(torch.uint8)


def play(gan, name):
    losses = gan.players()[name](real_images(), LABELS, whole_batch(6, 11))
    losses["loss"].backward()
    return losses


def gradients(network):
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("loss", ["relativistic", "non_saturating"])
@pytest.mark.parametrize(("mover", "waiting"), [("discriminator", "generator"), ("generator", "discriminator")])
def test_a_players_step_leaves_a_gradient_in_its_own_network_and_none_in_the_other(mover, waiting, loss):
    gan = make_gan(CONFIG.model_copy(update={"loss": loss}))
    play(gan, mover)
    # The bias of all logits alone has gradient 0 where only their differences count.
    assert all(gradient is not None for gradient in gradients(getattr(gan, mover)))
    assert all(gradient.abs().max() > 0 for gradient in gradients(getattr(gan, mover)) if gradient.ndim > 1)
    assert gradients(getattr(gan, waiting)) == [None] * len(gradients(getattr(gan, waiting)))
    assert all(parameter.requires_grad for parameter in getattr(gan, waiting).parameters()), "the other can train next"


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_a_player_registers_its_own_network_only(name):
    gan = make_gan()
    registered = {id(parameter) for parameter in gan.players()[name].parameters()}
    assert registered == {id(parameter) for parameter in getattr(gan, name).parameters()}


def test_a_constant_network_passes_gradient_to_its_input():
    network = nn.Linear(3, 1)
    images = torch.ones(2, 3, requires_grad=True)
    as_constant(network)(images).sum().backward()
    assert torch.equal(images.grad, network.weight.detach().expand(2, 3))
    assert network.weight.grad is None


def test_relativistic_losses_are_the_hand_formula():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    by_hand = (math.log(1 + math.exp(0.5 - 1.0)) + math.log(1 + math.exp(1.0 + 2.0))) / 2
    assert float(discriminator_loss(real, fake, "relativistic")) == pytest.approx(by_hand)
    by_hand = (math.log(1 + math.exp(1.0 - 0.5)) + math.log(1 + math.exp(-2.0 - 1.0))) / 2
    assert float(generator_loss(real, fake, "relativistic")) == pytest.approx(by_hand)


def test_classic_losses_are_cross_entropies():
    real, fake = torch.tensor([0.3]), torch.tensor([-0.7])
    by_hand = -math.log(1 / (1 + math.exp(-0.3))) - math.log(1 - 1 / (1 + math.exp(0.7)))
    assert float(discriminator_loss(real, fake, "non_saturating")) == pytest.approx(by_hand)
    assert float(generator_loss(real, fake, "non_saturating")) == pytest.approx(-math.log(1 / (1 + math.exp(0.7))))


def test_an_undecided_game_costs_log_two_and_orders_no_pair():
    logits = torch.zeros(4)
    assert float(discriminator_loss(logits, logits, "relativistic")) == pytest.approx(math.log(2))
    assert float(generator_loss(logits, logits, "relativistic")) == pytest.approx(math.log(2))
    assert float(accuracy(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0]))) == 0.75


def test_real_logits_have_no_gradient_in_the_generators_loss_but_change_it():
    first, second = make_gan(), make_gan()
    with torch.no_grad():
        second.discriminator.encoder.from_image.weight.mul_(1.5)
    losses = [play(gan, "generator")["loss"] for gan in (first, second)]
    assert float(losses[0].detach()) != float(losses[1].detach())
    # The gradient by hand: with r = D(x) as plain numbers, dL = -sigmoid(r - D(G(z))) dD(G(z)).
    gan = make_gan()
    noise = whole_batch(6, 11)
    fake = played(gan.generator, real_images(), noise)
    real = (real_images() + noise.uniform(*GRID.shape)) * (2 / GRID.levels) - 1
    real_logits, fake_logits = gan.discriminator(real), gan.discriminator(fake)
    weights = -torch.sigmoid(real_logits - fake_logits).detach() / 6
    expected = torch.autograd.grad((weights * fake_logits).sum(), list(gan.generator.parameters()))
    for gradient, wanted in zip(gradients(first.generator), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_a_penalty_is_the_squared_slope_of_each_image():
    slope = torch.tensor([3.0, -4.0])
    real, fake = (torch.randn(5, 2, generator=seeded_generator(seed)).requires_grad_() for seed in (1, 2))
    logits = torch.cat([real @ slope, 2 * (fake @ slope)])
    assert [float(value.detach()) for value in squared_gradients(logits, (real, fake))] == pytest.approx([25.0, 100.0])


@pytest.mark.parametrize("which", [0, 1])
def test_penalties_are_differentiated_twice_and_match_finite_differences(which):
    network = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 1)).double()
    images = tuple(torch.randn(5, 4, generator=seeded_generator(seed), dtype=torch.float64).requires_grad_() for seed in (1, 2))

    def penalty():
        return squared_gradients(network(torch.cat(images))[:, 0], images)[which]

    weight = network[0].weight
    (found,) = torch.autograd.grad(penalty(), [weight])
    for place in ((0, 0), (1, 3), (2, 2)):
        values = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += change
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weight[place] -= change
        assert float(found[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("penalty", ["r1_r2", "r1", "none"])
def test_the_discriminators_loss_is_the_game_and_gamma_half_of_each_penalty(penalty):
    def losses(gamma):
        gan = make_gan(CONFIG.model_copy(update={"penalty": penalty, "gamma": gamma}))
        return {name: float(value.detach()) for name, value in play(gan, "discriminator").items()}

    plain, punished = losses(0.0), losses(3.0)
    penalties = [value for name, value in punished.items() if name.endswith("_penalty")]
    assert len(penalties) == {"r1_r2": 2, "r1": 1, "none": 0}[penalty]
    assert all(value > 0 for value in penalties)
    assert punished["loss"] == pytest.approx(plain["loss"] + 1.5 * sum(penalties))


def test_r1_is_of_real_images_and_r2_of_fakes():
    gan, noise = make_gan(), whole_batch(6, 11)
    losses = play(gan, "discriminator")
    fake = played(gan.generator, real_images(), noise).detach()
    real = (real_images() + noise.uniform(*GRID.shape)) * (2 / GRID.levels) - 1

    def penalty(images):
        (slopes,) = torch.autograd.grad(gan.discriminator(images.requires_grad_()).sum(), images)
        return float(slopes.square().flatten(1).sum(1).mean())

    assert penalty(real) != pytest.approx(penalty(fake), rel=1e-2)
    assert float(losses["r1_penalty"].detach()) == pytest.approx(penalty(real), rel=1e-4)
    assert float(losses["r2_penalty"].detach()) == pytest.approx(penalty(fake), rel=1e-4)


@pytest.mark.parametrize("penalty", ["r1_r2", "r1"])
def test_each_penalty_reaches_every_weight_of_the_discriminator(penalty):
    found = []
    for gamma in (0.0, 3.0):
        gan = make_gan(CONFIG.model_copy(update={"penalty": penalty, "gamma": gamma}))
        play(gan, "discriminator")
        found.append(gradients(gan.discriminator))
    weights = [plain.ndim > 1 for plain in found[0]]
    assert sum(weights) > 5
    changed = [not torch.allclose(*pair, rtol=1e-3) for pair in zip(*found, strict=True)]
    assert all(change for change, is_weight in zip(changed, weights, strict=True) if is_weight)


def test_fakes_carry_the_noise_that_real_images_carry():
    class Exact(nn.Module):
        config = CONFIG.model_copy(update={"latent_size": 1}).model_copy()

        def forward(self, latents):
            return torch.full((len(latents), *GRID.shape), 2 * 2.5 / GRID.levels - 1)

    exact = Exact()
    exact.config = type("Settings", (), {"latent_size": 1, "levels": GRID.levels})
    fake = played(exact, torch.zeros(64, *GRID.shape, dtype=torch.uint8), whole_batch(64, 3))
    level = (fake + 1) * GRID.levels / 2
    assert float(level.min()) >= 2.0
    assert float(level.max()) <= 3.0
    assert float(level.std()) == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_neither_network_normalises_over_the_batch():
    gan = make_gan()
    kinds = {type(module).__name__ for network in (gan.generator, gan.discriminator) for module in network.modules()}
    assert not any("Norm" in kind for kind in kinds), kinds
    images = torch.randn(4, *GRID.shape, generator=seeded_generator(3))
    torch.testing.assert_close(gan.discriminator(images)[:1], gan.discriminator(images[:1]))


class Dispatched(TorchDispatchMode):
    """Notes the name of every operation."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **kwargs or {})


def test_no_operation_is_attention_whose_second_derivative_a_fused_kernel_has_not():
    gan, images = make_gan(), torch.randn(4, *GRID.shape, generator=seeded_generator(3))
    with Dispatched() as seen:
        gan.discriminator(images)
        gan.generator(torch.randn(4, gan.generator.config.latent_size, generator=seeded_generator(4)))
    assert any("convolution" in name for name in seen.names)
    assert not any("attention" in name or "softmax" in name for name in seen.names), seen.names


def test_one_image_for_each_process_has_no_spread_and_no_nan():
    gan = make_gan()
    images = torch.randint(GRID.levels, (2, *GRID.shape), generator=seeded_generator(3)).to(torch.uint8)
    labels = torch.full((2,), -1)
    player = gan.players()["generator"]
    found = {num: player(images[:num], labels[:num], whole_batch(num, 1)) for num in (1, 2)}
    assert [sorted(values) for values in found.values()] == [["loss"], ["loss", "spread"]]
    assert all(torch.isfinite(value) for values in found.values() for value in values.values())


def test_betas_are_floats_also_when_the_recipe_says_zero():
    config = Config.parse({"beta1": 0, "beta2": 0.9}, where="gan")
    rules = GAN(GRID, config).optimisation()
    assert [type(beta) for rule in rules.values() for beta in rule.betas] == [float] * 4
    assert rules.keys() == GAN(GRID, config).players().keys()


@pytest.mark.parametrize(("key", "value"), [("gamma", -1), ("loss", "wasserstein"), ("beta1", 1.0), ("latent_size", 0)])
def test_settings_without_sense_are_refused_by_name(key, value):
    with pytest.raises(RecipeError, match=f"key '{key}'"):
        Config.parse({key: value}, where="gan")


def test_sides_that_cannot_be_halved_are_refused_by_name():
    grid = Grid(name="odd", license="", levels=5, channels=1, height=10, width=8, classes=(), sizes={}, sha256={})
    with pytest.raises(DataError, match="height 10"):
        GAN(grid, CONFIG)


def test_samples_lie_on_the_grid_and_depend_on_the_generator_alone():
    gan = make_gan()
    first, again, other = (gan.sample(300, seeded_generator(seed)) for seed in (1, 1, 2))
    assert (first.dtype, first.shape) == (torch.uint8, (300, *GRID.shape))
    assert int(first.max()) < GRID.levels
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_saved_model_draws_the_same_images(tmp_path):
    gan = make_gan()
    gan.save(tmp_path / "model")
    images = gan.sample(5, seeded_generator(4))
    pipeline = GANPipeline.from_pretrained(tmp_path / "model")
    drawn = pipeline(batch_size=5, generator=seeded_generator(4), output_type="pt").images
    levels = (drawn * (GRID.levels - 1)).round().to(torch.uint8)
    assert (levels != images).float().mean() < 0.01, "rounding may move a value over the border of its bin, no more"
    loaded = Discriminator.from_pretrained(tmp_path / "model" / "discriminator")
    for network, saved in ((gan.generator, pipeline.generator), (gan.discriminator, loaded)):
        assert all(torch.equal(*pair) for pair in zip(network.parameters(), saved.parameters(), strict=True))


def test_the_pipeline_gives_each_output_type():
    pipeline = GANPipeline(make_gan().generator)
    arrays = pipeline(batch_size=2, generator=seeded_generator(1), output_type="np").images
    assert arrays.shape == (2, 8, 8, 1)
    assert 0 <= arrays.min() <= arrays.max() <= 1
    (pictures,) = pipeline(batch_size=2, generator=seeded_generator(1), return_dict=False)
    assert [picture.size for picture in pictures] == [(8, 8)] * 2
    with pytest.raises(DataError, match="output_type is 'jpeg'"):
        pipeline(output_type="jpeg")


def test_colour_images_come_out_in_colour(tmp_path):
    generator = Generator(latent_size=3, channels=3, height=8, width=8, levels=256, hidden_size=16, num_levels=2, num_blocks=1)
    (picture,) = GANPipeline(generator)(generator=seeded_generator(1)).images
    assert (picture.mode, picture.size) == ("RGB", (8, 8))


def test_a_gan_has_no_likelihood_and_samples_in_one_call():
    gan = make_gan()
    assert gan.likelihood(real_images(), seeded_generator(1)) is None
    assert gan.num_function_evaluations == 1


@pytest.mark.parametrize(
    ("values", "terms"),
    [
        ({"loss": "relativistic", "penalty": "none"}, set()),
        ({"loss": "non_saturating", "penalty": "r1"}, {"‖∇D(x)‖²"}),
        ({"loss": "non_saturating", "penalty": "r1_r2"}, {"‖∇D(x)‖²", "‖∇D(G(z))‖²"}),
    ],
)
def test_the_formula_of_the_report_has_the_penalties_that_are_trained_with(values, terms):
    shown = formula(Config.parse(values, where="gan"))
    assert {term for term in ("‖∇D(x)‖²", "‖∇D(G(z))‖²") if term in shown} == terms
    assert ("σ" in shown) == (values["loss"] == "non_saturating")
