"""What the classic stage shows: bits per dimension, samples, what was fitted, and the ridges that were tried."""

from __future__ import annotations

import torch
import yaml
from torch import Tensor

from pipeline.contract import Context, write_bytes
from stages.common.images.bits import mean_interval, record_bits, show_bits
from stages.common.images.family_report import Outcome
from stages.common.images.grid import quantise
from stages.common.images.pictures import named_rows, sheet
from stages.image.classic.densities import GaussianMixture, ProbabilisticPCA
from stages.image.classic.model import ClassicModel

SHOWN = 12
"""Images in a row."""

IDEAS = {
    "independent": (
        "Independent pixels",
        "Each value of the image has its own table of probabilities, and no value knows of another. It is the yardstick that "
        "any model must beat: its bits per dimension are respectable and its samples are noise in the shape of an average.",
        "P(x) = Π_d (count_d(x_d) + s) / (N + s·K)",
    ),
    "gaussian": (
        "One Gaussian",
        "All images are taken as one cloud with a mean and a covariance, so that pairs of pixels go together, but nothing "
        "else does. Dequantised images are fitted in closed form, and samples are a mean with correlated noise.",
        "p(y) = N(y; μ, Σ),  Σ = covariance of the bins' centres + (2/K)²/12 · I + ridge",
    ),
    "ppca": (
        "Probabilistic PCA",
        "A few directions in which images vary most are moved by standard normal numbers, and equal noise is added to all "
        "values: a linear decoder, the ancestor of the VAE, with its best weights in closed form.",
        "y = W z + μ + σ ε,  z, ε ~ N(0, 1)",
    ),
    "gmm": (
        "Mixture of Gaussians",
        "Images fall into groups, and each group is a cloud with its own mean and covariance, found by expectation "
        "maximisation (EM). With many groups and few images a group learns its images by heart: compare train and test.",
        "p(y) = Σ_m w_m N(y; μ_m, Σ_m)",
    ),
}


def write(context: Context, model: ClassicModel, outcome: Outcome, test: Tensor, *, name: str) -> None:
    """Write metrics, the section and the card; `test` are the test images, uint8 (B, C, H, W)."""
    title, idea, formula = IDEAS[name.partition("-")[0]]
    context.section.describe(title=f"{title} ({name})" if "-" in name else title, idea=idea, formula=formula)
    _metrics(context, outcome)
    show_bits(context, outcome.likelihood)
    _pictures(context, model, outcome, test)
    _trials(context, model)
    cost = outcome.cost
    context.section.facts(
        f"Cost of {name}",
        {
            "counted training FLOPs": 0,
            "free parameters": cost.parameters,
            "fitting, seconds": cost.wall_seconds,
            "fitting, CPU seconds": cost.cpu_seconds,
            "milliseconds for each sample": cost.latency_ms_per_image,
            "peak memory, GiB": cost.peak_memory_gib,
        },
    )
    _card(context, model, outcome, name)


def _metrics(context: Context, outcome: Outcome) -> None:
    record_bits(context, outcome.likelihood)
    cost = outcome.cost
    context.metric("training_flops", 0, unit="FLOP", higher_is_better=None, n=1)
    context.metric("num_parameters", cost.parameters, unit="1", higher_is_better=None, n=1)
    context.metric("wall_seconds", cost.wall_seconds, unit="s", higher_is_better=False, n=1)
    context.metric("peak_memory_gib", cost.peak_memory_gib, unit="GiB", higher_is_better=False, n=1)
    context.metric("latency_ms_per_image", cost.latency_ms_per_image, unit="ms", higher_is_better=False, n=64, items="images")


def _pictures(context: Context, model: ClassicModel, outcome: Outcome, test: Tensor) -> None:
    levels, figures = model.grid.levels, context.figures
    path = named_rows({"samples": outcome.samples["1"][:SHOWN], "real (test)": test[:SHOWN]}, levels, figures / "samples.png")
    context.section.figure(path, "Samples above, test images below. None was chosen.")
    density = model.density
    if isinstance(density, GaussianMixture) and len(density.means) > 1:
        order = density.weights.argsort(descending=True, stable=True)
        means = _picture(density.means[order], model)
        titles = [f"{share:.1%}" for share in density.weights[order].tolist()]
        path = sheet(means, levels, 10, figures / "means.png", titles=titles)
        context.section.figure(path, "The mean of each Gaussian and its weight: groups that EM found without labels.")
    elif isinstance(density, ProbabilisticPCA):
        steps = [-2.0, -1.0, 0.0, 1.0, 2.0]
        rows = {
            f"direction {number + 1}": _picture(density.mean + _column(steps) * density.directions[:, -1 - number], model)
            for number in range(min(8, density.config.num_components))
        }
        path = named_rows(rows, levels, figures / "directions.png", headings=[f"{step:+.0f}" for step in steps])
        context.section.figure(path, "The mean moved along the directions of largest variance, in standard deviations.")


def _trials(context: Context, model: ClassicModel) -> None:
    best = model.best
    if best is None:
        return
    context.section.table(
        "Ridges tried",
        ["ridge (share of the mean variance)", "bit/dim (validation)", "iterations of EM", "kept"],
        [[trial.ridge, trial.bits, trial.iterations, trial is best] for trial in model.trials],
        caption="Variance added to every value. It is chosen on the validation split, so that no baseline is weaker than it "
        "has to be; test images play no part.",
    )


def _card(context: Context, model: ClassicModel, outcome: Outcome, name: str) -> None:
    grid, found = model.grid, outcome.likelihood["test"]
    metadata = {"library_name": "diffusers", "license": grid.license, "tags": ["groundup", name]}
    low, high = mean_interval(found.bits)
    kind = type(model.density).__name__
    size = f"{grid.height}x{grid.width}, {grid.channels} channel(s), {grid.levels} levels"
    text = f"""---
{yaml.safe_dump(metadata)}---
# {name} on {grid.name}, {outcome.cost.parameters:,} free parameters

Fitted to {model.num_images:,} training images ({size}) in {outcome.cost.wall_seconds:.2g} seconds; no gradient steps.

- Licence of the images: {grid.license}
- Images: {context.input("images").fingerprint}
- Test: {float(found.bits.mean()):.3f} bits per dimension (95 % interval {low:.3f} to {high:.3f}, {len(found.bits)} images;
  {found.kind}: {found.detail})
- `model/` loads with `stages.image.classic.densities.{kind}.from_pretrained`, in this project's checkout.
"""
    write_bytes(context.directory / "card.md", text.encode())


def _picture(values: Tensor, model: ClassicModel) -> Tensor:
    return quantise(values, model.grid.levels).view(-1, *model.grid.shape)


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]
