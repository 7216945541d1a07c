"""Ask a clean process, which is like a stranger's machine: no network, nothing of the user's, Groundup only where allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Damaged

TIMEOUT_SECONDS = 900.0
_ROOM = Path(__file__).with_name("clean_room.py")
_PROJECT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Answer:
    """What a clean process said.

    Attributes:
        without_groundup: nothing of ours could be imported.
        answers: one for each task.
    """

    without_groundup: bool
    answers: list[dict[str, Any]]


def ask(folder: Path, tasks: Sequence[dict[str, Any]], *, groundup: bool, timeout_seconds: float = TIMEOUT_SECONDS) -> Answer:
    """Have a clean process do `tasks` (see `clean_room`) in the empty or prepared `folder`.

    Raises:
        Damaged: it did not load, or did not answer in time.
    """
    request = {"tasks": list(tasks), "groundup": str(_PROJECT) if groundup else None}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    home = folder / "home"
    home.mkdir()
    # Nothing of the user's: no token, no cache, no settings.
    environment = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if key in os.environ}
    environment |= {"HOME": str(home), "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_ROOM), str(folder)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Damaged(f"the clean process did not answer within {timeout_seconds:.0f} s") from None
    if done.returncode:
        tail = (done.stderr.strip() or "no message").splitlines()[-1]
        with_what = "with Groundup" if groundup else "with stock libraries alone"
        raise Damaged(f"it does not load in a clean process {with_what}: {tail}")
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_bytes())
    return Answer(answer["without_groundup"], answer["answers"])
