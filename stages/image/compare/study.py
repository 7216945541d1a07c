"""All numbers of a comparison in one place, and the questions that tables, claims and pictures ask of them; verdicts: `pairs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from stages.common.images.grid import Grid
from stages.common.verdicts import Difference, Estimate, Sampled, estimate
from stages.image.compare.contrasts import Pool, logarithms, pool_of, unpaired
from stages.image.compare.models import Contestant, usual_budget

COSTS = (
    "training_tflop",
    "parameters",
    "extra_parameters",
    "wall_seconds",
    "cpu_seconds",
    "peak_memory_gib",
    "latency_ms_per_image",
    "num_function_evaluations",
)
"""Columns that say what a model costs, not what it is worth."""
ITERATIVE = ("flow_matching", "diffusion")
"""Families that make a sample in many small steps."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of a model.

    Attributes:
        key: as in `metrics.json`.
        title: for people, with the unit.
        unit: alone.
        higher_is_better: None where there is no better, such as a ratio that should be 1.
        is_count: a whole number, the same for each seed.
        in_ratios: two of them are compared by their ratio, for they differ by orders of magnitude and vary in proportion.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    is_count: bool = False
    in_ratios: bool = False


COLUMNS = {
    column.key: column
    for column in (
        Column(key="fd_ratio", title="distance (0 real, 1 pixels)", unit="1", higher_is_better=False),
        Column(key="fd", title="Fréchet distance", unit="1", higher_is_better=False),
        Column(key="fd_train", title="Fréchet distance to train", unit="1", higher_is_better=None),
        Column(key="fd_gap", title="Fréchet distance above that to train", unit="1", higher_is_better=None),
        Column(key="kid", title="KID", unit="1", higher_is_better=False),
        Column(key="precision", title="precision", unit="1", higher_is_better=True),
        Column(key="recall", title="recall", unit="1", higher_is_better=True),
        Column(key="density", title="density", unit="1", higher_is_better=True),
        Column(key="coverage", title="coverage", unit="1", higher_is_better=True),
        Column(key="vendi_ratio", title="Vendi ÷ real", unit="1", higher_is_better=None),
        Column(key="class_tv", title="class shares, TV", unit="1", higher_is_better=False),
        Column(key="missing_classes", title="classes missing", unit="1", higher_is_better=False),
        Column(key="modes", title="modes reached", unit="1", higher_is_better=True),
        Column(key="mode_divergence", title="divergence from equal modes", unit="nat", higher_is_better=False),
        Column(key="class_confidence", title="largest class probability", unit="1", higher_is_better=None),
        Column(key="laplacian_ratio", title="Laplacian ÷ real", unit="1", higher_is_better=None),
        Column(key="hf_ratio", title="fine detail ÷ real", unit="1", higher_is_better=None),
        Column(key="nn_ratio", title="nearest train ÷ real", unit="1", higher_is_better=None),
        Column(key="memorised_share", title="near copies of train", unit="1", higher_is_better=False),
        Column(key="duplicate_share", title="exact copies of train", unit="1", higher_is_better=False),
        Column(key="path_ratio", title="way between latents ÷ distance of its ends", unit="1", higher_is_better=False),
        Column(key="fade_ratio", title="cross-fade ÷ distance of its ends", unit="1", higher_is_better=None),
        Column(
            key="path_excess", title="(way between latents − cross-fade) ÷ distance of ends", unit="1", higher_is_better=False
        ),
        Column(key="path_left", title="images of neither class between latents", unit="1", higher_is_better=False),
        Column(key="fade_left", title="images of neither class in a cross-fade", unit="1", higher_is_better=None),
        Column(key="left_excess", title="images of neither class, latents − cross-fade", unit="1", higher_is_better=False),
        Column(key="bits_per_dim", title="bit/dim", unit="bit/dim", higher_is_better=False),
        Column(key="bits_gap", title="bit/dim above train", unit="bit/dim", higher_is_better=None),
        Column(key="parameters", title="parameters", unit="1", higher_is_better=None, is_count=True),
        Column(key="extra_parameters", title="for training only", unit="1", higher_is_better=None, is_count=True),
        Column(key="training_tflop", title="training, TFLOP", unit="TFLOP", higher_is_better=None),
        Column(key="wall_seconds", title="training, s", unit="s", higher_is_better=False, in_ratios=True),
        Column(key="cpu_seconds", title="training, CPU s", unit="s", higher_is_better=False, in_ratios=True),
        Column(key="peak_memory_gib", title="memory, GiB", unit="GiB", higher_is_better=False, in_ratios=True),
        Column(key="latency_ms_per_image", title="ms/image", unit="ms", higher_is_better=False, in_ratios=True),
        Column(key="num_function_evaluations", title="calls/image", unit="1", higher_is_better=False, is_count=True),
        Column(key="gradient_spread", title="spread of ln gradient norm", unit="1", higher_is_better=False),
    )
}


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What makes a Fréchet distance readable, on the main extractor.

    Attributes:
        floor: of real training images to unseen ones.
        ceiling: of images whose pixels are drawn one by one, each as often as in train.
        num_samples: images on the side of the model; num_reference: real ones.
        extractor: name of the main extractor.
        train_floor: of unseen real images to all of train; num_train_floor: unseen images in it.
        train_copy: of the training images of `floor` to all of train, among which they are: what a model that copies has.
        num_train: training images.
    """

    floor: float
    ceiling: float
    num_samples: int
    num_reference: int
    extractor: str
    train_floor: float
    num_train_floor: int
    train_copy: float
    num_train: int


@dataclass(frozen=True, kw_only=True)
class ModeAnchors:
    """What makes a count of modes readable.

    Attributes:
        num_modes: equally likely ones.
        real_modes, real_divergence: of as many real train stacks as there are samples, read by the same judge.
        expected: modes among as many perfect samples, on average.
        accuracy: share of stacks whose mode the judge reads right.
        judge, judge_sha256: its name and weights.
    """

    num_modes: int
    real_modes: int
    real_divergence: float
    expected: float
    accuracy: float
    judge: str
    judge_sha256: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that was measured.

    Attributes:
        numbers: label -> key of a column -> number; a key is missing where a model has no such number.
        anytime: label -> share of the budget -> Fréchet distance.
        raw: label -> Fréchet distance of the weights after the last step, without the average.
        by_calls: label -> calls of the network for a sample, fewer than usual -> Fréchet distance.
        distances: space (an extractor or pixels) -> label -> Fréchet distance, mean over seeds.
        agreement: pair of spaces -> Kendall's tau of the two rankings; see `scores.agreement_of`.
        split: what samples are held against and bits are measured on.
        tolerance: of the budget, for a verdict.
        num_resamples, seed: of the bootstrap.
        modes: what a count of modes is held against; None where modes are not counted.
        real: key of a column -> what as many real train images have as there are samples.
    """

    grid: Grid
    contestants: Sequence[Contestant]
    anchors: Anchors
    numbers: Mapping[str, Mapping[str, Sampled]]
    anytime: Mapping[str, Mapping[str, Sampled]]
    raw: Mapping[str, Sampled]
    distances: Mapping[str, Mapping[str, float]]
    agreement: Mapping[tuple[str, str], Estimate]
    split: str
    tolerance: float
    num_resamples: int
    seed: int
    by_calls: Mapping[str, Mapping[int, Sampled]] = field(default_factory=dict)
    modes: ModeAnchors | None = None
    real: Mapping[str, float] = field(default_factory=dict)

    def number(self, label: str, key: str) -> Sampled | None:
        """Return a number of a model, None where it has none."""
        return self.numbers[label].get(key)

    def estimate(self, label: str, key: str) -> Estimate | None:
        """Return mean and interval of a number, None where the model has none."""
        found = self.number(label, key)
        return None if found is None else estimate(found)

    def compared(self, label: str, key: str) -> Sampled | None:
        """Return a number as it is compared: its logarithm where ratios are; None where the model has none."""
        found = self.number(label, key)
        return logarithms(found) if found is not None and COLUMNS[key].in_ratios else found

    def pool(self, key: str) -> Pool | None:
        """Return the spread from seed to seed of a number, pooled over the trained models; None where they are too few."""
        found = (self.compared(one.label, key) for one in self.trained())
        return pool_of([number for number in found if number is not None])

    def difference(self, first: Contestant, second: Contestant, key: str) -> Difference | None:
        """Return first minus second, of logarithms where ratios are compared; None where one has no such number or spread.

        Densities fitted without steps do not vary as trainings do, so two of them are judged by their own spread.
        """
        one, other = self.compared(first.label, key), self.compared(second.label, key)
        pool = None if first.is_classic and second.is_classic else self.pool(key)
        return None if one is None or other is None else unpaired(one, other, pool)

    @cached_property
    def known_bits(self) -> dict[tuple[str, str], Difference]:
        """Differences in bits that were computed already, by labels: a bootstrap takes its time."""
        return {}

    def families(self) -> list[str]:
        """Return the names of the families, each once."""
        return list(dict.fromkeys(one.family for one in self.contestants))

    def trained(self) -> list[Contestant]:
        """Return the trained models, one for each, in the table's order."""
        return [one for one in self.contestants if one.is_model and not one.is_classic]

    def is_matched(self, one: Contestant) -> bool:
        """Return whether a model kept to the budget that most models had; classic densities have none and always do."""
        usual = usual_budget(self.contestants)
        return one.is_classic or abs(one.budget - usual) <= self.tolerance * max(one.budget, usual)
