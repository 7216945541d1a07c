"""One connection to the Hub: who we are, with patience for what passes, and errors that say what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from pipeline.errors import HubError
from stages.common.release.patience import is_passing, persist, status_of
from stages.release.push.explain import Place, explain

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """What is published where."""

    repo: str
    repo_type: str
    revision: str


class Hub:
    """The API of `huggingface_hub` behind one door.

    Attributes:
        api: the client; it takes its token from the environment or from the Hub's own login.
        place: where we are, for messages.
        owners: the names under which the account may have repositories: its own, then its organisations.
        role: of the token: read, write, fineGrained; none without a token.
    """

    def __init__(self, target: Target, *, timeout_seconds: float) -> None:
        set_client_factory(lambda: _patient_client(timeout_seconds))
        self.api = HfApi()
        self.target = target
        self.place = Place(self.api.endpoint, target.repo, "")
        self.role, self.owners = "none", list[str]()
        self._reached = False

    @property
    def address(self) -> str:
        """Where people see the repository."""
        prefix = "" if self.target.repo_type == "model" else f"{self.target.repo_type}s/"
        return f"{self.place.endpoint}/{prefix}{self.target.repo}"

    def about(self, repo: str) -> Hub:
        """Return the same connection, whose errors speak of another repository."""
        other = copy.copy(self)
        other.place = self.place._replace(repo=repo)
        return other

    def log_in(self) -> None:
        """Learn who the token stands for.

        Raises:
            HubError: the Hub cannot be reached, does not know the token, or the token may only read.
        """
        found = self.ask(self.api.whoami)
        self.place = self.place._replace(account=found["name"])
        self.role = str(found.get("auth", {}).get("accessToken", {}).get("role", "unknown"))
        self.owners = [found["name"], *(org["name"] for org in found.get("orgs", []))]

    def check_may_write(self) -> None:
        """Refuse a token that may only read, before anything is sent."""
        if self.role == "read":
            raise HubError(
                f"HF_TOKEN: the token of {self.place.account} may only read; make one that may write at "
                f"{self.place.endpoint}/settings/tokens"
            )

    def ask(self, call: Callable[..., T], *arguments: Any, **keys: Any) -> T:
        """Call what the client does not try again by itself."""
        return self._explained(lambda: persist(lambda: call(*arguments, **keys), passing=self._is_passing))

    def once(self, call: Callable[..., T], *arguments: Any, **keys: Any) -> T:
        """Call what the client tries again by itself."""
        return self._explained(lambda: call(*arguments, **keys))

    def download(self, path: str, commit: str, cache: Path) -> Path:
        """Fetch a file of a commit into a cache; a transfer that was cut goes on where it stopped."""

        def fetch() -> str:
            target = self.target
            return self.api.hf_hub_download(target.repo, path, repo_type=target.repo_type, revision=commit, cache_dir=cache)

        return Path(self._explained(lambda: persist(fetch, passing=_is_left_to_us)))

    def _explained(self, call: Callable[[], T]) -> T:
        try:
            result = call()
        except Exception as error:
            raise explain(error, self.place) from error
        self._reached = True
        return result

    def _is_passing(self, error: BaseException) -> bool:
        """Who cannot reach the Hub at all wants to know at once; after a first answer it is worth waiting for."""
        return is_passing(error) and (self._reached or not isinstance(error, httpx2.ConnectError))


def _is_left_to_us(error: BaseException) -> bool:
    """In a download the client goes on by itself except after these."""
    return status_of(error) >= 500 or isinstance(error, httpx2.ReadError)


def _patient_client(timeout_seconds: float) -> httpx2.Client:
    """Return the client's own client, but never waiting for ever: many of its calls ask for no limit at all."""

    def limit(request: httpx2.Request) -> None:
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {key: asked.get(key) or timeout_seconds for key in ("connect", "read", "write", "pool")}

    client = default_client_factory()
    client.event_hooks = client.event_hooks | {"request": [*client.event_hooks["request"], limit]}
    return client
