"""Which files of a repository on the Hub may come to this machine: data of known types, under names that stay in their folder.

Nothing here opens a file: names and sizes are judged before a byte is fetched.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from stages.common.release.layout import GIT_ATTRIBUTES, LICENSE, MANIFEST, Manifest, is_inside

DATA_SUFFIXES = frozenset(
    {".safetensors", ".json", ".jsonl", ".txt", ".model", ".md", ".yaml", ".png", ".svg", ".csv", ".parquet", ".arrow", ".jinja"}
)
"""Types that are fetched; reading one never runs anything (a chat template is rendered only on request, in a sandbox)."""
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras"})
CODE_SUFFIXES = frozenset(
    {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".exe", ".js", ".html", ".ipynb", ".jar", ".whl"}
)
MAX_FILES = 10_000
MAX_TEXT_BYTES = 64 * 2**20
"""Most bytes of a JSON file that is read whole: records, configs, the manifest."""
LARGE_SUFFIXES = frozenset({".safetensors", ".parquet", ".arrow", ".jsonl", ".csv", ".txt", ".model", ".png", ".svg"})
_LOADED_SUFFIXES = PICKLE_SUFFIXES | CODE_SUFFIXES | {".json", ".model", ".jinja", ".parquet", ".arrow", ".jsonl", ".csv"}
_TOKENIZER_TEXTS = frozenset({"vocab.txt", "merges.txt"})
_NOT_PLAIN = "is no plain"
_MAX_NAME = 200


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it: size in bytes, and the sha256 where it is kept as a large file."""

    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Choice:
    """What of a repository is fetched.

    Attributes:
        wanted: names to fetch.
        left_out: names that stay where they are, each with the reason.
        problems: why nothing may be fetched, one sentence each; empty when all is well.
    """

    wanted: tuple[str, ...]
    left_out: dict[str, str]
    problems: tuple[str, ...]


def refusal(name: str) -> str | None:
    """Say why a file of this name is never fetched; None when it may be."""
    path = PurePosixPath(name)
    plain = all(unicodedata.category(character)[0] != "C" for character in name)
    if not is_inside(name) or not plain or len(name) > _MAX_NAME:
        return f"{_NOT_PLAIN} relative path inside the repository"
    if any(part.startswith(".") for part in path.parts):
        return "is a hidden file or lies in a hidden folder"
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return "may be a pickle, which can run code when it is opened"
    if suffix in CODE_SUFFIXES:
        return "is code, and nothing that comes from elsewhere is executed"
    if suffix not in DATA_SUFFIXES and name != LICENSE:
        return f"is of a type that is not fetched ('{suffix or path.name}')"
    return None


def is_loaded(name: str) -> bool:
    """Say whether a library that loads the repository may read a file of this name: weights, configs, tokenizers, data, code."""
    path = PurePosixPath(name.lower())
    by_name = ".safetensors" in path.name or path.name in _TOKENIZER_TEXTS or path.name.startswith(("tokenizer", "chat_template"))
    return by_name or path.suffix in _LOADED_SUFFIXES


def _is_harmless(name: str) -> bool:
    return not is_loaded(name) and not (refusal(name) or "").startswith(_NOT_PLAIN)


def choose_published(files: Mapping[str, RemoteFile], manifest: Manifest, *, max_bytes: int) -> Choice:
    """Choose from a repository that Groundup published: all that its manifest names; of the rest nothing that would be loaded.

    What others added and nobody loads (a picture, notes) may be there and stays there.

    Args:
        files: what the Hub lists.
        manifest: of the repository.
        max_bytes: most that may be fetched in all.
    """
    names = [name for name in manifest.files if name != MANIFEST]
    problems = [f"{name!r} {reason}" for name in names if (reason := refusal(name))]
    for name in names:
        entry, listed = manifest.files[name], files.get(name)
        if listed is None:
            problems.append(f"{name} is missing on the Hub")
        elif listed.bytes != entry.bytes:
            problems.append(f"{name} has {listed.bytes:,} bytes on the Hub, {MANIFEST} says {entry.bytes:,}")
        elif listed.sha256 not in (None, entry.sha256):
            problems.append(f"{name} has another sha256 on the Hub than in {MANIFEST}")
    strangers = sorted(set(files) - set(names) - {MANIFEST, GIT_ATTRIBUTES})
    left_out = {name: f"is not in {MANIFEST}, so nobody vouches for it" for name in strangers if _is_harmless(name)}
    strangers = [name for name in strangers if name not in left_out]
    problems += [f"{name!r} is not in {MANIFEST}" + (f" and {why}" if (why := refusal(name)) else "") for name in strangers]
    problems += _too_large({name: files[name] for name in names if name in files}, max_bytes)
    return Choice((*names, MANIFEST), left_out, tuple(problems))


def choose_plain(files: Mapping[str, RemoteFile], *, max_bytes: int) -> Choice:
    """Choose from any other repository of a model: data of known types; pickles, code and the rest stay where they are."""
    reasons = {name: refusal(name) for name in sorted(files)}
    wanted = tuple(name for name, reason in reasons.items() if reason is None)
    left_out = {name: reason for name, reason in reasons.items() if reason is not None and name != GIT_ATTRIBUTES}
    problems = _too_large({name: files[name] for name in wanted}, max_bytes)
    problems += [f"{name!r} {reason}" for name, reason in left_out.items() if reason.startswith(_NOT_PLAIN)]
    if not any(name.endswith(".safetensors") for name in wanted):
        pickles = [name for name, reason in left_out.items() if "pickle" in reason]
        why = f"its weights are in {_some(pickles)}, which may be pickles" if pickles else "nothing else is read as weights"
        problems.append(f"it holds no safetensors ({why}); take a repository, or a revision, with *.safetensors")
    return Choice(wanted, left_out, tuple(problems))


def _too_large(files: Mapping[str, RemoteFile], max_bytes: int) -> list[str]:
    problems = [
        f"{name} has {file.bytes / 2**20:,.0f} MiB; a file of its type is refused above {MAX_TEXT_BYTES / 2**20:.0f} MiB"
        for name, file in files.items()
        if file.bytes > MAX_TEXT_BYTES and PurePosixPath(name).suffix.lower() not in LARGE_SUFFIXES
    ]
    total = sum(file.bytes for file in files.values())
    if total > max_bytes:
        problems.append(f"it is {total / 2**30:.3g} GiB in all, allowed are {max_bytes / 2**30:.3g} GiB; raise --max-gib")
    if len(files) > MAX_FILES:
        problems.append(f"it has {len(files):,} files, allowed are {MAX_FILES:,}")
    return problems


def _some(names: Iterable[str], limit: int = 3) -> str:
    found = list(names)
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")
