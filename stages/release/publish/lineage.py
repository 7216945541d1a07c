"""Where an artifact came from: its ancestors and its evaluations, found beside it in the store, and its recipe.

Artifacts of one store lie at `artifacts/<stage>/<first digits of the fingerprint>/`; the note of each recipe's last run,
with the text of the recipe, at `runs/<recipe>/run.json`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact import RECORD, Artifact, InputEntry
from pipeline.errors import Damaged, StoreError
from stages.common.release.measured import rows_about, subjects
from stages.release.publish.licence import names_of

DATA_KINDS = ("corpus", "images")
"""What is data, and not learnt from data."""


@dataclass(frozen=True)
class Recipe:
    """The recipe whose last run used the artifact.

    Attributes:
        name: of the recipe.
        node: the artifact's name in it: a stage, or a cell of one's matrix.
        text: the file as it stood.
        overrides: KEY=VALUE of the command line.
    """

    name: str
    node: str
    text: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Lineage:
    """An artifact among its relatives.

    Attributes:
        artifact: what is published.
        ancestors: all that went into it, by fingerprint.
        evaluations: what measured it, alone or beside others, sorted by fingerprint.
        relatives: `ancestors`, and what went into the evaluations. Of a comparison these are the data and what judged: the
            rivals, their data and their records are not part of this model. Nothing of them is in it, their owner may not want
            them shown, and the comparison's own record, which goes along whole, says who took part and what came out.
        recipe: that made it, when a run is noted in the store.
        left_out: evaluations that cannot be shown, as nobody could see any more what they measured on.
    """

    artifact: Artifact
    ancestors: dict[str, Artifact]
    evaluations: tuple[Artifact, ...]
    relatives: dict[str, Artifact]
    recipe: Recipe | None
    left_out: tuple[Artifact, ...] = ()

    @property
    def data(self) -> list[Artifact]:
        """The data that it was learnt from (or that it is), sorted by fingerprint."""
        found = {self.artifact.fingerprint: self.artifact} | self.ancestors
        return [found[key] for key in sorted(found) if found[key].record.produces in DATA_KINDS]

    @property
    def names(self) -> dict[str, str]:
        """Names of all data, also of those that it was only measured on, by fingerprint."""
        found = {self.artifact.fingerprint: self.artifact} | self.relatives
        return names_of(found[key] for key in sorted(found) if found[key].record.produces in DATA_KINDS)

    def everything(self) -> list[Artifact]:
        """Return the artifact, its relatives and its evaluations, each once, in the order in which they were made."""
        found = {self.artifact.fingerprint: self.artifact} | self.relatives
        found |= {evaluation.fingerprint: evaluation for evaluation in self.evaluations}
        depths: dict[str, int] = {}

        def depth(fingerprint: str) -> int:
            if fingerprint not in depths:
                inputs = (entry.fingerprint for entry in _entries(found[fingerprint]) if entry.fingerprint in found)
                depths[fingerprint] = 1 + max(map(depth, inputs), default=0)
            return depths[fingerprint]

        return sorted(found.values(), key=lambda one: (depth(one.fingerprint), one.record.stage, one.fingerprint))

    def inputs(self, artifact: Artifact, role: str) -> list[Artifact]:
        """Return what `artifact`, one of the family, read under `role`; rivals are left out."""
        entries = artifact.record.inputs.get(role, [])
        return [self.relatives[entry.fingerprint] for entry in entries if entry.fingerprint in self.relatives]


def trace(artifact: Artifact) -> Lineage:
    """Find the relatives of `artifact` in its store.

    Raises:
        StoreError: an ancestor is not there, so that nobody could see what the artifact is made of.
    """
    shelf = artifact.path.resolve().parent.parent
    ancestors = _ancestors(shelf, [artifact])
    found = sorted(_evaluations(shelf, artifact), key=lambda one: one.fingerprint)
    own = {artifact.fingerprint, *ancestors}
    rivals = {rival for one in found for rival in subjects(one.record)} - own
    relatives, left_out = dict(ancestors), []
    for one in found:
        try:
            relatives |= _ancestors(shelf, [one], without=rivals)
        except StoreError:  # the model itself is whole: only this measurement of it cannot be shown
            left_out.append(one)
    relatives.pop(artifact.fingerprint, None)
    evaluations = tuple(one for one in found if one not in left_out)
    recipe = _recipe(shelf.parent / "runs", artifact.fingerprint)
    return Lineage(artifact, ancestors, evaluations, relatives, recipe, tuple(left_out))


def _entries(artifact: Artifact) -> Iterator[InputEntry]:
    for entries in artifact.record.inputs.values():
        yield from entries


def _ancestors(shelf: Path, artifacts: Iterable[Artifact], without: Collection[str] = ()) -> dict[str, Artifact]:
    found: dict[str, Artifact] = {}
    pending = [(one, entry) for one in artifacts for entry in _entries(one)]
    while pending:
        child, entry = pending.pop()
        if entry.fingerprint not in found and entry.fingerprint not in without:
            found[entry.fingerprint] = ancestor = _find(shelf, entry, child)
            pending += [(ancestor, further) for further in _entries(ancestor)]
    return found


def _find(shelf: Path, entry: InputEntry, child: Artifact) -> Artifact:
    folder = shelf / entry.stage.removeprefix("stages.")
    for name in (entry.fingerprint, entry.fingerprint[:8]):
        if (folder / name / RECORD).exists():
            found = Artifact.open(folder / name)
            if found.fingerprint == entry.fingerprint:
                return found
    raise StoreError(
        f"{child.record.name} {child.fingerprint[:8]} was made from {entry.stage} {entry.fingerprint[:8]}, which is not in this "
        "store: its record and licence cannot be published; run the recipe again, then publish"
    )


def _evaluations(shelf: Path, artifact: Artifact) -> Iterator[Artifact]:
    """Yield what measured `artifact`; of two that differ in their code only, or in the rivals beside it, the newer."""
    newest: dict[str, Artifact] = {}
    for path in sorted(shelf.glob(f"*/*/{RECORD}")):
        if path.parent.name.startswith("."):
            continue
        try:
            found = Artifact.open(path.parent)
        except Damaged:
            continue
        if found.fingerprint == artifact.fingerprint or not rows_about(found.record, artifact.fingerprint):
            continue
        what = _what(found, artifact.fingerprint)
        known = newest.get(what)
        if known is None or _finished(known) < _finished(found):
            newest[what] = found
    yield from newest.values()


def _what(evaluation: Artifact, fingerprint: str) -> str:
    """Return what is measured of the artifact with `fingerprint`, on what and how: equal for two trials of the same."""
    rivals = subjects(evaluation.record) - {fingerprint}
    inputs = {
        role: [entry.fingerprint for entry in entries if entry.fingerprint not in rivals]
        for role, entries in evaluation.record.inputs.items()
    }
    how = {key: value for key, value in evaluation.record.identity.items() if key not in ("code", "inputs")}
    return json.dumps([how, inputs], sort_keys=True)


def _finished(artifact: Artifact) -> tuple[str, str]:
    return str(artifact.record.provenance.get("finished", "")), artifact.fingerprint


def _recipe(runs: Path, fingerprint: str) -> Recipe | None:
    """Return the first recipe, by name, whose last run used the artifact."""
    for path in sorted(runs.glob("*/run.json")):
        try:
            note = json.loads(path.read_bytes())
            names = {values["fingerprint"]: name for name, values in note["nodes"].items()}
            if fingerprint in names:
                return Recipe(path.parent.name, names[fingerprint], str(note["recipe_text"]), tuple(_overrides(note["command"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _overrides(command: str) -> Iterator[str]:
    """Yield the KEY=VALUE of a command line; what a flag such as --only takes may hold `=` as well (`vae@seed=1`)."""
    before = ""
    for word in shlex.split(command):
        if "=" in word and not word.startswith("-") and before not in ("--only", "--keep", "--force", "--store"):
            yield word
        before = word
