"""The licence that follows from the data: carried on by whatever is made from it.

Names are those of the Hub (https://huggingface.co/docs/hub/repositories-licenses); another licence, or several at once, is
`other` there, with a name and a link. Whether a model is a derived work of its data is a question of law that differs
between countries; this takes the careful answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.release.layout import LICENSE

UNSTATED = frozenset({"", "not stated", "not-stated", "unknown", "none", "other"})
# Whoever has a copy may pass it on, changed or not, if only under conditions (name the authors, keep the licence, no trade).
REDISTRIBUTABLE = frozenset(
    [
        *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc-by-2.0"),
        *("cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0"),
        *("cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0"),
        *("gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ncsa", "odbl", "odc-by", "ofl-1.1", "osl-3.0"),
        *("pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
    ]
)
_NO_DERIVATIVES = frozenset({"cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0"})
HUB_NAMES = REDISTRIBUTABLE | _NO_DERIVATIVES
_AND = " and "


@dataclass(frozen=True)
class Licence:
    """What the card says.

    Attributes:
        license: a name that the Hub knows, or `other`.
        name: for `other`, what it is.
        by_data: name of each set of data -> its licence.
        assumed: data whose licence the user stated at publishing; the records do not hold it.
        bases: names in `by_data` of what is no data, but a model of somebody else.
    """

    license: str
    name: str | None
    by_data: dict[str, str]
    assumed: tuple[str, ...]
    bases: tuple[str, ...] = ()

    def problems(self, *, redistributes: bool) -> list[str]:
        """Return what forbids to publish.

        Args:
            redistributes: the data themselves are published.
        """
        lines = ["no data are known that it was made from, so no licence follows"] if not self.by_data else []
        for data, name in self.by_data.items():
            if is_unstated(name) and data in self.bases:
                lines.append(
                    f"licence: that of the {data} is not stated, and --license speaks for your own data only; ask whoever holds "
                    "the rights to state it at the head of the base's README.md (license: NAME), or take another base; then run "
                    "the fine-tuning again"
                )
            elif is_unstated(name):
                lines.append(
                    f"licence: that of {data!r} is not stated; ask whoever holds the rights, then give --license NAME "
                    "(or set license in the recipe's corpus stage)"
                )
            elif redistributes and name.lower() not in REDISTRIBUTABLE:
                lines.append(f"licence: {name!r} of {data!r} is not known to let others pass the data on; publish the model only")
        return lines

    def text(self) -> str:
        """Return the content of the file LICENSE."""
        lines = [
            f"Licence: {self.name or self.license}",
            "",
            "It follows from the data that this was made from:",
            *(f"- {data}: {name}" for data, name in self.by_data.items()),
        ]
        if self.assumed:
            lines += ["", f"Stated by the publisher, not by the records: {', '.join(self.assumed)}."]
        if self.bases:
            lines += ["", f"Not made here, and under the terms in its own repository: {', '.join(self.bases)}."]
        lines += [
            "",
            "Name the authors of the data as their licence asks; data_cards/ says who they are. Texts of licences:",
            "https://spdx.org/licenses/",
            "Groundup, the program that made this, is under the Apache License 2.0 and is not part of this repository.",
        ]
        return "\n".join(lines) + "\n"


def licence_of(data: Mapping[str, Artifact], others: Mapping[str, str], stated: str | None) -> Licence:
    """Combine the licences of `data` and `others`; `stated` fills in where the record of `data` says nothing.

    Args:
        data: name -> what the result was learnt from.
        others: name -> licence of bases from elsewhere; the user cannot speak for those.
        stated: by the user, at publishing.

    Raises:
        DataError: `stated` is no licence that the Hub knows.
    """
    if stated is not None and stated not in HUB_NAMES:
        raise DataError(
            f"--license {stated}: not a name that the Hub knows; see https://huggingface.co/docs/hub/repositories-licenses"
        )
    by_data = {name: _recorded(one) for name, one in data.items()}
    assumed = tuple(name for name, found in by_data.items() if is_unstated(found)) if stated else ()
    by_data |= {name: str(stated) for name in assumed} | dict(others)
    names = sorted({part for found in by_data.values() for part in found.split(_AND)})
    if len(names) == 1 and names[0] in HUB_NAMES:
        return Licence(names[0], None, by_data, assumed, tuple(others))
    combined = "-and-".join(name.replace(" ", "-") for name in names) or None
    return Licence("other", combined, by_data, assumed, tuple(others))


def is_unstated(name: str) -> bool:
    """Say whether a licence, or one of several joined by " and ", says nothing."""
    return any(part.strip().lower() in UNSTATED for part in name.split(_AND))


def names_of(data: Iterable[Artifact]) -> dict[str, str]:
    """Return a name for each set of data, by fingerprint: its card's, or that of its stage in the recipe; no two alike."""
    names = {one.fingerprint: _name(one) for one in data}
    repeated = {name for name, number in Counter(names.values()).items() if number > 1}
    return {key: f"{name}-{key[:8]}" if name in repeated else name for key, name in names.items()}


def _name(artifact: Artifact) -> str:
    from_card = any("card" in source for source in artifact.record.identity.get("sources", []))
    return str(_facts(artifact).get("name", artifact.record.name)) if from_card else artifact.record.name


def _recorded(artifact: Artifact) -> str:
    return str(_facts(artifact).get("license", ""))


def _facts(artifact: Artifact) -> dict[str, object]:
    """Licence and name stand in `statistics.json` of a corpus, in `grid.json` of images."""
    path = artifact / ("grid.json" if artifact.record.produces == "images" else "statistics.json")
    try:
        facts: dict[str, object] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return facts


def may_be_shown(data: Artifact, stated: str) -> bool:
    """Say whether rows of `data` may lie beside a model: cards tell where all of it came from, and all may pass it on."""
    sources = data.record.identity.get("sources", [])
    from_cards = bool(sources) and all("card" in source for source in sources)
    return from_cards and stated.lower() in REDISTRIBUTABLE


def metadata(licence: Licence) -> dict[str, str]:
    """Return the fields of the card's front matter."""
    if licence.license != "other":
        return {"license": licence.license}
    return {"license": "other", "license_name": licence.name or "not-stated", "license_link": LICENSE}
