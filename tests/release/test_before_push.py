"""What forbids an upload and is known beforehand is said at once, before a model is assembled and tried."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import RecipeError, StoreError
from stages.common.release.destination import alone
from stages.common.release.names import check_repo
from stages.common.release.sending import check_before
from stages.release.publish.__main__ import _parser
from stages.release.publish.__main__ import main as publish_main
from tests.hub.server import HubServer
from tests.release import toy_store as toy


def check(environment: dict[str, str], *flags: str, repo: str = "ada/toy") -> int:
    """Ask what `groundup publish` asks before anything else."""
    return check_before(_parser().parse_args(["runs/x", "--repo", repo, *flags]), None, environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "flags", "code", "said"),
    [
        (None, (), 2, "--push: there is no token; set HF_TOKEN to one that may write, or log in with `hf auth login`"),
        ("hf_unknown", (), 1, "the Hub does not know the token"),
        ("hf_bob", (), 1, "the token of bob may only read"),
        ("hf_ada", ("--tag", "a b"), 2, "--tag 'a b': no name for a branch or tag"),
        ("hf_ada", ("--create-pr", "--revision", "dev"), 2, "--create-pr offers a change to main"),
    ],
)
def test_an_upload_that_must_fail_is_refused_before_the_work(hub: HubServer, capfd, token, flags, code, said) -> None:
    assert check(hub.environment(token), "--push", *flags) == code
    assert said in " ".join(capfd.readouterr().err.split())


def test_who_may_write_is_told_who_they_are_and_nothing_is_made(hub: HubServer, capfd) -> None:
    assert check(hub.environment("hf_ada"), "--push") == 0
    assert capfd.readouterr().out.startswith("account ada (write token) at ")
    assert hub.state.repositories == {}


@pytest.mark.slow
def test_without_a_network_or_with_the_network_forbidden_it_says_so(hub: HubServer, capfd) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = {"HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        assert check(hub.environment("hf_ada") | nobody, "--push") == 1
    assert "cannot be reached" in capfd.readouterr().err
    assert check(hub.environment("hf_ada") | {"HF_HUB_OFFLINE": "1"}, "--push") == 1
    assert "HF_HUB_OFFLINE is set" in capfd.readouterr().err
    with pytest.raises(RecipeError, match="--offline does not go with --push"):
        check({}, "--push", "--offline")


def test_who_only_looks_needs_no_token_and_no_network() -> None:
    assert check({}) == 0


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--repo", "ada/toy"), ("--repo", "toy"), ("--repo", "ada/toy", "--base-repo", "a/b/c@x")])
def test_the_command_refuses_before_it_assembles(hub: HubServer, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    model = toy.pretrained(tmp_path, toy.corpus(tmp_path))
    command = [sys.executable, "-m", "pipeline", "publish", str(model.path), *arguments, "--push"]
    done = subprocess.run(command, env=hub.environment(None), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(("--push: there is no token", "--repo 'toy': the owner", "--base-repo 'a/b/c': no name"))
    assert not (tmp_path / "published").exists()


@pytest.mark.slow
def test_a_folder_of_the_store_is_published_from_anywhere(hub: HubServer, tmp_path: Path) -> None:
    model = toy.pretrained(tmp_path, toy.corpus(tmp_path))
    (tmp_path / "runs" / "toy").mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "pretrain").symlink_to(model.path)
    words = ["publish", "runs/toy/pretrain", "--store", str(tmp_path), "--repo", "ada/toy", "--push"]
    command = [sys.executable, "-m", "pipeline", *words]
    (tmp_path / "away").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "away", env=hub.environment(None), capture_output=True, text=True, check=False)
    assert done.stderr.startswith("--push: there is no token"), done.stderr  # so it was found


def test_no_other_publish_comes_between_the_checks_and_the_upload(tmp_path: Path, monkeypatch, capsys) -> None:
    model, sent = toy.pretrained(tmp_path, toy.corpus(tmp_path)), []

    def send(folder: Path, *_: object, lock: int) -> int:
        assert os.fstat(lock)
        with pytest.raises(StoreError, match="another publish works on it"), alone(folder):
            pass
        sent.append(folder.name)
        return 0

    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # so that it is as it was afterwards
    monkeypatch.setattr("stages.release.publish.__main__.check_before", lambda *_: 0)
    monkeypatch.setattr("stages.release.publish.__main__._check", lambda *_: True)
    monkeypatch.setattr("stages.release.publish.__main__.send", send)
    assert publish_main([str(model.path), "--repo", "ada/toy", "--push"]) == 0, capsys.readouterr().err
    assert sent == ["ada--toy"]


@pytest.mark.parametrize("repo", ["me/toy", "me/my-model_1.0"])
def test_a_good_name_passes(repo: str) -> None:
    check_repo(repo, "--repo")


@pytest.mark.parametrize("program", ["publish", "space", "pull", "push"])
def test_an_address_that_is_none_is_said_by_every_program(program: str, tmp_path: Path, monkeypatch, capsys) -> None:
    main = importlib.import_module(f"stages.release.{program}.__main__").main
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:99999")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # so that it is as it was afterwards
    model = toy.pretrained(tmp_path, toy.corpus(tmp_path))
    words = {
        "publish": [str(model.path), "--repo", "ada/toy"],
        "space": [str(model.path), "--repo", "ada/toy", "--model-repo", "ada/toy"],
        "pull": ["ada/toy"],
        "push": [str(tmp_path), "--repo", "ada/toy"],
    }
    capsys.readouterr()
    assert main(words[program]) == 2
    assert capsys.readouterr().err.startswith("HF_ENDPOINT 'http://localhost:99999': no address of a Hub (Port out of range")


def test_where_the_network_is_forbidden_a_dry_run_compares_with_nothing(monkeypatch, capsys) -> None:
    seen = []
    monkeypatch.setattr("stages.release.publish.__main__.Artifact.open", lambda folder: folder)
    monkeypatch.setattr("stages.release.publish.__main__._publish", lambda _, options, __: seen.append(options.offline) or 0)
    monkeypatch.setattr("stages.release.publish.__main__.check_before", lambda *_: 0)
    for value, words in (("1", []), ("", []), ("ON", []), ("1", ["--push"])):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert publish_main(["runs/x", "--repo", "ada/toy", *words]) == 0
    assert seen == [True, False, True, False]  # with --push the refusal names the variable
