"""A small assembled repository, and `python -m stages.release.push` on it in a process of its own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from stages.common.release.layout import Manifest, published_files
from tests.hub.server import HubServer

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "The": 1, "fox": 2}, "unk_token": "[UNK]"},
}


def write_folder(folder: Path, *, seed: int = 0, size: int = 4000, note: str = "", **extra: str) -> Path:
    """Write a tokenizer with a card, and random weights beside it; the keys of `extra` become more files."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# a tokenizer {note}\n")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "model.safetensors").write_bytes(random.Random(seed).randbytes(size))
    for name, text in extra.items():
        (folder / f"{name}.txt").write_text(text)
    return sign(folder, artifact=f"{seed:064x}")


def sign(folder: Path, artifact: str = "0" * 64) -> Path:
    """Write `groundup.json` for the files that are there."""
    Manifest(
        artifact=artifact, stage="stages.text.tokenizer", part="tokenizer", produces="tokenizer", files=published_files(folder)
    ).save(folder)
    return folder


def command(folder: Path, *arguments: str, repo: str = "ada/one") -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "stages.release.push", str(folder), "--repo", repo, *arguments]


def push(
    hub: HubServer, folder: Path, *arguments: str, repo: str = "ada/one", token: str | None = "hf_ada"
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; its output never shows the token nor a traceback."""
    done = subprocess.run(
        command(folder, *arguments, repo=repo), env=hub.environment(token), capture_output=True, text=True, timeout=120
    )
    seen = done.stdout + done.stderr
    assert token is None or token not in seen, seen
    assert "Traceback" not in seen, seen
    return done
