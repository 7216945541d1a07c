"""What the program writes: no token and no signed address ever leaves through it, whoever wrote the line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


class Redacting:
    """A text stream that blanks secrets, and the query of addresses (an upload address carries its signature there).

    It stands in for stdout and stderr, so that warnings and log lines of libraries go through it as well.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.secrets: set[str] = set()

    def hide(self, secret: str) -> None:
        """Blank `secret` from now on."""
        self.secrets.add(secret)

    def write(self, text: str) -> int:
        """Write `text` without what must not be seen."""
        self._stream.write(self.clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several lines."""
        for line in lines:
            self.write(line)

    def clean(self, text: str) -> str:
        """Return `text` without what must not be seen."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return without_signatures(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person is looking."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream below."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """The encoding of the stream below."""
        return self._stream.encoding


def without_signatures(text: str) -> str:
    """Return `text` without the queries of the addresses in it."""
    return _SIGNED.sub(r"\1?...", text)


@contextmanager
def redacted_output() -> Iterator[Redacting]:
    """Put stdout and stderr behind one Redacting each, with secrets in common; yields the one of stderr."""
    before = sys.stdout, sys.stderr
    out, error = Redacting(sys.stdout), Redacting(sys.stderr)
    out.secrets = error.secrets
    sys.stdout, sys.stderr = out, error
    try:
        yield error
    finally:
        sys.stdout, sys.stderr = before


def say(text: str) -> None:
    """Show one step, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def size_of(num_bytes: int) -> str:
    """Return a size for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} B"
