"""Which failures pass by themselves, and how long to wait for that.

`huggingface_hub` tries again by itself where it lists a tree, asks how to upload, moves large files, and downloads (up to five
times, Retry-After honoured). It does not where it makes repositories, branches, tags, pull requests and commits or asks who
we are: those calls go through `persist`, so that nothing is tried again twice over.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from stages.common.release.output import say

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 16.0
LONGEST_ASKED_SECONDS = 300.0
"""Longest Retry-After that is waited for; what the Hub asks beyond that is left to the user."""

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)
T = TypeVar("T")


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a failure, 0 when there was no answer."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else 0


def is_passing(error: BaseException) -> bool:
    """True for a failure that may be gone in a moment: no answer, half an answer, too many requests, a fault of the server."""
    if isinstance(error, HfHubHTTPError):
        return status_of(error) in _PASSING
    # A gateway in trouble answers with a page for people, where the client expects JSON.
    return isinstance(error, httpx2.TransportError | json.JSONDecodeError) and not isinstance(error, httpx2.UnsupportedProtocol)


def asked_wait(error: BaseException) -> float | None:
    """Return the seconds that the answer asks to wait (`Retry-After` as a number or a date), None when it asks for nothing."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # what "-0000" at its end becomes: in UTC, from a place that is not told
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def wait_before(attempt: int, error: BaseException) -> float:
    """Return the seconds before the next try: what was asked, or twice as long each time, with jitter on top.

    Jitter keeps two publishers that fell over together from falling over together again. Source: Brooker, "Exponential
    Backoff And Jitter", 2015, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    asked = asked_wait(error)
    if asked is not None:
        return asked + random.SystemRandom().uniform(0, 0.5)
    bound: float = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
    return bound * random.SystemRandom().uniform(0.5, 1)


def pause(attempt: int, error: BaseException, tell: Callable[[str], None] = say) -> bool:
    """Wait before the next try and say so; False when there is no next try, or the Hub asks for more patience than we have."""
    seconds = wait_before(attempt, error)
    if attempt + 1 >= ATTEMPTS or seconds > LONGEST_ASKED_SECONDS:
        return False
    reason = f"status {status_of(error)}" if status_of(error) else type(error).__name__
    tell(f"  {reason}; trying again in {seconds:.1f} s ({attempt + 2} of {ATTEMPTS})")
    time.sleep(seconds)
    return True


def persist(
    call: Callable[[], T],
    *,
    passing: Callable[[BaseException], bool] = is_passing,
    tell: Callable[[str], None] = say,
) -> T:
    """Return what `call` returns, trying again while its failures are `passing`; the last failure is raised.

    `tell` says of each wait, one line.
    """
    attempt = 0
    while True:
        try:
            return call()
        except Exception as error:
            if not passing(error) or not pause(attempt, error, tell):
                raise
            attempt += 1
