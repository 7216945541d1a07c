"""The base that a fine-tuning brought in from elsewhere: no artifact of the store, so nothing here says what it learnt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.artifact import Artifact
from pipeline.errors import Damaged

BASE_FILE = "adapter/groundup_base.json"


@dataclass(frozen=True)
class ForeignBase:
    """A base from the Hub or from a folder.

    Attributes:
        name: `owner/name`, or `folder:` and the folder's name; never a path.
        revision: commit on the Hub; None for a folder.
        license: its own, as its card states it; "not stated" where it does not, or where the artifact does not tell.
        artifact: fingerprint, of a base that Groundup published: its records came along.
    """

    name: str
    revision: str | None
    license: str
    artifact: str | None

    @property
    def pinned(self) -> str:
        """The name with the commit, as far as there is one."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def foreign_bases(artifacts: Iterable[Artifact]) -> list[ForeignBase]:
    """Return the bases from elsewhere that `artifacts` were fine-tuned from, each once, sorted by name.

    Raises:
        Damaged: an artifact holds no readable word about its base.
    """
    found = {_read(one) for one in artifacts if _is_tuned(one) and not one.record.inputs.get("base")}
    return sorted(found, key=lambda base: (base.pinned, base.license))


def _is_tuned(artifact: Artifact) -> bool:
    return artifact.record.produces == "causal_lm" and (artifact / BASE_FILE).is_file()


def _read(artifact: Artifact) -> ForeignBase:
    try:
        values = json.loads((artifact / BASE_FILE).read_bytes())
        name, revision, made = values["name"], values.get("revision"), values.get("artifact")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{artifact / BASE_FILE} cannot be read ({str(error) or 'empty'}); run the recipe again") from None
    # Before the licence was noted here, only the combined one of the fine-tuning was kept, which does not say whose it is.
    return ForeignBase(str(name), revision, str(values.get("license") or "not stated"), made)
