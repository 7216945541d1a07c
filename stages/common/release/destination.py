"""The folder that a repository is assembled in: what may be replaced there, one publisher at a time, no mixture ever."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.contract import fsync_directory, fsync_tree
from pipeline.errors import Damaged, InputError, StoreError
from stages.common.release.layout import MANIFEST, Manifest, differences
from stages.common.release.probe import PROBE

_SHOWN = 5


def check_replaceable(destination: Path) -> None:
    """Refuse a folder that holds more than was assembled in it: a clone, notes, edits; it would be removed with all of that.

    Raises:
        InputError: it does, or it is no folder.
    """
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise InputError(f"--output {destination} is no folder; give a new one")
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    if not (destination / MANIFEST).is_file():
        raise InputError(f"--output {destination} holds files that Groundup did not put there; give a new folder")
    try:
        manifest = Manifest.load(destination)
    except Damaged as damage:
        raise InputError(f"--output {destination} cannot be compared with what was assembled in it: {damage}; {_NEXT}") from None
    if found := [*_strangers(destination, manifest), *_changed(destination, manifest)]:
        shown = "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        raise InputError(f"--output {destination} is not as it was assembled, and replacing it would lose that: {shown}. {_NEXT}")


_NEXT = "Keep what you need of it and remove it, or give a new folder"


def _strangers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what the manifest does not name, hidden files and links too; of a folder without any named file only the folder."""
    # A publisher that was killed may have left the probe, not yet in the manifest.
    named = {*manifest.files, MANIFEST, PROBE}
    folders = {parent for name in named for parent in Path(name).parents}
    for place, below, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        links = [name for name in below if (Path(place) / name).is_symlink()]
        for name in sorted([*files, *links]):
            if (here / name).as_posix() not in named:
                yield f"{(here / name).as_posix()} is not in {MANIFEST}"
        yield from (f"{(here / name).as_posix()}/ is not in {MANIFEST}" for name in sorted(below) if here / name not in folders)
        below[:] = sorted(name for name in below if here / name in folders)


def _changed(folder: Path, manifest: Manifest) -> list[str]:
    return [line for line in differences(folder, manifest) if line.endswith(" was changed")]


@contextmanager
def alone(destination: Path) -> Iterator[int]:
    """Keep a second publisher away from the folder while it is assembled, checked and, by a program of its own, sent.

    Yields:
        The lock's file descriptor: a program that inherits it holds the lock, too, even when this one is killed.

    Raises:
        StoreError: there is one.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(destination.with_name(f".{destination.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{destination}: another publish works on it; wait for it, or give another --output") from None
        yield lock
    finally:
        os.close(lock)


def put_in_place(partial: Path, destination: Path) -> None:
    """Rename; what was assembled before is set aside first, so that no mixture ever stands under the name."""
    fsync_tree(partial)
    aside = destination.with_name(f".{destination.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if destination.exists():
        os.rename(destination, aside)
    os.rename(partial, destination)
    fsync_directory(destination.parent)
    shutil.rmtree(aside, ignore_errors=True)
