"""Measure a published folder in a clean process, and keep what it gave as `probe.json` so that it can be measured again.

    probe.json                  {format: 1, metric, value, n, texts}
    probe_images.safetensors    images uint8 (N, C, H, W) and labels int64 (N,), for what is measured on images

Whoever assembles a repository measures it on a handful of texts or images; who has downloaded one compares.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.contract import write_json
from pipeline.errors import Damaged
from stages.common.release.clean_process import ask
from stages.common.release.layout import CARD, Part

PROBE, PROBE_IMAGES = "probe.json", "probe_images.safetensors"
TEXTS = ("The quick brown fox jumps over 13 lazy dogs.", "  tabs\tand\nlines of text, one after another.\n", "Zoë, 東京 and 🙂")
"""Measured when a repository brings no texts of its own."""
TOLERANCE = 1e-4
"""Relative difference that another processor may make (rounding of fp32 sums)."""
_OWN_CLASSES = re.compile(r"^from stages\.", re.MULTILINE)

Kind = Literal["causal_lm", "adapter", "tokenizer", "data", "images", "card"]


class Measured(BaseModel):
    """What the clean process found; `n` counts what the mean is over (bytes, rows, images, values)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    metric: str
    value: float
    n: int

    def agrees(self, other: Measured) -> bool:
        """Whether two measurements are the same up to rounding."""
        near = abs(self.value - other.value) <= TOLERANCE * max(abs(self.value), abs(other.value))
        return self.metric == other.metric and self.n == other.n and near


class Probe(Measured):
    """What `probe.json` holds."""

    format: Literal[1] = 1
    texts: list[str]

    def save(self, folder: Path) -> None:
        """Write `probe.json`."""
        write_json(folder / PROBE, self.model_dump(mode="json"))


def kind_of(folder: Path, part: Part) -> Kind:
    """Return how the folder is measured, from the files that are there."""
    if part == "data":
        return "data"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if part == "tokenizer":
        return "tokenizer"
    if (folder / PROBE_IMAGES).is_file():
        return "images"
    return "causal_lm" if (folder / "tokenizer.json").is_file() else "card"


def load_probe(folder: Path) -> Probe | None:
    """Return what `probe.json` holds, None when there is none.

    Raises:
        Damaged: it cannot be read.
    """
    path = folder / PROBE
    if not path.is_file():
        return None
    try:
        return Probe.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise Damaged(f"{path} cannot be read ({str(error).splitlines()[0]})") from None


def measuring(
    folder: Path, part: Part, *, repo: str, texts: list[str] | None = None, base: Path | None = None
) -> dict[str, object]:
    """Return the task of `clean_room` that `measure` has done, with the same arguments."""
    probe = load_probe(folder)
    return {
        "do": "measure",
        "folder": str(folder.resolve()),
        "kind": kind_of(folder, part),
        "texts": texts if texts is not None else (probe.texts if probe else list(TEXTS)),
        "base": str(base.resolve()) if base else None,
        "repo": repo,
    }


def measure(folder: Path, part: Part, *, repo: str, texts: list[str] | None = None, base: Path | None = None) -> Measured:
    """Load `folder` in a clean process with the plain library and measure one number.

    Image models are measured by the code of their stage, which the manifest names; what has no probe of its own, by running
    the code of its card. So this is for folders that were assembled here, or whose hashes are those of such a folder; never
    for what somebody else published.

    Args:
        folder: assembled or downloaded.
        part: what it holds.
        repo: the name that the code of its card loads.
        texts: to measure on; those of `probe.json` or `TEXTS` when left out.
        base: folder of the base under an adapter.

    Raises:
        Damaged: it does not load.
    """
    card = folder / CARD
    own_classes = card.is_file() and _OWN_CLASSES.search(card.read_text(encoding="utf-8")) is not None
    task = measuring(folder, part, repo=repo, texts=texts, base=base)
    groundup = own_classes or task["kind"] == "images"
    with tempfile.TemporaryDirectory(prefix="groundup-") as room:
        try:
            found = ask(Path(room), [task], groundup=groundup)
        except Damaged as damage:
            raise Damaged(f"{folder}: {damage}") from None
    return Measured.model_validate(found.answers[0])
