"""Values that look like paths, names or addresses: taken as they stand, or refused with what would work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.cards import load_card
from pipeline.errors import CardError, DataError
from pipeline.fingerprint import _commit, _files
from pipeline.hashes import HashCache
from pipeline.rank import describe_os_error
from pipeline.sources import HubRepo, LocalFiles, expand
from tests.engine.conftest import SHARED, WRITE, Project


@pytest.mark.parametrize("value", ["$NOWHERE/data.txt", "${NOWHERE}", "C:\\data\\my.txt", "~nobody/data.txt", ""])
def test_what_names_no_file_here_is_quoted_as_it_was_written(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is put in: a recipe must mean the same wherever it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(DataError) as caught:
        expand([value])
    assert f"'{value}' names no file here" in str(caught.value)


def test_home_relative_and_unicode_paths_with_blanks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mes données 你"
    folder.mkdir()
    (folder / "a b.txt").write_text("x")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for pattern in ("~/mes données 你", "mes données 你/a b.txt", "./mes données 你/*.txt", str(folder)):
        assert [path.name for path in expand([pattern])] == ["a b.txt"]


def test_a_folder_is_read_without_what_is_hidden_in_it(tmp_path: Path) -> None:
    for name in ("a.txt", "sub/b.txt", ".c.txt", ".git/d.txt", "sub/.cache/deep/e.txt"):
        (tmp_path / ".work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".work" / name).touch()
    assert [path.name for path in expand([str(tmp_path / ".work")])] == ["a.txt", "b.txt"]


def test_a_file_name_that_is_not_utf8_is_refused_where_names_count(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_text("x")
    hashes = HashCache(tmp_path / "hashes.json")
    with pytest.raises(DataError, match=r"caf\\udce9.png' is not UTF-8; rename it"):
        _files(LocalFiles((str(tmp_path),), named=True), hashes)
    _files(LocalFiles((str(tmp_path),)), hashes)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "A", ""])
def test_a_card_is_named_and_never_a_path(name: str) -> None:
    with pytest.raises(CardError, match="without a path"):
        load_card(name)


def test_offline_a_branch_of_the_hub_is_refused_and_a_commit_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert _commit(HubRepo("owner/name", "0" * 40), offline=True) == "0" * 40
    with pytest.raises(DataError, match="the network is forbidden; pin a full commit"):
        _commit(HubRepo("owner/name"), offline=True)
    with pytest.raises(DataError, match="the Hub gave no commit"):
        _commit(HubRepo("owner/name"), offline=False)


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_an_error_of_the_system_says_what_to_do(code: int, words: str) -> None:
    told = describe_os_error(OSError(code, "text of the system", "/store/file"))
    assert words in told
    assert "/store/file" in told
    assert "run the same command again" in told


@pytest.mark.slow
def test_settings_of_the_run_change_no_fingerprint(project: Project) -> None:
    """Device, processes and threads are where a stage runs, not what it computes."""
    project.stage("write", WRITE, SHARED)
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n")
    project.groundup("run", "recipe.yaml")
    launch = ["stages.a.launch.processes=2", "stages.a.launch.threads=1", "stages.a.launch.heartbeat_timeout_seconds=5"]
    assert "nothing to run" in project.groundup("plan", "recipe.yaml", *launch, CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
def test_a_stage_that_the_system_killed_says_what_may_have_happened(project: Project) -> None:
    killed = "import os\nimport signal\n\n\ndef run(config, context):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    project.stage("large", killed)
    project.recipe("name: r\nstages:\n  a: {stage: toy.large, text: a}\n")
    assert "killed by SIGKILL (the system may have run out of memory)" in project.groundup("run", "recipe.yaml", code=1)
