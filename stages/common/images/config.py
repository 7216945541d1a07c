"""What every family of image models is told: one budget, one batch, one tuning allowance, one way to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
ClassSets = Literal["validation", "test", "all"]


def refuse_without_effect(config: StageConfig, names: Sequence[str], because: str) -> None:
    """Refuse values that change nothing, which would cost a training and tell no difference.

    Raises:
        ValueError: one of `names` has not its default.
    """
    for name in names:
        if getattr(config, name) != type(config).model_fields[name].default:
            raise ValueError(f"{name} changes nothing with {because}: leave it out")


class ImageModelConfig(StageConfig):
    """Base of the families' configs."""

    produces: ClassVar[str] = "image_model"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(kinds=("images",), help="images on one grid; the train split is learned from"),
    }
    shares_work: ClassVar[bool] = True

    seed: int = 1337
    """Seed of the initial weights, of the order of images, of dequantisation and of samples."""
    budget_tflop: Rate = 1.2
    """Training budget in counted floating-point operations, 10^12; the number of steps follows from it."""
    batch_size: Count = 128
    """Images in one step over all processes."""
    learning_rate: Rate = 1e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decoupled weight decay of AdamW."""
    max_gradient_norm: Rate = 1.0
    """Gradients longer than this are scaled down to it."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Largest decay of the moving average of the weights, for each step."""

    num_samples: Count = 1000
    """Images drawn at the end for the metrics, and after 1/8, 1/4 and 1/2 of the budget for the anytime curve."""
    num_likelihood_images: Count = 500
    """Images of each split on which bits per dimension are measured (all, if there are fewer)."""
    checkpoint_seconds: Rate = 60.0
    """Wall time between checkpoints, s; also saved before evaluations, at the end and on request."""
    keep_checkpoints: Count = 2
    """How many checkpoints stay on disk while training."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products while training; auto: float32 on a CPU, the faster one on a GPU. Weights stay float32."""


class ConditionalConfig(ImageModelConfig):
    """Base of the configs of families that can learn one density for each class."""

    inputs: ClassVar[Mapping[str, Input]] = {
        **ImageModelConfig.inputs,
        "foreign": Input(
            kinds=("images",),
            help="other images, brought to the same grid: a class-conditional model says how probable they are",
            optional=True,
            many=True,
        ),
    }

    class_conditional: bool = False
    """Learn p(x | c), one density for each class c, in place of p(x). By Bayes' rule that is a classifier."""
    num_labels: Count | None = None
    """Labelled train images of each class to learn from, by seed; a smaller number takes a part of those. Null: all."""
    num_class_images: Count = 500
    """Images of each set for which the log probability given every class is measured (all, if there are fewer)."""
    class_sets: ClassSets = "test"
    """Sets for which it is measured. validation: those images alone, for trials that choose settings. test: test and validation
    images. all: corrupted test images and foreign images as well."""
    num_class_draws: Annotated[int, Field(ge=2, multiple_of=2)] = 16
    """Random draws for each image and class, the same for all classes; two halves of them tell the estimator's noise."""

    @model_validator(mode="after")
    def _classes_are_used(self) -> Self:
        if self.num_labels is not None and not self.class_conditional:
            raise ValueError(
                "num_labels chooses labelled images; a model without classes does not use labels: set class_conditional: true"
            )
        if not self.class_conditional:
            refuse_without_effect(self, ("num_class_images", "class_sets", "num_class_draws"), "class_conditional: false")
        return self
