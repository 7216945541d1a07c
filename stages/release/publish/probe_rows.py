"""One number that a repository says of itself, on rows of its own test text: measured again after upload and after download."""

from __future__ import annotations

from dataclasses import replace

from stages.common.corpus_io import load_split
from stages.common.release import layout
from stages.common.release.layout import Manifest
from stages.common.release.private import findings
from stages.common.release.probe import TEXTS, Probe
from stages.release.publish.assemble import Assembled
from stages.release.publish.lineage import Lineage

NUM_ROWS = 4
MAX_CHARACTERS = 500


def with_probe(assembled: Assembled, probe: Probe) -> Assembled:
    """Write `probe.json` into the folder, and its manifest anew."""
    probe.save(assembled.folder)
    values = assembled.manifest.model_dump() | {"files": layout.published_files(assembled.folder)}
    manifest = Manifest.model_validate(values)
    manifest.save(assembled.folder)
    return replace(assembled, manifest=manifest)


def probe_rows(lineage: Lineage, repo: str) -> list[str]:
    """Return the first test rows that hold nothing private, cut to MAX_CHARACTERS; texts of ours where there are none."""
    corpora = lineage.inputs(lineage.artifact, "corpus")
    texts = (str(row["text"])[:MAX_CHARACTERS] for corpus in corpora for row in load_split(corpus, "test"))
    chosen: list[str] = []
    for text in texts:
        if text.strip() and not any(findings(text, repo)):
            chosen.append(text)
        if len(chosen) == NUM_ROWS:
            break
    return chosen or list(TEXTS)
