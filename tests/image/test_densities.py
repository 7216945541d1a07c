"""What every exact density must do, for both flows: come back, know its volume, integrate to 1, never beat the truth."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.errors import DataError
from stages.common.images.noise import seeded_generator
from stages.image.flow.checks import log_det_error, round_trip
from stages.image.flow.flows import AutoregressiveFlow, CouplingFlow, from_normal_scores, normal_scores
from stages.image.flow.splines import inverse_spline, num_parameters, spline
from stages.image.flow.transforms import CausalTransform, CouplingTransform, Sizes, halves

BOTH = pytest.mark.parametrize("kind", [CouplingFlow, AutoregressiveFlow])
PLANES = {CouplingFlow: (2, 1, 1), AutoregressiveFlow: (1, 1, 2)}
"""Images of two values: a coupling flow splits the channels of its one patch, an autoregressive one needs two patches."""


def make(kind, *, shape=(1, 4, 4), patch_size=2, num_transforms=3, num_bins=5, stir=0.25):
    """Return a flow with random last layers too, so that it is far from the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels, height, width = shape
        flow = kind(
            channels=channels, height=height, width=width, levels=17, patch_size=patch_size, num_transforms=num_transforms,
            num_bins=num_bins, hidden_size=8, num_layers=1, num_heads=2, dropout=0.0,
        )  # fmt: skip
        for transform in flow.transforms:
            torch.nn.init.normal_(transform.network.head.weight, std=stir)
            torch.nn.init.normal_(transform.network.head.bias, std=stir)
    return flow


def sizes_of(*, rows, columns, patch_values):
    return Sizes(
        rows=rows, columns=columns, patch_values=patch_values, num_bins=4, hidden_size=8, num_layers=2, num_heads=2, dropout=0.0
    )


def values(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.rand(*shape, generator=seeded_generator(seed), dtype=dtype) - 1


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_data_to_latents_and_back_is_the_same_data(kind, dtype, tolerance):
    flow, images = make(kind, stir=0.1).to(dtype), values(32, 1, 4, 4, dtype=dtype)
    assert (round_trip(flow, images) - images).abs().max() < tolerance


@BOTH
def test_latents_to_data_and_back_are_the_same_latents(kind):
    flow, latents = make(kind).double(), torch.rand(32, 1, 4, 4, generator=seeded_generator(1), dtype=torch.float64)
    with torch.no_grad():
        again, _ = flow(flow.inverse(latents))
    assert (again - latents).abs().max() < 1e-9


@BOTH
def test_latents_stay_in_the_unit_cube_even_at_the_edges_of_the_data(kind):
    with torch.no_grad():
        latents, change = make(kind)(torch.stack([torch.full((1, 4, 4), edge) for edge in (-1.0, 1.0)]))
    assert latents.min() >= 0
    assert latents.max() <= 1
    assert change.isfinite().all()


@BOTH
def test_log_abs_det_jacobian_is_that_of_autograd(kind):
    assert log_det_error(make(kind, shape=(3, 4, 2)).double(), values(3, 4, 2)) < 1e-8


@BOTH
def test_the_density_integrates_to_one(kind):
    flow, side = make(kind, shape=PLANES[kind], patch_size=1, stir=0.15).double(), 200
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * (2 / side) - 1
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(centres, centres).view(-1, *PLANES[kind])).exp()
    assert density.max() > 1.5 * density.min()
    assert density.mean() * 4 == pytest.approx(1, abs=1e-3)


@BOTH
def test_outside_the_range_of_images_the_density_is_zero(kind):
    images = values(2, 1, 4, 4)
    images[0, 0, 1, 2] = 1.01
    assert make(kind).double().log_prob(images).isinf().tolist() == [True, False]


@BOTH
def test_a_new_flow_is_the_uniform_density(kind):
    log_prob = make(kind, stir=0).log_prob(values(4, 1, 4, 4, dtype=torch.float32))
    assert log_prob.tolist() == pytest.approx([-16 * math.log(2)] * 4, abs=1e-4)


@BOTH
def test_the_gradient_reaches_every_parameter(kind):
    flow = make(kind)
    flow.log_prob(values(8, 1, 4, 4, dtype=torch.float32)).mean().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


class Gauss:
    """y = A z with z ~ N(0, 1) in two dimensions: correlated, and far inside [-1, 1]."""

    mixing = torch.tensor([[0.2, 0.0], [0.12, 0.15]])

    def draw(self, num, seed):
        return torch.randn(num, 2, generator=seeded_generator(seed)) @ self.mixing.T

    def log_prob(self, points):
        return torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=self.mixing).log_prob(points)


@pytest.fixture(scope="module")
def trained():
    """Both flows after a short training on `Gauss`."""
    flows = {}
    for kind, shape in PLANES.items():
        flow = make(kind, shape=shape, patch_size=1, num_transforms=2, num_bins=8, stir=0)
        optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
        for step in range(100):
            loss = -flow.log_prob(Gauss().draw(256, 100 + step).view(-1, *shape)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 100)
        flows[kind] = flow
    return flows


def gap(flow, shape):
    """Return by how many nats the flow falls short of the truth on fresh points, and the standard error."""
    points = Gauss().draw(5_000, 1)
    with torch.no_grad():
        short = Gauss().log_prob(points) - flow.log_prob(points.view(-1, *shape))
    return float(short.mean()), float(short.std() / math.sqrt(len(points)))


@pytest.mark.slow
@BOTH
def test_no_flow_is_better_than_the_truth(kind, trained):
    mean, error = gap(trained[kind], PLANES[kind])
    assert mean > -3 * error


@pytest.mark.slow
@BOTH
def test_a_linear_gaussian_is_learnt_in_a_short_training(kind, trained):
    mean, _ = gap(trained[kind], PLANES[kind])
    assert mean < 0.1


@pytest.mark.parametrize("number", [0, 1])
def test_a_patch_depends_on_earlier_patches_only(number):
    sizes = sizes_of(rows=2, columns=2, patch_values=2)
    transform = CausalTransform(sizes, number).double()
    torch.nn.init.normal_(transform.network.head.weight)
    inside = torch.rand(4, 2, generator=seeded_generator(0), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda patches: transform(patches[None])[0][0], inside).abs()
    for t in range(4):
        for s in range(4):
            between = jacobian[t, :, s]
            if s == t:  # values of one patch do not see each other
                assert between[0, 1] == between[1, 0] == 0
                assert between.diagonal().min() > 0
            elif (s < t) == (number == 0):
                assert between.min() > 0
            else:
                assert between.max() == 0


def test_one_patch_at_a_time_gives_what_all_at_once_give():
    sizes = sizes_of(rows=1, columns=5, patch_values=3)
    network = CausalTransform(sizes, 0).network.double()
    torch.nn.init.normal_(network.head.weight)
    tokens, cache, found = values(2, 5, 3), None, []
    for position in range(5):
        outputs, cache = network.step(tokens[:, position - 1] if position else None, 2, position, cache)
        found.append(outputs)
    assert (torch.stack(found, 1) - network(tokens)).abs().max() < 1e-12


def test_a_coupling_changes_one_part_as_the_other_says():
    sizes = sizes_of(rows=1, columns=3, patch_values=4)
    transform = CouplingTransform(sizes, 0).double()
    torch.nn.init.normal_(transform.network.head.weight)
    inside = torch.rand(3, 4, generator=seeded_generator(0), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda patches: transform(patches[None])[0][0], inside).abs()
    kept, changed = [0, 3], [1, 2]  # a checkerboard
    assert torch.equal(jacobian[:, kept][..., kept].reshape(6, 6), torch.eye(6, dtype=torch.float64))
    assert jacobian[:, kept][..., changed].max() == 0
    assert jacobian[:, changed][..., kept].min() > 0
    others = jacobian[:, changed][..., changed].reshape(6, 6)
    assert torch.equal(others, others.diagonal().diag())


@pytest.mark.parametrize("num_values", [2, 3, 4, 12, 48])
def test_two_couplings_change_every_value(num_values):
    for number in range(0, 12, 2):
        (kept, changed), second = halves(num_values, number), halves(num_values, number + 1)
        assert kept
        assert sorted(kept + changed) == list(range(num_values))
        assert second == (changed, kept)


def test_six_couplings_of_a_square_pair_its_pixels_in_every_way():
    assert {frozenset(map(frozenset, map(tuple, halves(4, number)))) for number in (0, 2, 4)} == {
        frozenset({frozenset({0, 3}), frozenset({1, 2})}),
        frozenset({frozenset({0, 1}), frozenset({2, 3})}),
        frozenset({frozenset({0, 2}), frozenset({1, 3})}),
    }


def raw_splines(*shape, num_bins=6):
    return 2 * torch.randn(*shape, num_parameters(num_bins), generator=seeded_generator(3), dtype=torch.float64)


def test_a_spline_rises_from_zero_to_one():
    raw = raw_splines(50)[:, None].expand(50, 200, -1)
    transformed, _ = spline(torch.linspace(0, 1, 200, dtype=torch.float64).expand(50, 200), raw)
    assert (transformed.diff(dim=1) > 0).all()
    assert transformed[:, 0].abs().max() < 1e-12
    assert (transformed[:, -1] - 1).abs().max() < 1e-12


def test_the_log_slope_of_a_spline_is_that_of_autograd():
    inside = torch.rand(500, generator=seeded_generator(0), dtype=torch.float64, requires_grad=True)
    transformed, log_slopes = spline(inside, raw_splines(500))
    (slopes,) = torch.autograd.grad(transformed.sum(), inside)
    assert (slopes.log() - log_slopes).abs().max() < 1e-10


def test_the_inverse_of_a_spline_undoes_it():
    inside, raw = torch.rand(500, generator=seeded_generator(0), dtype=torch.float64), raw_splines(500)
    assert (inverse_spline(spline(inside, raw)[0], raw) - inside).abs().max() < 1e-10


def test_raw_zeros_are_the_identity():
    inside = torch.rand(100, generator=seeded_generator(0))
    transformed, log_slopes = spline(inside, torch.zeros(100, num_parameters(16)))
    assert (transformed - inside).abs().max() < 1e-6
    assert log_slopes.abs().max() < 1e-5


def test_normal_scores_are_another_scale_of_the_same_latents():
    latents = torch.rand(1000, generator=seeded_generator(0), dtype=torch.float64)
    assert (from_normal_scores(normal_scores(latents)) - latents).abs().max() < 1e-12
    assert normal_scores(torch.tensor([0.0, 1.0])).isfinite().all()


@BOTH
def test_a_size_that_patches_do_not_cover_is_refused_by_name(kind):
    with pytest.raises(DataError, match="width 5 is not a multiple of patch_size 2"):
        make(kind, shape=(1, 4, 5))


def test_heads_that_do_not_share_the_width_are_refused_where_there_are_heads():
    sizes = {"channels": 1, "height": 4, "width": 4, "levels": 4, "patch_size": 2, "num_transforms": 1, "num_bins": 4}
    CouplingFlow(**sizes, hidden_size=8, num_layers=1, num_heads=3, dropout=0.0)
    with pytest.raises(DataError, match="hidden_size 8 is not a multiple of num_heads 3"):
        AutoregressiveFlow(**sizes, hidden_size=8, num_layers=1, num_heads=3, dropout=0.0)


def test_a_coupling_of_patches_of_one_value_is_refused():
    with pytest.raises(DataError, match="set patch_size to 2 or more, or architecture to autoregressive"):
        make(CouplingFlow, shape=(1, 4, 4), patch_size=1)
