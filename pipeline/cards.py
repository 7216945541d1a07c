"""Data cards: `data_cards/NAME.md` in the Hugging Face dataset-card form.

The YAML front matter carries the Hub's fields (license, language, ...) for people and the Hub, and a `groundup:` block,
which says where the data comes from and how it is read. Stages use that block; prose is for people and changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import CardError, RecipeError, nearest
from pipeline.strict_yaml import load_yaml

CARDS = Path(__file__).resolve().parent.parent / "data_cards"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Block = TypeVar("Block", bound=BaseModel)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)


class Card(BaseModel):
    """A parsed data card."""

    model_config = ConfigDict(frozen=True)
    name: str
    front_matter: dict[str, Any]
    prose: str

    @property
    def use(self) -> dict[str, Any]:
        """The `groundup:` block: the sources of the data and how to read them."""
        block: dict[str, Any] = self.front_matter["groundup"]
        return block

    @property
    def license(self) -> str:
        """The licence of the data, carried into every artifact made from it.

        For `license: other` it is the `license_name` that the Hub's card form puts beside it.
        """
        stated = self.front_matter["license"]
        named = self.front_matter.get("license_name")
        return str(named if stated == "other" and named else stated)

    def parsed(self, form: type[Block]) -> Block:
        """Return the `groundup:` block as a `form`.

        Raises:
            CardError: names the key and the rule that it breaks.
        """
        try:
            return form.model_validate(self.use)
        except ValidationError as error:
            lines = []
            for problem in error.errors(include_url=False):
                key = ".".join(map(str, ("groundup", *problem["loc"])))
                lines.append(f"key '{key}': {str(problem['msg']).removeprefix('Value error, ')}")
            raise CardError(f"data_cards/{self.name}.md: " + "; ".join(lines)) from None

    def identity(self) -> dict[str, Any]:
        """The front matter that a result depends on."""
        return {"name": self.name, "license": self.license, "use": self.use}


def load_card(name: str, folder: Path = CARDS) -> Card:
    """Read card `name` (a name, never a path).

    Raises:
        CardError: no such card, a malformed one, or one without `license` or `groundup`.
    """
    if not _NAME.fullmatch(name):
        raise CardError(f"card '{name}': a card is named by lower-case letters, digits and dashes, without a path")
    path = folder / f"{name}.md"
    if not path.is_file():
        raise CardError(f"card '{name}' does not exist in {folder.name}/ ({nearest(name, card_names(folder))})")
    parts = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    if parts is None:
        raise CardError(f"{folder.name}/{path.name}: a card opens with YAML front matter between two lines of '---'")
    try:
        front_matter = load_yaml(parts[1], name=f"{folder.name}/{path.name}", first_line=2).values
    except RecipeError as error:
        raise CardError(str(error)) from None
    for key in ("license", "groundup"):
        if key not in front_matter:
            raise CardError(f"{folder.name}/{path.name}: key '{key}' is missing from the front matter")
    if not isinstance(front_matter["groundup"], dict):
        raise CardError(f"{folder.name}/{path.name}: key 'groundup' must be a mapping")
    return Card(name=name, front_matter=front_matter, prose=parts[2].strip())


def card_names(folder: Path = CARDS) -> list[str]:
    """Return the names of all cards, sorted."""
    return sorted(path.stem for path in folder.glob("*.md") if _NAME.fullmatch(path.stem))
