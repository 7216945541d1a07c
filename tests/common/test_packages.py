"""Files out of packages: every hash checked, nothing unpacked, nothing run, nothing fetched when the network is forbidden."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import CardError
from stages.common.archives import read_members
from stages.common.packages import Package, cache_folder, members_digest, read_package

FILES = {"toy/data/a.json": b'{"a": 1}', "toy/data/b.json": b'{"b": 2}', "toy/__init__.py": b"raise SystemExit('imported')"}


def wheel(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def deb(path: Path, files: dict[str, bytes]) -> Path:
    """Write a .deb as deb(5) describes it: an ar archive of debian-binary, control.tar.xz, data.tar.xz."""
    members = {"debian-binary": b"2.0\n", "control.tar.xz": tar({"control": b"odd"}, "w:xz"), "data.tar.xz": tar(files, "w:xz")}
    content = b"!<arch>\n"
    for name, data in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    path.write_bytes(content)
    return path


def package(archive: Path, **values: object) -> Package:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    defaults = {"registry": "pypi", "name": "groundup-toy", "version": "1.0", "sha256": sha256, "member": "toy/data/a.json"}
    return Package.model_validate({**defaults, **values})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    cache_folder().mkdir(parents=True)
    return cache_folder()


def test_a_cached_wheel_is_read_offline(tmp_path, cache):
    wanted = package(wheel(cache / "toy.whl"), member=["toy/data/*.json"])
    (cache / "toy.whl").rename(cache / wanted.cache_name)
    assert read_package(wanted, offline=True) == {name: FILES[name] for name in ("toy/data/a.json", "toy/data/b.json")}


@pytest.mark.parametrize("kind", ["wheel", "npm", "deb", "tar.xz"])
def test_every_kind_of_archive_gives_the_same_members(tmp_path, kind):
    path = tmp_path / "archive"
    if kind == "wheel":
        wheel(path)
    elif kind == "deb":
        deb(path, {f"./{name}": content for name, content in FILES.items()})
    else:
        path.write_bytes(tar(FILES, "w:gz" if kind == "npm" else "w:xz"))
    assert read_members(path, ["toy/data/a.json"]) == {"toy/data/a.json": FILES["toy/data/a.json"]}
    assert list(read_members(path, ["toy/*.json"])) == ["toy/data/a.json", "toy/data/b.json"]
    with pytest.raises(CardError, match="no member matches 'toy/data/c.json'"):
        read_members(path, ["toy/data/c.json"])


@pytest.mark.parametrize("name", ["../toy/x.json", "toy/../../x.json", "/toy/x.json", "toy\\..\\x.json"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path, name):
    path = tmp_path / "evil"
    path.write_bytes(tar({name: b"{}"}))
    with pytest.raises(CardError, match="a name must stay inside its archive"):
        read_members(path, ["*.json"])


def test_a_link_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "evil", "w") as archive:
        info = tarfile.TarInfo("toy/x.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(CardError, match="is a link or a device"):
        read_members(tmp_path / "evil", ["toy/x.json"])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_decompression_bomb_stops_at_the_limit(tmp_path, kind):
    bomb = {"toy/x.json": b"0" * 1_000_000}
    path = wheel(tmp_path / "bomb", bomb) if kind == "zip" else tmp_path / "bomb"
    if kind == "tar":
        path.write_bytes(tar(bomb))
    assert path.stat().st_size < 10_000
    with pytest.raises(CardError, match="passes the limit of 100,000 bytes"):
        read_members(path, ["toy/x.json"], max_bytes=100_000)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04broken", b"!<arch>\nbroken", b"!<arch>\n"])
def test_a_broken_archive_is_an_error_for_people(tmp_path, content):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(CardError, match="broken: the archive cannot be read"):
        read_members(tmp_path / "broken", ["a"])


def test_offline_with_an_empty_cache_says_what_to_run_and_what_needs_no_network(tmp_path, cache):
    with pytest.raises(CardError) as caught:
        read_package(package(wheel(tmp_path / "toy.whl")), offline=True)
    message = str(caught.value)
    assert "groundup-toy==1.0 is not in the cache" in message
    assert "pip download" in message
    assert "--no-deps --only-binary=:all: groundup-toy==1.0" in message
    assert "configs/code.yaml" in message


def test_a_damaged_file_in_the_cache_is_never_read(tmp_path, cache):
    wanted = package(wheel(tmp_path / "toy.whl"))
    (cache / wanted.cache_name).write_bytes((tmp_path / "toy.whl").read_bytes() + b"x")
    with pytest.raises(CardError, match="lies damaged in the cache"):
        read_package(wanted, offline=True)


def test_a_member_with_another_hash_is_refused(tmp_path, cache):
    wanted = package(wheel(tmp_path / "toy.whl"), member_sha256="0" * 64)
    (tmp_path / "toy.whl").rename(cache / wanted.cache_name)
    with pytest.raises(CardError, match="member_sha256 of the card is 0000"):
        read_package(wanted, offline=True)


def pip_that_gives(tmp_path, monkeypatch, archive: Path | None) -> None:
    """Let pip's own index be a local folder: `pip download` finds what lies there, and no network is touched."""
    links = tmp_path / "links"
    links.mkdir()
    if archive is not None:
        archive.rename(links / "groundup_toy-1.0-py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))


META = {
    "groundup_toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: groundup-toy\nVersion: 1.0\n",
    "groundup_toy-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "groundup_toy-1.0.dist-info/RECORD": b"",
}


@pytest.mark.slow
def test_a_download_is_checked_kept_and_used_again(tmp_path, cache, monkeypatch):
    archive = wheel(tmp_path / "toy.whl", FILES | META)
    wanted, waits = package(archive), []
    pip_that_gives(tmp_path, monkeypatch, archive)
    assert read_package(wanted, offline=False, on_wait=lambda: waits.append(1)) == {"toy/data/a.json": b'{"a": 1}'}
    assert waits
    assert [path.name for path in cache.iterdir()] == [wanted.cache_name]
    assert read_package(wanted, offline=True) == {"toy/data/a.json": b'{"a": 1}'}


def test_a_download_with_another_hash_is_refused_and_not_kept(tmp_path, cache, monkeypatch):
    archive = wheel(tmp_path / "toy.whl", FILES | META)
    pip_that_gives(tmp_path, monkeypatch, archive)
    wanted = package(wheel(tmp_path / "pinned.whl", {"toy/data/a.json": b"other"}))
    with pytest.raises(CardError, match="the card pins sha256 .* nothing was kept"):
        read_package(wanted, offline=False)
    assert not list(cache.iterdir())


@pytest.mark.slow
def test_a_source_distribution_is_never_built(tmp_path, cache, monkeypatch):
    pip_that_gives(tmp_path, monkeypatch, None)
    ran = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    build = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"backend.py": ran.encode(), "pyproject.toml": build, "PKG-INFO": b"Name: groundup-toy\n", "data.txt": b"text"}
    sdist = tmp_path / "links" / "groundup-toy-1.0.tar.gz"
    sdist.write_bytes(tar({f"groundup-toy-1.0/{name}": content for name, content in files.items()}))
    wanted = package(sdist, member="groundup-toy-1.0/data.txt")
    with pytest.raises(CardError, match="pip fetches wheels only here; .* put the archive with sha256") as caught:
        read_package(wanted, offline=False)
    assert wanted.cache_name in str(caught.value)
    assert not (tmp_path / "ran").exists()
    sdist.rename(cache / wanted.cache_name)
    assert read_package(wanted, offline=True) == {"groundup-toy-1.0/data.txt": b"text"}


def test_an_installed_copy_serves_when_its_members_are_what_the_card_pins(cache):
    content = Path(
        str(__import__("importlib.metadata").metadata.distribution("pytest").locate_file("pytest/py.typed"))
    ).read_bytes()
    pinned = {"registry": "pypi", "name": "pytest", "version": "0", "sha256": "0" * 64, "member": "pytest/py.typed"}
    wanted = Package.model_validate(pinned | {"member_sha256": members_digest({"pytest/py.typed": content})})
    assert read_package(wanted, offline=True) == {"pytest/py.typed": content}
    with pytest.raises(CardError, match="not in the cache"):
        read_package(Package.model_validate(pinned | {"member_sha256": "1" * 64}), offline=True)
    with pytest.raises(CardError, match="not in the cache"):
        read_package(Package.model_validate(pinned), offline=True)


def test_reading_a_package_imports_nothing_of_it(tmp_path, cache, monkeypatch):
    monkeypatch.delitem(sys.modules, "toy", raising=False)  # another test may have left one
    wanted = package(wheel(tmp_path / "toy.whl"), member="toy/*")
    (tmp_path / "toy.whl").rename(cache / wanted.cache_name)
    assert read_package(wanted, offline=True)["toy/__init__.py"].startswith(b"raise SystemExit")
    assert "toy" not in sys.modules


@pytest.mark.parametrize(
    "values",
    [
        {"member": "../x"},
        {"member": "/etc/passwd"},
        {"sha256": "abc"},
        {"name": "--index-url=evil"},
        {"version": "--evil"},
        {"name": "a b"},
        {"registry": "gem"},
    ],
)
def test_a_card_cannot_name_what_is_no_package(tmp_path, values):
    with pytest.raises(ValidationError):
        package(wheel(tmp_path / "toy.whl"), **values)


def test_members_digest_is_what_sha256sum_prints(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    listing = subprocess.run(["sha256sum", "a", "b"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert members_digest({"b": b"b", "a": b"a"}) == hashlib.sha256(listing).hexdigest()
    assert members_digest({"a": b"a"}) == json.loads(f'"{hashlib.sha256(b"a").hexdigest()}"')
