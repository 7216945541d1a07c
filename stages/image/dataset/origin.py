"""Where the images come from and how they are to be taken: the recipe's word, then the card's, then the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contract import Context, load_card
from pipeline.errors import DataError
from stages.image.dataset.card import ImageCard, Treatments
from stages.image.dataset.config import Config
from stages.image.dataset.gates import Policy
from stages.image.dataset.items import Origin
from stages.image.dataset.sources import open_card, open_files


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that was decided before the first image is read.

    Attributes:
        name, license, prose: of the data.
        origin: the opened source.
        policy: how images come onto the grid.
        validation, test: parts of the images that go into these splits.
    """

    name: str
    license: str
    prose: str
    origin: Origin
    policy: Policy
    validation: float
    test: float

    @property
    def fractions(self) -> dict[str, float]:
        """Split -> part of the images that should go into it."""
        return {"train": 1 - self.validation - self.test, "validation": self.validation, "test": self.test}


def make_plan(config: Config, context: Context) -> Plan:
    """Resolve the user's files, or else the card.

    Raises:
        CardError, DataError: the source cannot be had, or the settings contradict it.
    """
    if config.files:
        card = ImageCard.model_construct(sources=[])
        name, license_, prose, origin = "your own images", config.license, "", open_files(config.patterns)
    else:
        named = load_card(config.card or "")
        card = named.parsed(ImageCard)
        name, license_, prose, origin = named.name, named.license, named.prose, open_card(card, context)
    validation = config.validation_fraction or card.validation_fraction
    test = config.test_fraction or card.test_fraction
    if validation + test > 0.9:
        raise DataError(f"validation_fraction {validation} and test_fraction {test} leave less than a tenth to learn from")
    policy = policy_of(config, card, origin)
    return Plan(name=name, license=license_, prose=prose, origin=origin, policy=policy, validation=validation, test=test)


def policy_of(config: Config, card: ImageCard, origin: Origin) -> Policy:
    """The recipe's word goes before the card's, the card's before the default.

    Raises:
        DataError: more levels are asked for than the source has.
    """
    levels = config.levels or card.levels or origin.levels
    if levels > origin.levels:
        raise DataError(
            f"levels is {levels}, but the images of {origin.name} have {origin.levels}; more cannot be made up: set "
            f"levels to {origin.levels} or fewer"
        )
    on: Treatments = card.on
    return Policy(
        actions={kind: getattr(config, f"on_{kind}") or action for kind, action in on.model_dump().items()},
        source_levels=origin.levels,
        levels=levels,
        size=config.size or card.size,
        channels=config.channels or card.channels,
        pad=card.pad,
        pool=card.pool,
        labelled=origin.classes is None or len(origin.classes) > 0,
    )
