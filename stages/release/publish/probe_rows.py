"""One number that a repository says of itself, on a few texts: measured again after upload and after download."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stages.common.corpus_io import license_of, load_split
from stages.common.release import layout
from stages.common.release.layout import Manifest
from stages.common.release.private import findings
from stages.common.release.probe import PROBE, TEXTS, Probe
from stages.release.publish.licence import may_be_shown
from stages.release.publish.lineage import Lineage

if TYPE_CHECKING:
    from stages.release.publish.assemble import Assembled

NUM_ROWS = 4
MAX_CHARACTERS = 500


def with_probe(assembled: Assembled, probe: Probe) -> Assembled:
    """Write `probe.json` into the folder, and its manifest anew."""
    probe.save(assembled.folder)
    values = assembled.manifest.model_dump() | {"files": layout.published_files(assembled.folder)}
    manifest = Manifest.model_validate(values)
    manifest.save(assembled.folder)
    return replace(assembled, manifest=manifest)


@dataclass(frozen=True)
class ProbeRows:
    """What the number is measured on.

    Attributes:
        texts: they stand in `probe.json` as they are.
        corpus: name of the data that they were copied from; None where they are texts of Groundup's own.
        license: of that data.
    """

    texts: tuple[str, ...]
    corpus: str | None = None
    license: str | None = None

    def sentence(self) -> str:
        """Say what stands in the file, in plain words."""
        if self.corpus is None:
            return f"{PROBE} measures one number on {len(self.texts)} texts of Groundup's own; no row of the data is in it"
        return (
            f"{PROBE} measures one number on {len(self.texts)} test rows of {self.corpus} (licence {self.license}), which are "
            f"copied into it, cut to {MAX_CHARACTERS} characters"
        )


def probe_rows(lineage: Lineage, repo: str) -> ProbeRows:
    """Return the first test rows that hold nothing private and may be passed on; texts of ours where there are none.

    Rows of a user's own files are never taken, whatever licence was stated for the model: publishing that is not publishing
    what it learnt from.
    """
    for corpus in lineage.inputs(lineage.artifact, "corpus"):
        if not may_be_shown(corpus, license_of(corpus)):
            continue
        chosen: list[str] = []
        for text in (str(row["text"])[:MAX_CHARACTERS] for row in load_split(corpus, "test")):
            if text.strip() and not any(findings(text, repo)):
                chosen.append(text)
            if len(chosen) == NUM_ROWS:
                break
        if chosen:
            return ProbeRows(tuple(chosen), lineage.names[corpus.fingerprint], license_of(corpus))
    return ProbeRows(TEXTS)
