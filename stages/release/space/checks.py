"""What must hold before a Space leaves: whole, of files that an app has, and nothing that tells of this machine or a secret."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.repocard import metadata_load

from stages.common.release.layout import CARD, MANIFEST, Manifest, differences
from stages.common.release.private import told_by

ALLOWED = frozenset({".py", ".json", ".md", ".txt", ""})
"""Suffixes of an app's files. Its programs are ours, copied from this checkout; the model comes from its own repository."""


def problems(folder: Path, repo: str) -> list[str]:
    """Return all that forbids to send the Space under `folder` to `repo`, one sentence each; empty when nothing does."""
    lines = differences(folder, Manifest.load(folder))
    lines += [] if (metadata_load(folder / CARD) or {}).get("license") else [f"{CARD} names no licence"]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            lines.append(f"{name} is a link; publish the file itself")
        elif path.is_file() and (path.suffix not in ALLOWED or path.name.startswith(".")):
            lines.append(f"{name}: files of this kind are not published; {', '.join(sorted(ALLOWED - {''}))} are")
        elif path.is_file() and name != MANIFEST:
            lines += told_by(path, name, repo)
    return lines
