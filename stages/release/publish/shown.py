"""What the user sees: the files, the card in short, and what the checks found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

from huggingface_hub import DatasetCard, ModelCard

from stages.common.release.layout import CARD, MANIFEST
from stages.release.publish.assemble import Assembled
from stages.release.publish.clean_load import Evidence


def show_folder(assembled: Assembled, output: TextIO, *, whole_card: bool) -> None:
    """Write the files with their sizes, and the card: in short, or all of it."""
    files = {MANIFEST: (assembled.folder / MANIFEST).stat().st_size}
    files |= {name: entry.bytes for name, entry in assembled.manifest.files.items()}
    kind = assembled.manifest.repo_type
    output.write(f"{assembled.repo} ({kind}), part {assembled.manifest.part} of {assembled.manifest.artifact[:8]}\n\nfiles\n")
    for name, size in sorted(files.items()):
        output.write(f"  {_size(size):>10}  {name}\n")
    output.write(f"  {_size(sum(files.values())):>10}  in all, {len(files)} files\n\ncard\n")
    text = (assembled.folder / CARD).read_text(encoding="utf-8")
    output.write(text if whole_card else _short(assembled, text))
    for one in assembled.lineage.left_out:
        output.write(
            f"  left out: {one.record.name} {one.fingerprint[:8]} measured it, but what it measured on is not in this store any "
            "more; run its recipe again to show it\n"
        )
    output.write("\n")


def _short(assembled: Assembled, text: str) -> str:
    data = (DatasetCard if assembled.manifest.repo_type == "dataset" else ModelCard)(text).data
    values = data.to_dict()
    index = values.pop("model-index", None)
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    if index:
        lines.append(f"  model-index: {sum(len(result['metrics']) for result in index[0]['results'])} results")
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    return "\n".join(
        [*lines, f"  sections: {', '.join(headings)}", f"  all of it: {assembled.folder / CARD} (or --show-card)", ""]
    )


def show_outcome(problems: Sequence[str], evidence: Evidence, output: TextIO) -> None:
    """Write what was proved, and all that is wrong."""
    output.write("checks\n")
    for sentence in evidence.shown:
        output.write(f"  ok       {sentence}\n")
    if not problems:
        output.write("  ok       complete, licensed, within the Hub's limits; no program, secret, mail address or path in it\n")
    for sentence in problems:
        output.write(f"  refused  {sentence}\n")


def _size(number: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024  # type: ignore[assignment]
    return f"{number:.1f} GiB"
