"""Offer the folder as a pull request: found again when it was opened before, so that no second one appears."""

from __future__ import annotations

from huggingface_hub import Discussion

from stages.common.release.output import say
from stages.release.push.hub import Hub


def find_or_open(hub: Hub, title: str, description: str) -> Discussion:
    """Return the open pull request of ours with that title, or open one (a draft until it holds the files)."""
    target = hub.target

    def search_and_open() -> Discussion:
        # The search is part of what is tried again: a request whose answer was lost has opened one all the same.
        listed = hub.api.get_repo_discussions(
            target.repo,
            repo_type=target.repo_type,
            author=hub.place.account,
            discussion_type="pull_request",
            discussion_status="open",
        )
        found = next((pull for pull in listed if pull.title == title and pull.status in ("open", "draft")), None)
        if found is not None:
            say(f"pull request {found.num} of yours has that title; it is brought up to date")
            return found
        made = hub.api.create_pull_request(target.repo, title=title, description=description, repo_type=target.repo_type)
        say(f"pull request {made.num} opened as a draft")
        return made

    return hub.ask(search_and_open)


def publish(hub: Hub, pull: Discussion) -> None:
    """Take the pull request out of draft, now that it holds what it should."""
    if pull.status == "draft":
        hub.ask(hub.api.change_discussion_status, hub.target.repo, pull.num, "open", repo_type=hub.target.repo_type)
