"""Where data came from, in words: what a record says of its sources, and the data card that tells more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.contract import Card, load_card
from pipeline.errors import CardError
from stages.release.publish.markdown import code, plain

_CARDS = Path(__file__).resolve().parents[3] / "data_cards"
_LIMITS = re.compile(r"\*\*Limits\.\*\*\s*(.+?)(?:\n\s*\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Data:
    """One set of data.

    Attributes:
        artifact: that holds it.
        name: as `names_of` gives it.
        title: for people.
        card: as the artifact used it; None for own files, and where the card was changed since.
        sources: Markdown, one for each source, with version or revision.
        hub: repositories of the Hub that it was read from -> commit.
        sizes: split -> number of documents or images.
    """

    artifact: Artifact
    name: str
    title: str
    card: Card | None
    sources: tuple[str, ...]
    hub: dict[str, str]
    sizes: dict[str, int]

    @property
    def languages(self) -> list[str]:
        """ISO codes, as its card gives them."""
        given = self.card.front_matter.get("language", []) if self.card else []
        return [str(one) for one in (given if isinstance(given, list) else [given])]

    @property
    def limits(self) -> str:
        """What its card says of its limits, one line of Markdown; empty where nothing is said."""
        found = _LIMITS.search(self.card.prose) if self.card else None
        return plain(found[1]) if found else ""


def describe(artifact: Artifact, name: str) -> Data:
    """Read what is known of a set of data that goes by `name`."""
    entries = artifact.record.identity.get("sources", [])
    recorded = next((entry["card"] for entry in entries if "card" in entry), None)
    card = _card(recorded) if recorded else None
    return Data(
        artifact=artifact,
        name=name,
        title=str(card.front_matter.get("pretty_name", name)) if card else name,
        card=card,
        sources=tuple(_sources(entries)),
        hub={str(entry["hub"]): str(entry["commit"]) for entry in entries if "hub" in entry},
        sizes=_sizes(artifact),
    )


def card_text(data: Data) -> bytes | None:
    """Return the data card as it was used, or what the stage wrote about the data; None where it wrote nothing."""
    if data.card is not None:
        return (_CARDS / f"{data.card.name}.md").read_bytes()
    return (data.artifact / "card.md").read_bytes() if "card.md" in data.artifact.record.files else None


def _card(recorded: dict[str, Any]) -> Card | None:
    """Return the card of the checkout if it still says what the record says."""
    try:
        card = load_card(str(recorded["name"]))
    except (CardError, KeyError):
        return None
    return card if card.identity() == recorded else None


def _sizes(artifact: Artifact) -> dict[str, int]:
    """The data stages measure the number of their rows first."""
    name = {"corpus": "documents", "images": "images"}[artifact.record.produces]
    return {str(row["split"]): int(row["value"]) for row in artifact.record.metrics if row["name"] == name and row.get("split")}


def _sources(entries: list[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in entries:
        if "card" in entry:
            lines += [_pinned(source) for source in entry["card"].get("use", {}).get("sources", []) if _is_pinned(source)]
        elif "hub" in entry:
            lines.append(f"Hub {code(str(entry['hub']))} at commit {code(str(entry['commit']))}")
        elif "files" in entry:
            lines.append(f"{len(entry['files'])} file(s) of the publisher; their sha256 stand in the record")
        else:
            lines += [f"{plain(str(key))} {plain(str(value))}" for key, value in entry.items()]
    return lines


def _is_pinned(source: dict[str, Any]) -> bool:
    """A package and a set inside scikit-learn are pinned by their sha256; the engine follows the other kinds."""
    return "package" in source or "sklearn" in source


def _pinned(source: dict[str, Any]) -> str:
    values = source.get("package") or source["sklearn"]
    registry = values.get("registry", "scikit-learn")
    what = " ".join(str(values[key]) for key in ("name", "version", "dataset") if key in values)
    return f"{plain(str(registry))} {code(what)}, sha256 {code(str(values.get('sha256', 'not given')))}"
