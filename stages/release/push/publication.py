"""The steps of a publication, in order; each can be cut off anywhere, and the next run goes on from what the Hub holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import HubError, RecipeError
from stages.common.release.layout import MANIFEST
from stages.common.release.output import say
from stages.release.push import pull_request
from stages.release.push.comparison import Change, Folder, read_and_compare, show
from stages.release.push.hub import Hub
from stages.release.push.record import add_entry
from stages.release.push.remote import MAIN, Remote
from stages.release.push.upload import deliver
from stages.release.push.verification import check_base, verify


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for, beside the folder and the repository."""

    push: bool
    public: bool
    create_pr: bool
    tag: str | None
    message: str
    record: Path | None


def publish(hub: Hub, folder: Folder, wish: Wish, cache: Path) -> None:
    """Compare, and with `wish.push` send, verify, tag and write it down.

    Raises:
        HubError: the Hub refuses, cannot be reached, or does not give back what was sent.
        RecipeError: the tag names something else already, or the repository is public and `--public` was not said.
    """
    remote, change = read_and_compare(hub, folder, cache)
    show(hub, folder, remote, change)
    is_tagged = _is_tagged(hub, folder, remote, change, wish, cache)
    if not wish.push:
        _warn_of_owner(hub, remote)
        say("nothing was sent: this was the comparison; --push sends")
        return
    _check_visibility(hub, remote, wish)
    _check_branch(hub, remote)
    check_base(hub, folder)
    if remote.commit is None and wish.create_pr:
        raise RecipeError(f"--create-pr: there is no {hub.target.repo} that you may see; leave it out to make the repository")
    if remote.commit is None:
        remote, change = _create(hub, folder, wish, cache)
    if wish.create_pr:
        commit, address = _offer(hub, folder, wish, cache, change)
    else:
        if not remote.has_branch:
            _start_branch(hub)
        commit = deliver(hub, folder, cache, hub.target.revision, wish.message, (remote, change))
        address = f"{hub.address}/tree/{commit}"
    say(f"commit {commit}" if change else f"nothing to change: commit {commit} holds it already")
    shown = verify(hub, folder, commit)
    if wish.tag and is_tagged:
        say(f"tag {wish.tag} stands, at a commit that holds all of this")
    elif wish.tag:
        _tag(hub, commit, wish.tag)
    if wish.record is not None:
        add_entry(wish.record, _entry(hub, folder, wish, commit, address, shown))
    state = "offered as a pull request, not merged yet" if wish.create_pr else "published"
    say(f"{state}: {hub.target.repo} at commit {commit}\n{address}")


def _create(hub: Hub, folder: Folder, wish: Wish, cache: Path) -> tuple[Remote, Change]:
    """Make the repository; one that somebody (or an earlier try) made meanwhile is as good."""
    target = hub.target
    kind = {"repo_type": target.repo_type} | ({"space_sdk": "gradio"} if target.repo_type == "space" else {})
    hub.ask(hub.api.create_repo, target.repo, private=not wish.public, exist_ok=True, **kind)
    say(f"repository {target.repo} created ({'public' if wish.public else 'private'})")
    remote, change = read_and_compare(hub, folder, cache)
    if remote.commit is None:
        raise HubError(f"{target.repo}: the Hub says that it was created, but does not show it; run the same command again")
    _check_visibility(hub, remote, wish)
    return remote, change


def _start_branch(hub: Hub) -> None:
    target = hub.target
    hub.ask(hub.api.create_branch, target.repo, branch=target.revision, repo_type=target.repo_type, exist_ok=True)
    say(f"branch {target.revision} started from {MAIN}")


def _offer(hub: Hub, folder: Folder, wish: Wish, cache: Path, change: Change) -> tuple[str, str]:
    """Put the folder into a pull request; return its commit and address."""
    if not change:
        raise RecipeError(f"--create-pr: {hub.target.repo} holds all of this already, so there is nothing to offer")
    text = f"Artifact {folder.manifest.artifact} ({folder.manifest.stage}, {folder.manifest.part}), published by Groundup."
    pull = pull_request.find_or_open(hub, wish.message, text)
    reference = str(pull.git_reference)
    look = read_and_compare(hub, folder, cache, reference)
    commit = deliver(hub, folder, cache, reference, wish.message, look)
    pull_request.publish(hub, pull)
    return commit, str(pull.url)


def _check_visibility(hub: Hub, remote: Remote, wish: Wish) -> None:
    """Nothing becomes public by accident."""
    repo = hub.target.repo
    if remote.commit is not None and not remote.private and not wish.public:
        what = "the files of a pull request" if wish.create_pr else "this"
        raise RecipeError(
            f"--public is missing: {repo} is a public repository, so everybody will see {what}; say --public to agree"
        )
    if remote.commit is not None and remote.private and wish.public:
        say(f"note: {repo} is private and stays so; make it public at {hub.address}/settings")


def _check_branch(hub: Hub, remote: Remote) -> None:
    """A tag or a commit can be read like a branch, but nothing can be put on top of it."""
    target = hub.target
    if target.revision == MAIN or not remote.has_branch:
        return
    refs = hub.ask(hub.api.list_repo_refs, target.repo, repo_type=target.repo_type)
    if target.revision not in {branch.name for branch in refs.branches}:
        raise RecipeError(f"--revision {target.revision}: a tag or commit of {target.repo}, not a branch; name a branch")


def _is_tagged(hub: Hub, folder: Folder, remote: Remote, change: Change, wish: Wish, cache: Path) -> bool:
    """Whether the tag stands where it should. It is never moved: it may be new, or name a commit that holds all of this.

    The branch may have gone on since (a note was added): the same command again is still no mistake.
    """
    tagged = _tags(hub).get(wish.tag) if wish.tag is not None and remote.commit is not None else None
    if tagged is None:
        return False
    if tagged != remote.commit:
        _, change = read_and_compare(hub, folder, cache, tagged)
    if change:
        raise RecipeError(f"--tag {wish.tag}: names commit {tagged[:7]} of {hub.target.repo} already; choose another name")
    return True


def _tags(hub: Hub) -> dict[str, str]:
    refs = hub.ask(hub.api.list_repo_refs, hub.target.repo, repo_type=hub.target.repo_type)
    return {tag.name: tag.target_commit for tag in refs.tags}


def _tag(hub: Hub, commit: str, tag: str) -> None:
    target = hub.target
    hub.ask(hub.api.create_tag, target.repo, tag=tag, revision=commit, repo_type=target.repo_type, exist_ok=True)
    if _tags(hub).get(tag) != commit:
        raise HubError(
            f"--tag {tag}: somebody else gave that name to another commit; tag {commit} by hand, or choose another name"
        )
    say(f"tag {tag}")


def _warn_of_owner(hub: Hub, remote: Remote) -> None:
    owner = hub.target.repo.partition("/")[0]
    if hub.owners and owner not in hub.owners:
        how = "--create-pr offers the change" if remote.commit else f"choose --repo {hub.owners[0]}/..."
        say(f"note: {owner} is neither {hub.owners[0]} nor an organisation of theirs, so a push may be refused; {how}")


def _entry(hub: Hub, folder: Folder, wish: Wish, commit: str, address: str, shown: dict[str, Any]) -> dict[str, Any]:
    target = hub.target
    return {
        "endpoint": hub.place.endpoint,
        "repo": target.repo,
        "repo_type": target.repo_type,
        "revision": target.revision,
        "commit": commit,
        "tag": wish.tag,
        "pull_request": wish.create_pr,
        "address": address,
        "artifact": folder.manifest.artifact,
        "part": folder.manifest.part,
        "manifest_sha256": folder.files[MANIFEST].sha256,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "verified": shown,
    }
