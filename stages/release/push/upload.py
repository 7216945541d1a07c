"""Bring a branch to the state of the folder: send what differs, one commit on top of what we compared with.

Whatever goes wrong at the commit (no answer, a full server, somebody else was quicker), the repository is read and compared
again before anything is sent again: a commit that arrived although its answer was lost is found, never made twice.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from pipeline.errors import HubError
from stages.common.release.output import say, size_of
from stages.common.release.patience import is_passing, pause, status_of
from stages.release.push.comparison import Change, Folder, read_and_compare
from stages.release.push.explain import explain
from stages.release.push.hub import Hub
from stages.release.push.remote import Remote

_OVERTAKEN = (409, 412)
"""Somebody else changes the branch at this moment, or has changed it since we looked."""


def deliver(hub: Hub, folder: Folder, cache: Path, revision: str, message: str, look: tuple[Remote, Change]) -> str:
    """Make `revision` hold the folder; return its commit, which is an old one when there was nothing to change.

    Args:
        look: the state that was compared with, and the outcome.

    Raises:
        HubError: the Hub refuses, or somebody else changed the same files meanwhile.
    """
    remote, change = look
    attempt = 0
    while change:
        seen = change.touches(remote)
        try:
            return _commit(hub, folder, remote, change, revision, message)
        except Exception as error:
            passing = status_of(error) in _OVERTAKEN or is_passing(error)
            if not passing or not pause(attempt, error):
                raise explain(error, hub.place) from error
        attempt += 1
        remote, change = read_and_compare(hub, folder, cache, revision)
        if not change:
            say("  the commit had arrived; its answer was lost")
        elif change.touches(remote) != seen:
            raise _changed_meanwhile(hub, remote, change)
    assert remote.commit is not None
    return remote.commit


def _commit(hub: Hub, folder: Folder, remote: Remote, change: Change, revision: str, message: str) -> str:
    """Upload what the repository does not have and commit it; raises what `huggingface_hub` raises."""
    target, additions = hub.target, []
    for path in change.sent:
        addition = CommitOperationAdd(path, folder.path / path)
        addition.upload_info.sha256 = bytes.fromhex(folder.files[path].sha256)  # known: no need to read it once more
        additions.append(addition)
    num_bytes = sum(folder.files[path].bytes for path in change.sent)
    say(f"sending {len(additions)} files ({size_of(num_bytes)}); what the Hub has already is not sent again")

    def upload() -> None:  # the client tries this again by itself
        hub.api.preupload_lfs_files(
            target.repo, additions, repo_type=target.repo_type, revision=revision, free_memory=False, num_threads=2
        )

    hub.once(upload)
    deletions = [CommitOperationDelete(path, is_folder=False) for path in change.removed]
    made = hub.api.create_commit(
        target.repo,
        [*deletions, *additions],
        commit_message=message,
        repo_type=target.repo_type,
        revision=revision,
        parent_commit=remote.commit,
    )
    return str(made.oid)


def _changed_meanwhile(hub: Hub, remote: Remote, change: Change) -> HubError:
    now = ", ".join(sorted(change.touches(remote))[:5])
    return HubError(
        f"{hub.target.repo}: somebody else changed it while we were sending (it is at {str(remote.commit)[:7]} now, and {now} "
        "would be replaced or removed); nothing of ours was committed. Look at it without --push, then push again"
    )
