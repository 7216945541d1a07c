"""What defines a comparison of generative and discriminative classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.contract import Input, StageConfig


class Config(StageConfig):
    """Who learns more from few labels, who from many, who knows what he does not know: tables, curves, tested claims."""

    produces: ClassVar[str] = "classifier_comparison"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(kinds=("images",), help="the images that every classifier learned from; classical pairs are fitted here"),
        "models": Input(kinds=("image_model",), help="class-conditional models, at some numbers of labels and seeds", many=True),
        "rivals": Input(
            kinds=("discriminative_classifier",), help="networks for p(c | x) with the same labels, seeds and budget", many=True
        ),
        "foreign": Input(
            kinds=("images",),
            help="the foreign images that the networks were asked about, for the classical pairs",
            optional=True,
            many=True,
        ),
    }

    seed: int = 1337
    """Seed of the bootstrap."""
    split: Literal["test", "validation"] = "test"
    """test: compare one setting of each model. validation: judge trials, several settings of each model, and tell by one rule
    which to take; the classical models choose theirs by themselves and are left out."""
    num_resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap draws of test images and seeds."""
    budget_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share by which counted training FLOPs of a generative model and its rival may differ."""
    num_folds: Annotated[int, Field(ge=2)] = 3
    """Folds of the labelled images by which settings of the classical models are chosen."""
