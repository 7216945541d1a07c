"""What must hold before anything leaves: all that is wrong is listed, not only the first.

Limits of the Hub: https://huggingface.co/docs/hub/storage-limits (a file under 50 GB, fewer than 100,000 files in a
repository and 10,000 in a folder).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from huggingface_hub import DatasetCard, ModelCard

from pipeline.contract import sha256_file
from pipeline.errors import Damaged
from stages.common.release import layout
from stages.common.release.layout import Manifest
from stages.common.release.measured import missing_records
from stages.common.release.private import is_generated_text, told_by
from stages.release.publish.assemble import ADAPTER_CONFIG, Assembled
from stages.release.publish.licence import UNSTATED

MAX_FILE_BYTES = 50 * 10**9
MAX_FILES, MAX_IN_FOLDER = 100_000, 10_000
MAX_CARD_BYTES = 10**6
"""Our own: a longer page is no card any more, and browsers struggle with it."""
ALLOWED = frozenset({"", ".json", ".md", ".yaml", ".safetensors", ".parquet", ".jinja", ".txt", ".csv", ".png", ".svg", ".model"})
"""Suffixes that may be published: none of them is run or unpickled by what loads it."""
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x7fELF", b"MZ", b"#!")
"""Beginnings of pickles, of zip files (which `torch.save` writes), of programs and scripts."""
_REMOTE_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")


def problems(assembled: Assembled) -> list[str]:
    """Return all that forbids to publish the folder, one sentence each; empty when nothing does."""
    folder, manifest = assembled.folder, assembled.manifest
    lines = list(_incomplete(folder, manifest))
    lines += assembled.licence.problems(redistributes=manifest.part == "data")
    lines += _card(folder, manifest)
    lines += _changed(assembled)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            lines.append(f"{name} is a link; publish the file itself")
        elif path.is_file():
            lines += [*_executable(path, name), *_too_large(path, name), *_private(path, name, assembled.repo)]
    return lines + list(_too_many(folder))


def _changed(assembled: Assembled) -> Iterator[str]:
    """What publishing does not rewrite must be the artifact's, bit for bit."""
    for name, source in assembled.selection.files.items():
        if name != ADAPTER_CONFIG and sha256_file(source) != assembled.manifest.files[name].sha256:
            yield f"{name} is not the artifact's own file"


def _incomplete(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        written = Manifest.load(folder)
    except Damaged as error:
        yield str(error)
        return
    if written != manifest:
        yield f"{layout.MANIFEST} was changed after the folder was assembled"
    yield from layout.differences(folder, manifest)
    wanted = {layout.CARD, layout.METRICS, layout.LICENSE}
    yield from (f"{name} is missing" for name in sorted(wanted - manifest.files.keys()))
    try:
        records = layout.load_provenance(folder)
    except Damaged as error:
        yield str(error)
        return
    if manifest.artifact not in records:
        yield f"{layout.PROVENANCE}/ holds no record of the artifact"
    for of, missing in sorted(missing_records(records, manifest.artifact)):
        yield f"{layout.PROVENANCE}/ lacks the record of {missing[:8]}, which {records[of].name} was made from"


def _card(folder: Path, manifest: Manifest) -> Iterator[str]:
    path = folder / layout.CARD
    if not path.is_file():
        return
    if path.stat().st_size > MAX_CARD_BYTES:
        yield f"{layout.CARD} has {path.stat().st_size:,} bytes; at most {MAX_CARD_BYTES:,} are read"
    try:
        data = (DatasetCard if manifest.repo_type == "dataset" else ModelCard).load(path).data
    except ValueError as error:
        yield f"{layout.CARD}: its metadata cannot be read ({str(error).splitlines()[0]})"
        return
    stated = data.get("license_name") if data.get("license") == "other" else data.get("license")
    if str(stated or "").lower() in UNSTATED:
        yield f"{layout.CARD} names no licence"


def _executable(path: Path, name: str) -> Iterator[str]:
    suffix = path.suffix.lower()
    if path.name != layout.GIT_ATTRIBUTES and (suffix not in ALLOWED or path.name.startswith(".")):
        yield f"{name}: files of this kind are not published; {', '.join(sorted(ALLOWED - {''}))} are"
    with open(path, "rb") as file:
        start = file.read(8)
    if suffix != ".safetensors" and start.startswith(_PICKLES):  # those open with the length of their header
        yield f"{name} begins like a pickle, an archive or a program, whatever its name says"
    if suffix == ".json":
        try:
            values = json.loads(path.read_bytes())
        except ValueError:
            yield f"{name} is no JSON"
            return
        asked = [key for key in _REMOTE_CODE if isinstance(values, dict) and values.get(key)]
        yield from (f"{name}: '{key}' would run code from the repository" for key in asked)


def _private(path: Path, name: str, repo: str) -> Iterator[str]:
    if is_generated_text(name):
        hint = "; edit the recipe and run it again (comments train nothing anew)" if name == layout.RECIPE else ""
        yield from told_by(path, name, repo, hint=hint)


def _too_large(path: Path, name: str) -> Iterator[str]:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        yield f"{name} has {size / 10**9:.1f} GB; the Hub takes {MAX_FILE_BYTES / 10**9:.0f} GB for a file: save it in shards"


def _too_many(folder: Path) -> Iterator[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if len(names) > MAX_FILES:
        yield f"{len(names):,} files; the Hub advises fewer than {MAX_FILES:,}"
    for parent, number in Counter(PurePosixPath(name).parent for name in names).items():
        if number > MAX_IN_FOLDER:
            yield f"{parent}/ holds {number:,} files; the Hub advises fewer than {MAX_IN_FOLDER:,}"
