"""`groundup show`, `diff`, `verify`, `gc` and `chat`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.artifact import RECORD, Artifact, Record, differences
from pipeline.cli.session import NOTE, read_note_of
from pipeline.errors import Damaged, InputError
from pipeline.launch import project_root
from pipeline.plan import differences as identity_differences
from pipeline.store import Store, lock_owner


def find_artifact(store: Store, text: str) -> Artifact:
    """Return the artifact at a directory, here or in the store, or the one whose fingerprint begins with `text`.

    Raises:
        InputError: there is none, or more than one.
    """
    path = Path(text).expanduser()
    folders = [folder for folder in (path, store.root / path) if text and folder.is_dir()]
    if finished := {folder.resolve() for folder in folders if (folder / RECORD).exists()}:
        if len(finished) > 1:
            here, there = (folder.resolve() for folder in folders)
            raise InputError(f"'{text}' is one artifact here ({here}) and another in the store ({there}); give the whole path")
        return Artifact.open(finished.pop())
    if folders:
        raise InputError(f"'{text}' is a folder without {RECORD}, so no finished artifact; `groundup status` lists those")
    found = [path for path in store.all() if _fingerprint(path).startswith(text)] if len(text) >= 4 else []
    if len(found) != 1:
        where = "no folder has that name, here or in the store, and no fingerprint in this store begins so"
        hint = f"{where if len(text) >= 4 else 'that is too short'}; give a folder, or at least 4 digits"
        if found:
            hint = f"{len(found)} begin so; give more digits"
        raise InputError(f"'{text}' names no artifact: {hint}")
    return Artifact.open(found[0])


def _fingerprint(path: Path) -> str:
    try:
        return Record.load(path).fingerprint
    except Damaged:
        return ""


def show(arguments: argparse.Namespace) -> int:
    """Print the record of an artifact."""
    artifact = find_artifact(Store(arguments.store), arguments.artifact)
    record = artifact.record
    if arguments.json:
        print(record.model_dump_json(indent=1))
        return 0
    print(f"{record.name}  {record.stage}  {record.fingerprint}")
    for title, values in (("config", record.config), ("made by", record.provenance)):
        print(f"\n{title}")
        for key, value in values.items():
            print(f"  {key:<28} {json.dumps(value, ensure_ascii=False)}")
    print("\ninputs")
    for role, entries in record.inputs.items():
        for entry in entries:
            print(f"  {role:<28} {entry.fingerprint[:8]}  {entry.stage}")
    print("\nmetrics")
    rows = named(record.metrics)
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        interval = f"  [{row['interval'][0]:.4g}, {row['interval'][1]:.4g}]" if row.get("interval") else ""
        print(f"  {name:<{width}}  {row['value']:.6g} {row['unit']}{interval}  n={row['n']}")
    size = sum(entry.size for entry in record.files.values())
    print(f"\nfiles  {len(record.files)}, {size / 2**20:.1f} MiB")
    for adoption in record.adopted:
        print(f"\nkept on {adoption.time} for newer code: {adoption.code_before[:8]} -> {adoption.code_after[:8]}")
    return 0


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows of metrics by names that no two share: of what and on which split, then with the title, then with the place."""
    names = []
    for row in rows:
        label, split = (f"{row['label']}: " if row.get("label") else ""), (f" ({row['split']})" if row.get("split") else "")
        names.append(f"{label}{row['name']}{split}")
    for more in ([row.get("title") for row in rows], [f"row {place}" for place in range(1, len(rows) + 1)]):
        shared = {name for name, number in Counter(names).items() if number > 1}
        names = [f"{name}, {words}" if name in shared and words else name for name, words in zip(names, more, strict=True)]
    return dict(zip(names, rows, strict=True))


def diff(arguments: argparse.Namespace) -> int:
    """Print what differs between two artifacts: config, code, inputs, sources, metrics."""
    store = Store(arguments.store)
    first, second = (find_artifact(store, text).record for text in arguments.artifact)
    lines = identity_differences(first.identity, second.identity)
    before, after = ({name: row["value"] for name, row in named(one.metrics).items()} for one in (first, second))
    metrics = [
        f"{name}: {before[name]:.6g} -> {after[name]:.6g} ({after[name] - before[name]:+.4g})"
        for name in before
        if name in after and before[name] != after[name]
    ]
    if arguments.json:
        print(json.dumps({"identity": lines, "metrics": metrics}, indent=1))
        return 0
    print(f"{first.fingerprint[:8]} -> {second.fingerprint[:8]}")
    print("\n".join(f"  {line}" for line in lines) or "  the same identity")
    print(
        "metrics\n"
        + ("\n".join(f"  {line}" for line in metrics) or ("  equal" if before.keys() & after.keys() else "  none in common"))
    )
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Hash every file of every artifact and compare it with the record; also the links under runs/."""
    store = Store(arguments.store)
    damaged = 0
    paths = list(store.all())
    for path in paths:
        try:
            lines = differences(path, Record.load(path))
        except Damaged as damage:
            lines = [str(damage)]
        damaged += bool(lines)
        for line in lines:
            print(f"damaged  {path.relative_to(store.artifacts)}: {line}")
    broken = [link for link in store.runs.glob("*/*") if link.is_symlink() and not link.exists()]
    for link in broken:
        print(f"broken   {link}: its artifact is gone; run the recipe again")
    print(
        f"{len(paths)} artifacts, {damaged} damaged" + ("; run the recipe again: damaged ones are made anew" if damaged else "")
    )
    return 1 if damaged or broken else 0


def gc(arguments: argparse.Namespace) -> int:
    """Show, and with --delete remove, the artifacts and partial directories that no recipe's last run uses."""
    store = Store(arguments.store)
    used = _used(store)
    doomed = [path for path in store.all() if os.path.realpath(path) not in used]
    doomed += [path for path in sorted(store.artifacts.glob("*/.*")) if path.is_dir() and not _in_use(path, used)]
    total = 0
    for path in doomed:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        total += size
        print(f"{'removed' if arguments.delete else 'unused'}  {path.relative_to(store.artifacts)}  {size / 2**20:.1f} MiB")
        if arguments.delete:
            shutil.rmtree(path)
    hint = "" if arguments.delete or not doomed else "; remove with: groundup gc --delete"
    print(f"{len(doomed)} unused, {total / 2**20:.1f} MiB{hint}")
    return 0


def _used(store: Store) -> set[str]:
    """Paths that the last runs of all recipes use, with all that went into them."""
    used: set[str] = set()
    pending = [Path(os.path.realpath(link)) for link in store.runs.glob("*/*") if link.is_symlink() and link.exists()]
    for note in store.runs.glob(f"*/{NOTE}"):
        for values in read_note_of(store, note.parent.name)["nodes"].values():
            place = store.place(values["stage"], values["fingerprint"])
            used.add(os.path.realpath(place.partial))
            pending += [place.final] if place.final.exists() else []
    while pending:
        path = pending.pop()
        if (real := os.path.realpath(path)) not in used:
            used.add(real)
            try:
                inputs = Record.load(path).inputs
            except Damaged:
                continue
            pending += [store.place(entry.stage, entry.fingerprint).final for entries in inputs.values() for entry in entries]
    return used


def _in_use(path: Path, used: set[str]) -> bool:
    lock = path.with_name(path.name.removesuffix(".partial") + ".lock")
    return os.path.realpath(path) in used or lock_owner(lock) is not None


def chat(arguments: argparse.Namespace) -> int:
    """Start the chat of the text wing in this terminal."""
    folder = Path(arguments.artifact).expanduser()
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):  # no model that was pulled
        folder = find_artifact(Store(arguments.store), arguments.artifact).path
    command = [sys.executable, "-m", "stages.text.chat", str(folder), *arguments.options]
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(project_root())})
