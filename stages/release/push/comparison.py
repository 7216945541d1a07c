"""What a push would change: the assembled folder against what the repository holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.contract import sha256_file
from pipeline.errors import DataError
from stages.common.release.contents import is_loaded
from stages.common.release.layout import GIT_ATTRIBUTES, MANIFEST, Manifest, PublishedFile, differences
from stages.common.release.output import say, size_of
from stages.release.push.hub import Hub
from stages.release.push.remote import Remote, as_published, read_remote


@dataclass(frozen=True)
class Folder:
    """An assembled repository; `files` are all that is sent, `groundup.json` included."""

    path: Path
    manifest: Manifest
    files: dict[str, PublishedFile]

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Open an assembled folder and hash every file.

        Raises:
            Damaged: there is no manifest, or it cannot be read.
            DataError: the folder is not what its manifest says.
        """
        manifest = Manifest.load(path)
        if wrong := differences(path, manifest):
            raise DataError(f"{path}: not as it was assembled, nothing was sent; assemble it again:\n  " + "\n  ".join(wrong))
        own = PublishedFile(sha256=sha256_file(path / MANIFEST), bytes=(path / MANIFEST).stat().st_size)
        return cls(path, manifest, dict(sorted({**manifest.files, MANIFEST: own}.items())))


@dataclass(frozen=True)
class Change:
    """What would happen to each path.

    Attributes:
        replaced: paths of `changed` whose content there is not what Groundup put there.
        removed: an earlier publication wrote them, this one has no such file.
        kept: not written by Groundup (or edited since), and in nobody's way.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @property
    def sent(self) -> list[str]:
        """The paths whose content is sent."""
        return sorted(self.added + self.changed)

    def touches(self, remote: Remote) -> Mapping[str, str | None]:
        """What is overwritten or removed, by path: the blob that is there now (None: nothing). Equal means: same effect."""
        there = {path: file.oid for path, file in remote.files.items()}
        return {path: there.get(path) for path in (*self.sent, *self.removed)}


def compare(hub: Hub, folder: Folder, remote: Remote, cache: Path) -> Change:
    """Compare the folder with the repository, file by file, by content."""
    change = Change()
    for path, entry in folder.files.items():
        there = remote.files.get(path)
        if there is None:
            change.added.append(path)
        elif there.is_content(folder.path / path, entry.sha256):
            change.same.append(path)
        else:
            change.changed.append(path)
            if not as_published(hub, remote, path, cache):
                change.replaced.append(path)
    for path in sorted(remote.files.keys() - folder.files.keys() - {GIT_ATTRIBUTES}):
        (change.removed if as_published(hub, remote, path, cache) else change.kept).append(path)
    return change


def read_and_compare(hub: Hub, folder: Folder, cache: Path, revision: str | None = None) -> tuple[Remote, Change]:
    """Read the repository as it is now and compare."""
    remote = read_remote(hub, cache, revision)
    return remote, compare(hub, folder, remote, cache)


def show(hub: Hub, folder: Folder, remote: Remote, change: Change) -> None:
    """Print the comparison."""
    target = hub.target
    if remote.commit is None:
        say(f"repository {target.repo}: does not exist (or is closed to you); it would be created")
    else:
        visibility = "private" if remote.private else "public"
        branch = target.revision if remote.has_branch else f"{target.revision} (would start from main)"
        say(f"repository {target.repo}: {visibility}, {branch} at {remote.commit[:7]}")
    if remote.broken_manifest:
        say(f"  {remote.broken_manifest}")
    sizes = {path: entry.bytes for path, entry in folder.files.items()} | {
        p: remote.files[p].size for p in change.removed + change.kept
    }
    for label, paths in (("added", change.added), ("changed", change.changed), ("removed", change.removed)):
        for path in paths:
            note = "  (replaces what was not written by Groundup, or was edited since)" if path in change.replaced else ""
            say(f"  {label:8} {path}  {size_of(sizes[path])}{note}")
    for path in change.kept:
        say(f"  {'kept':8} {path}  {size_of(sizes[path])}  (not written by Groundup, or edited since)")
    if loaded := [path for path in change.kept if is_loaded(path)]:
        say(f"warning: {', '.join(loaded)} stay there and may be loaded together with what is published, and `groundup pull`")
        say(f"  refuses a repository that holds such files; if they are not wanted, remove them at {hub.address}/tree/main")
    num_bytes = sum(sizes[path] for path in change.sent)
    say(f"  {len(change.sent)} to send ({size_of(num_bytes)}), {len(change.removed)} to remove, {len(change.same)} the same")
