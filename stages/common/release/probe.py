"""Measure a published folder in a clean process, and keep what it gave as `probe.json` so that it can be measured again.

    probe.json    {format: 1, metric, value, n, texts}

Whoever assembles a repository writes it (`write_probe`) from a handful of texts; who has downloaded one compares.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.contract import write_json
from pipeline.errors import Damaged
from stages.common.release.layout import CARD, Part

PROBE = "probe.json"
TEXTS = ("The quick brown fox jumps over 13 lazy dogs.", "  tabs\tand\nlines of text, one after another.\n", "Zoë, 東京 and 🙂")
"""Measured when a repository brings no texts of its own."""
TOLERANCE = 1e-4
"""Relative difference that another processor may make (rounding of fp32 sums)."""
TIMEOUT_SECONDS = 900.0
_ROOM = Path(__file__).with_name("measure.py")
_PROJECT = Path(__file__).resolve().parents[3]
_OWN_CLASSES = re.compile(r"^from stages\.", re.MULTILINE)

Kind = Literal["causal_lm", "adapter", "tokenizer", "data", "card"]


class Measured(BaseModel):
    """What the clean process found; `n` counts what the mean is over (bytes, rows, values)."""

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


def kind_of(folder: Path, part: Part) -> Kind:
    """Return how the folder is measured, from the files that are there."""
    if part == "data":
        return "data"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if part == "tokenizer":
        return "tokenizer"
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


def write_probe(folder: Path, part: Part, texts: list[str], *, repo: str, base: Path | None = None) -> Probe:
    """Measure `folder` on `texts` and keep the result in it; raises Damaged when it does not load."""
    measured = measure(folder, part, repo=repo, texts=texts, base=base)
    write_json(folder / PROBE, Probe(**measured.model_dump(), texts=texts).model_dump(mode="json"))
    return Probe(**measured.model_dump(), texts=texts)


def measure(folder: Path, part: Part, *, repo: str, texts: list[str] | None = None, base: Path | None = None) -> Measured:
    """Load `folder` in a clean process with the plain library and measure one number.

    What is neither text nor tokenizer is measured by running the code of its card, so this is for folders that were
    assembled here, or whose hashes are those of such a folder; never for what somebody else published.

    Args:
        folder: assembled or downloaded.
        part: what it holds.
        repo: the name that the code of its card loads.
        texts: to measure on; those of `probe.json` or `TEXTS` when left out.
        base: folder of the base under an adapter.

    Raises:
        Damaged: it does not load.
    """
    probe = load_probe(folder)
    card = folder / CARD
    own_classes = card.is_file() and _OWN_CLASSES.search(card.read_text(encoding="utf-8")) is not None
    with tempfile.TemporaryDirectory(prefix="groundup-") as room:
        request: dict[str, object] = {
            "folder": str(folder),
            "kind": kind_of(folder, part),
            "texts": texts if texts is not None else (probe.texts if probe else list(TEXTS)),
            "base": str(base) if base else None,
            "repo": repo,
            "room": room,
            "groundup": str(_PROJECT) if own_classes else None,
        }
        return Measured.model_validate(_ask(request, Path(room)))


def _ask(request: dict[str, object], room: Path) -> dict[str, object]:
    path = room / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    home = room / "home"
    home.mkdir()
    # Nothing of the user's: no token, no cache, no settings.
    environment = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if key in os.environ}
    environment |= {"HOME": str(home), "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_ROOM), str(path)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Damaged(f"{request['folder']}: it did not load within {TIMEOUT_SECONDS:.0f} s in a clean process") from None
    if done.returncode:
        tail = (done.stderr.strip() or "no message").splitlines()[-1]
        raise Damaged(f"{request['folder']}: it does not load in a clean process ({tail})")
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer
