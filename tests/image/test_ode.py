"""Heun's method and the density along an ODE, on fields whose solutions are known."""

from __future__ import annotations

import math

import pytest
import torch

from stages.common.images import ode


class Counted:
    """A field that counts its calls."""

    def __init__(self, field):
        self.field, self.calls = field, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.field(x, t)


def shrinking(x, t):
    return -x / 2


def bending(x, t):
    """A field that mixes the values and depends on time, with a divergence that depends on x."""
    return torch.sin(x.roll(1, -1) + t) + 0.3 * x * x.roll(2, -1)


def images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def probes(seed=0):
    return torch.Generator().manual_seed(seed)


def exact_divergence(field, x, t):
    jacobians = [torch.autograd.functional.jacobian(lambda y: field(y[None], t)[0], image) for image in x]
    return torch.stack([j.reshape(x[0].numel(), -1).trace() for j in jacobians])


def test_two_calls_are_made_in_each_step_of_heun():
    field = Counted(shrinking)
    ode.heun(field, images(2, 1, 2, 2), num_steps=7)
    assert field.calls == 14 == 7 * ode.CALLS_PER_HEUN_STEP


def test_two_calls_are_made_in_each_step_of_the_density():
    field = Counted(shrinking)
    ode.log_density(field, images(2, 1, 2, 2), num_steps=5, num_probes=1, generator=probes())
    assert field.calls == 10


def test_time_runs_from_noise_at_0_to_data_at_1():
    seen = []

    def field(x, t):
        seen.append(t)
        return torch.ones_like(x)

    end = ode.heun(field, torch.zeros(1, 1, 1, 1), num_steps=4)
    assert seen == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1]
    assert end.item() == 1


def test_the_density_visits_the_same_times_backwards():
    forward, backward = [], []
    ode.heun(lambda x, t: forward.append(t) or -x, images(1, 1, 1, 2), num_steps=6)
    field = lambda x, t: backward.append(t) or -x  # noqa: E731
    ode.log_density(field, images(1, 1, 1, 2), num_steps=6, num_probes=1, generator=probes())
    assert backward == forward[::-1]


def test_the_path_holds_start_and_end():
    start = images(3, 1, 2, 2)
    path = ode.heun_path(bending, start, num_steps=5)
    assert len(path) == 6
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], ode.heun(bending, start, num_steps=5))


def test_the_error_of_heun_falls_fourfold_when_the_steps_double():
    start = images(4, 1, 2, 2)
    truth = ode.heun(bending, start, num_steps=400)
    errors = [float((ode.heun(bending, start, num_steps=n) - truth).abs().max()) for n in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)


def test_the_error_of_the_density_falls_fourfold_when_the_steps_double():
    data = images(4, 1, 2, 2)

    def density(n):
        return ode.log_density(bending, data, num_steps=n, num_probes=4, generator=probes())

    truth = density(200)
    errors = [float((density(n) - truth).abs().max()) for n in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("num_probes", [4, 64])
def test_the_density_of_a_shrinking_field_is_the_analytic_one(num_probes):
    """v = -x/2 turns N(0, I) into N(0, e^-1 I): its divergence -D/2 is the same for every probe of signs."""
    data = images(8, 1, 8, 8) * math.exp(-0.5)
    got = ode.log_density(shrinking, data, num_steps=40, num_probes=num_probes, generator=probes())
    variance = math.exp(-1)
    squares = data.flatten(1).square().sum(1)
    expected = -0.5 * squares / variance - 32 * math.log(2 * math.pi * variance)
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=0)


def test_the_density_of_samples_integrates_to_one():
    """In one dimension the density of the ODE's end points, summed over a fine grid, is 1."""
    places = torch.linspace(-8, 8, 2001, dtype=torch.float64).view(-1, 1, 1, 1)

    def field(x, t):
        return torch.tanh(x - t) + 0.5 * t

    density = ode.log_density(field, places, num_steps=60, num_probes=1, generator=probes()).exp()
    assert float(torch.trapezoid(density, places.flatten())) == pytest.approx(1, abs=1e-3)


def test_with_as_many_probes_as_values_the_divergence_is_exact():
    x = images(3, 1, 2, 3)
    velocity, divergence = ode.velocity_and_divergence(bending, x, 0.3, num_probes=6, generator=probes())
    torch.testing.assert_close(velocity, bending(x, 0.3))
    torch.testing.assert_close(divergence, exact_divergence(bending, x, 0.3))


def test_hutchinson_is_unbiased():
    x = images(2, 1, 2, 3)
    many = x.repeat(600, 1, 1, 1)  # each has signs of its own
    draws = ode.velocity_and_divergence(bending, many, 0.3, num_probes=2, generator=probes(3))[1].view(600, 2)
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert float(standard_error.min()) > 0  # it is an estimate, not the exact value
    assert float(((draws.mean(0) - exact_divergence(bending, x, 0.3)) / standard_error).abs().max()) < 4


def test_more_probes_mean_less_noise():
    x = images(1, 1, 2, 8).repeat(400, 1, 1, 1)

    def spread(num_probes):
        return float(ode.velocity_and_divergence(bending, x, 0.3, num_probes=num_probes, generator=probes(5))[1].var())

    assert spread(1) / spread(8) == pytest.approx(8, rel=0.5)


def test_the_same_generator_gives_the_same_density():
    data = images(2, 1, 2, 4)

    def density(seed):
        return ode.log_density(bending, data, num_steps=4, num_probes=1, generator=probes(seed))

    assert torch.equal(density(1), density(1))
    assert not torch.equal(density(1), density(2))


def test_no_gradient_graph_is_left_behind():
    weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    data = images(2, 1, 1, 2)
    density = ode.log_density(lambda x, t: weight * torch.sin(x), data, num_steps=3, num_probes=1, generator=probes())
    assert not density.requires_grad
    assert weight.grad is None
