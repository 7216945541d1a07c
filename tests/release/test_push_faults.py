"""Pushing while things go wrong: nothing is lost, nothing is done twice, and the message says what to do."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from stages.common.release.output import Redacting
from stages.common.release.patience import asked_wait
from tests.hub.client import Desk
from tests.hub.publishing import command, push, sign, write_folder
from tests.hub.repository import Entry, Repository
from tests.hub.server import HubServer

COMMIT = "POST .*/commit/main"


@dataclass
class Case:
    """A push that must fail with one message; `faults` strike every time."""

    message: str
    arguments: tuple[str, ...] = ("--push",)
    repo: str = "ada/one"
    token: str | None = "hf_ada"
    faults: dict[str, dict[str, object]] = field(default_factory=dict)
    exit_code: int = 1


LATER = {"status": 429, "retry_after": 3600}
REFUSED = {
    "no token": Case("--push: there is no token; set HF_TOKEN to one that may write", token=None, exit_code=2),
    "unknown token": Case("the Hub does not know the token", token="hf_unknown"),
    "mangled token": Case("HF_TOKEN: holds characters that no token has; copy it again", token="hf_\u00fc", exit_code=2),
    "no Hub": Case("does not answer as a Hub would; check HF_ENDPOINT", faults={"whoami": {"status": 404}}),
    "a record that cannot be kept": Case("No such file or directory", ("--push", "--record", "/proc/no/x.json")),
    "read-only token": Case("HF_TOKEN: the token of bob may only read; make one that may write", token="hf_bob", repo="bob/one"),
    "somebody else's name": Case("eve/new: ada may not do this (You don't have the rights to create a model", repo="eve/new"),
    "somebody else's repository": Case("--repo ada/NAME), or offer the change", ("--push", "--public"), repo="eve/open"),
    "somebody else's private repository": Case("eve/closed: ada may not do this", repo="eve/closed"),
    "gated": Case(
        "eve/gated is gated (Access to model eve/gated is restricted, ask for access.); ask for access at", (), "eve/gated"
    ),
    "no pull request without a repository": Case("--create-pr: there is no ada/one", ("--push", "--create-pr"), exit_code=2),
    "400": Case(
        "the Hub refused (status 400) (no such name)", faults={"repos/create": {"status": 400, "message": "no such name"}}
    ),
    "404 at the commit": Case(
        "ada/one: not found, or private and closed to ada", faults={COMMIT: {"status": 404, "code": "RepoNotFound"}}
    ),
    "no room (403)": Case(
        "the storage quota is used up. Remove old files or repositories of ada, or get more room at",
        faults={COMMIT: {"status": 403, "message": "Private repository storage limit reached, please upgrade your plan"}},
    ),
    "no room (413)": Case("no room left for this (status 413)", faults={COMMIT: {"status": 413}}),
    "no room (507)": Case("no room left for this (status 507)", faults={COMMIT: {"status": 507}}),
    "wait for an hour": Case("too many requests; wait 3600 s. Nothing is lost", faults={"whoami": LATER}),
    "bad card": Case("ada/one: refused (Invalid metadata in README.md. - bad line"),
    "an echo of the token": Case("(*** is wrong)", faults={"whoami": {"status": 403, "message": "hf_ada is wrong"}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_once_with_what_to_do(name: str, desk: Desk, tmp_path: Path) -> None:
    case = REFUSED[name]
    desk.hub.state.create("model", "eve/open", private=False)
    desk.hub.state.create("model", "eve/closed")
    gated = desk.hub.state.create("model", "eve/gated", private=False)
    gated.commit("main", {"groundup.json": Entry(2, b"{}")}, "m", "eve")
    gated.gated = True
    for pattern, how in case.faults.items():
        desk.hub.faults.add(pattern, times=9, **how)
    folder = write_folder(tmp_path / "folder")
    if name == "bad card":
        (folder / "README.md").write_text("---\nlicense mit\n---\n")
        sign(folder)
    done = desk.push(folder, *case.arguments, repo=case.repo, token=case.token)
    assert done.returncode == case.exit_code, done.stdout + done.stderr
    assert case.message in " ".join(done.stderr.split())
    assert "published:" not in done.stdout
    assert all(len(repository.history(repository.head().oid)) <= 2 for repository in desk.hub.state.repositories.values())


@pytest.mark.slow  # a process that imports the libraries anew
def test_without_a_network_it_says_so_at_once(hub: HubServer, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environment = hub.environment("hf_ada") | {"HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        started = time.monotonic()
        done = subprocess.run(command(write_folder(tmp_path / "folder")), env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "check the network and HF_ENDPOINT" in done.stderr
    assert time.monotonic() - started < 20  # no patience for what was never there


@pytest.mark.slow  # a process that imports the libraries anew
def test_offline_mode_is_named(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment("hf_ada") | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command(write_folder(tmp_path / "folder")), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("HF_HUB_OFFLINE is set")) == (1, True)


PASSING = {
    "500": {"status": 500},
    "502": {"status": 502},
    "429 that asks for a moment": {"status": 429, "retry_after": 0},
    "cut before the answer": {"drop": "before"},
    "half an answer": {"cut": 10},
    "no answer in time": {"delay": 1.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(name: str, desk: Desk, tmp_path: Path) -> None:
    desk.hub.faults.add("whoami", **PASSING[name])
    done = desk.push(write_folder(tmp_path / "folder"), "--timeout", "0.5")
    assert done.returncode == 0, done.stderr
    assert "trying again in" in done.stdout
    assert desk.hub.faults.count("whoami", status=200) == 1


@pytest.mark.slow
def test_retry_after_is_honoured(desk: Desk, tmp_path: Path) -> None:
    desk.hub.faults.add("whoami", status=429, retry_after=1)
    started = time.monotonic()
    done = desk.push(write_folder(tmp_path / "folder"))
    assert done.returncode == 0
    assert "status 429; trying again in 1." in done.stdout
    assert time.monotonic() - started > 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("Sun, 06 Nov 1994 08:49:37 -0000", 0.0), ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("\u00b2", None), ("", None)],
)
def test_every_way_to_ask_for_a_wait_is_read(value: str, seconds: float | None) -> None:
    answer = httpx2.Response(429, headers={"Retry-After": value.encode()}, request=httpx2.Request("GET", "http://x"))
    assert asked_wait(HfHubHTTPError("busy", response=answer)) == seconds


def test_output_shows_neither_secrets_nor_signatures() -> None:
    stream = io.StringIO()
    redacting = Redacting(stream)
    redacting.hide("hf_secret")
    redacting.write("PUT https://store.example/lfs?X-Amz-Signature=abc&b=1 by hf_secret\n")
    assert stream.getvalue() == "PUT https://store.example/lfs?... by ***\n"


@pytest.mark.slow
def test_patience_has_an_end(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.add("whoami", status=500, times=99)
    done = push(hub, write_folder(tmp_path / "folder"))
    assert (done.returncode, "the Hub has a fault of its own (status 500)" in done.stderr) == (1, True)
    assert hub.faults.count("whoami") == 6


def one(hub: HubServer) -> Repository:
    return hub.state.repositories["model", "ada/one"]


def publications(hub: HubServer) -> list[str]:
    """The titles of the commits on top of the first."""
    return [commit.title for commit in one(hub).history(one(hub).head().oid)][:-1]


RIDDEN_OUT = {
    "create: answer lost": ("repos/create", {"drop": "after"}),
    "create: a fault of the Hub": ("repos/create", {"status": 503}),
    "asking how to upload: a fault of the Hub": ("preupload", {"status": 500}),
    "upload: cut in the middle of a file": ("PUT /lfs", {"cut_upload": 50_000}),
    "upload: a fault of the Hub": ("PUT /lfs", {"status": 500}),
    "upload: answer lost": ("PUT /lfs", {"drop": "after"}),
    "commit: answer lost": (COMMIT, {"drop": "after"}),
    "commit: cut before it was read": (COMMIT, {"drop": "before"}),
    "commit: a fault of the Hub": (COMMIT, {"status": 500}),
    "commit: no answer in time": (COMMIT, {"delay": 4.0}),
    "commit: 409": (COMMIT, {"status": 409}),
    "commit: 412, but nothing changed": (COMMIT, {"status": 412}),
    "commit: asked to wait": (COMMIT, {"status": 429, "retry_after": 1}),
    "download: cut in the middle of a file": ("GET .*/resolve/.*safetensors", {"cut": 100_000}),
    "download: a fault of the Hub": ("GET .*/resolve/.*safetensors", {"status": 500}),
    "download: asking for it fails": ("HEAD .*/resolve/.*safetensors", {"status": 500}),
    "tag: answer lost": ("POST .*/tag/", {"drop": "after"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RIDDEN_OUT)
def test_what_goes_wrong_once_is_ridden_out_and_done_once(name: str, hub: HubServer, tmp_path: Path) -> None:
    pattern, how = RIDDEN_OUT[name]
    fault = hub.faults.add(pattern, **how)
    folder, record = write_folder(tmp_path / "folder", size=200_000), tmp_path / "published.json"
    done = push(hub, folder, "--push", "--tag", "v1", "--message", "m", "--record", str(record), "--timeout", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert fault.seen >= 1
    assert publications(hub) == ["m"]
    assert one(hub).tags == {"v1": one(hub).head().oid}
    assert len(json.loads(record.read_text())["published"]) == 1


KILLED = {
    "before the repository is made": ("repos/create", "before"),
    "after the repository was made": ("repos/create", "after"),
    "before the upload": ("PUT /lfs", "before"),
    "after the upload": ("PUT /lfs", "after"),
    "before the commit": (COMMIT, "before"),
    "after the commit": (COMMIT, "after"),
    "while it is verified": ("GET .*/resolve/.*safetensors", "before"),
    "before the tag": ("POST .*/tag/", "before"),
    "after the tag": ("POST .*/tag/", "after"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_killed_at_any_point_it_goes_on_and_does_nothing_twice(name: str, hub: HubServer, tmp_path: Path) -> None:
    pattern, moment = KILLED[name]
    folder, record = write_folder(tmp_path / "folder"), tmp_path / "published.json"
    arguments = ("--push", "--tag", "v1", "--message", "m", "--record", str(record))
    process = subprocess.Popen(
        command(folder, *arguments), env=hub.environment("hf_ada"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    hub.faults.add(pattern, drop=moment, call=lambda: process.send_signal(signal.SIGKILL))
    assert process.wait(60) == -signal.SIGKILL
    assert not record.exists()
    done = push(hub, folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert publications(hub) == ["m"]
    assert one(hub).tags == {"v1": one(hub).head().oid}
    assert len(json.loads(record.read_text())["published"]) == 1
    sent_before = name not in ("before the repository is made", "after the repository was made", "before the upload")
    assert hub.faults.count("PUT /lfs", status=200) == (0 if name == "after the upload" else 1), sent_before


@pytest.mark.slow
def test_a_pull_request_whose_answer_was_lost_is_found_again(hub: HubServer, tmp_path: Path) -> None:
    hub.state.create("model", "eve/open", private=False)
    hub.faults.add("POST .*/discussions$", drop="after")
    done = push(hub, write_folder(tmp_path / "folder"), "--push", "--public", "--create-pr", repo="eve/open")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(hub.state.repositories["model", "eve/open"].pulls) == 1


@pytest.mark.slow
def test_two_publishers_of_the_same_make_one_commit(hub: HubServer, tmp_path: Path) -> None:
    folder, other = write_folder(tmp_path / "folder"), write_folder(tmp_path / "other")
    seen: list[int] = []
    hub.faults.add(COMMIT, call=lambda: seen.append(push(hub, other, "--push", "--message", "second").returncode))
    done = push(hub, folder, "--push", "--message", "first")
    assert (done.returncode, seen) == (0, [0]), done.stdout + done.stderr
    assert "the commit had arrived" in done.stdout
    assert publications(hub) == ["second"]


@pytest.mark.slow
def test_two_publishers_of_different_things_do_not_mix_and_the_later_is_told(hub: HubServer, tmp_path: Path) -> None:
    folder, other = write_folder(tmp_path / "folder"), write_folder(tmp_path / "other", seed=1, note="other")
    hub.faults.add(COMMIT, call=lambda: push(hub, other, "--push", "--message", "second"))
    done = push(hub, folder, "--push", "--message", "first")
    assert done.returncode == 1
    assert "somebody else changed it while we were sending" in done.stderr
    assert "nothing of ours was committed" in done.stderr
    assert publications(hub) == ["second"]


@pytest.mark.slow
def test_what_somebody_else_writes_meanwhile_is_not_overwritten(desk: Desk, tmp_path: Path) -> None:
    desk.hub.state.create("model", "ada/one")

    def write() -> None:
        one(desk.hub).commit("main", {**one(desk.hub).head().tree, "README.md": Entry(6, b"theirs")}, "theirs", "ada")

    desk.hub.faults.add(COMMIT, call=write)
    done = desk.push(write_folder(tmp_path / "folder"), "--push", "--message", "first")
    assert done.returncode == 1, done.stdout
    assert "somebody else changed it while we were sending" in done.stderr
    assert publications(desk.hub) == ["theirs"]
    assert one(desk.hub).head().tree["README.md"].content == b"theirs"


@pytest.mark.slow
def test_somebody_who_adds_another_file_meanwhile_is_no_hindrance(hub: HubServer, tmp_path: Path) -> None:
    hub.state.create("model", "ada/one")

    def add() -> None:
        one(hub).commit("main", {**one(hub).head().tree, "notes.txt": Entry(1, b"x")}, "notes", "ada")

    hub.faults.add(COMMIT, call=add)
    done = push(hub, write_folder(tmp_path / "folder"), "--push", "--message", "first")
    assert done.returncode == 0, done.stderr
    assert publications(hub) == ["first", "notes"]
    assert "notes.txt" in one(hub).head().tree
