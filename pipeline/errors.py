"""Every error that a user can meet, as one tree.

    GroundupError                 exit code   meaning
    ├── InputError                    2       what the user wrote is wrong
    │   ├── RecipeError                       a recipe, an override or the command line
    │   ├── CardError                         a data card
    │   └── DataError                         data that a stage reads
    ├── StageError                    1       a stage could not do its work
    │   └── Diverged                          a loss or gradient stopped being finite
    ├── StoreError                    1       the store cannot be read or written
    │   └── Damaged                           a file is not what its record says
    ├── HubError                     1       the Hub cannot be reached, refuses, or holds something else
    └── Interrupted                 130/143   asked to stop; what was saved is on disk

A message says key, value, rule and what to do next. `assert` is for our own invariants only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GroundupError(Exception):
    """Base of all errors that are shown to the user as one message, without a traceback."""

    exit_code = 1


class InputError(GroundupError):
    """What the user wrote, or pointed to, is wrong."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe, an override or a command-line argument breaks a rule."""


class CardError(InputError):
    """A data card is missing, malformed, or names a source that cannot be had."""


class DataError(InputError):
    """Data that a stage reads breaks a rule."""


class StageError(GroundupError):
    """A stage could not do its work."""


class Diverged(StageError):
    """Training met a value that is not finite; the last good state is on disk."""


class StoreError(GroundupError):
    """The store cannot be read or written."""


class Damaged(StoreError):
    """A file is missing or is not what its record says."""


class HubError(GroundupError):
    """The Hub cannot be reached, refuses, or holds something else than was sent."""


class Interrupted(GroundupError):
    """The run was asked to stop; the next one goes on from what was saved, if anything was."""

    exit_code = 143


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the sentence that names what may have been meant, or lists what exists."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + (", ".join(names) if names else "none")
