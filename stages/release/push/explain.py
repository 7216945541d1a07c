"""From what `huggingface_hub` raises to one message: what was refused, which rule, what to do next."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import GroundupError, HubError
from stages.common.release.patience import asked_wait, status_of

_NO_ROOM = re.compile(r"storage (limit|quota)|quota (is |was )?(exceeded|reached|used)", re.IGNORECASE)
AGAIN = "Nothing is lost: run the same command again, it goes on where it stopped."


class Place(NamedTuple):
    """Where we are sending to, for messages; `account` is empty without a token."""

    endpoint: str
    repo: str
    account: str


def explain(error: Exception, place: Place) -> GroundupError:
    """Return the error to show for `error`."""
    if isinstance(error, GroundupError):
        return error
    if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError | json.JSONDecodeError):
        return HubError(f"{place.repo}: refused ({error})")  # the client's own rules: metadata of the card, names
    cause: BaseException = error
    while not isinstance(cause, HfHubHTTPError | httpx2.TransportError | OfflineModeIsEnabled) and cause.__cause__ is not None:
        cause = cause.__cause__  # the client wraps what went wrong with one file
    if isinstance(cause, HfHubHTTPError):
        return HubError(_answered(cause, place))
    return HubError(_unanswered(cause, place))


def _unanswered(cause: BaseException, place: Place) -> str:
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so no request may be sent; unset it to publish"
    if isinstance(cause, httpx2.UnsupportedProtocol):
        return f"HF_ENDPOINT {place.endpoint!r}: no address of a Hub; it begins with https:// (or http:// for one of your own)"
    if isinstance(cause, httpx2.ConnectError):
        return f"{place.endpoint} cannot be reached ({cause}); check the network and HF_ENDPOINT. {AGAIN}"
    if isinstance(cause, httpx2.TimeoutException):
        return f"{place.endpoint} did not answer in time (--timeout sets how long to wait). {AGAIN}"
    if isinstance(cause, httpx2.TransportError | LocalEntryNotFoundError):
        return f"{place.endpoint}: the connection broke ({type(cause).__name__}: {cause}). {AGAIN}"
    if isinstance(cause, json.JSONDecodeError):
        return f"{place.endpoint} does not answer as a Hub would; check HF_ENDPOINT. {AGAIN}"
    return f"{place.repo}: that failed ({type(cause).__name__}: {cause}). {AGAIN}"


def _answered(error: HfHubHTTPError, place: Place) -> str:
    said = f" ({' '.join(error.server_message.split())})" if error.server_message else ""
    status, repo = status_of(error), place.repo
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated{said}; ask for access at {place.endpoint}/{repo}, then run the same command again"
    if status in (413, 507) or (status == 403 and _NO_ROOM.search(said)):
        return (
            f"{repo}: the Hub has no room left for this (status {status}){said}: the storage quota is used up. Remove old files "
            f"or repositories of {repo.partition('/')[0]}, or get more room at {place.endpoint}/settings/billing. {AGAIN}"
        )
    if status in (401, 403):
        return _denied(status, place, said)
    if status == 404:
        return _missing(error, place, said)
    if status == 412:
        return f"{repo}: somebody else changes it all the time{said}; wait until they are done. {AGAIN}"
    if status == 409:
        return f"{repo}: another operation is at work there{said}. {AGAIN}"
    if status == 429:
        return f"{place.endpoint}: too many requests{said}; wait {asked_wait(error) or 60:.0f} s. {AGAIN}"
    if status >= 500:
        return f"{place.endpoint}: the Hub has a fault of its own (status {status}){said}; try later. {AGAIN}"
    return f"{repo}: the Hub refused (status {status}){said}"


def _denied(status: int, place: Place, said: str) -> str:
    if status == 401 and place.account == "":
        return (
            f"the Hub does not know the token{said}; make one that may write at {place.endpoint}/settings/tokens and set "
            "HF_TOKEN, or log in with `hf auth login`"
        )
    return (
        f"{place.repo}: {place.account or 'without a token, nobody'} may not do this{said}; use a token that may write, "
        f"a repository of your own (--repo {place.account or 'YOU'}/NAME), or offer the change with --create-pr"
    )


def _missing(error: HfHubHTTPError, place: Place, said: str) -> str:
    if isinstance(error, RevisionNotFoundError):
        return f"{place.repo}: no such revision{said}"
    if place.account == "" and not isinstance(error, RepositoryNotFoundError):
        return f"{place.endpoint} does not answer as a Hub would; check HF_ENDPOINT{said}"
    return f"{place.repo}: not found, or private and closed to {place.account or 'people without a token'}{said}"
