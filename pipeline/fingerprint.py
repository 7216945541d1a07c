"""The fingerprint of a node: sha256 over canonical JSON of everything that defines its result.

    semantics   version of the engine's own meaning, raised by hand when a change of the engine changes results
    stage       dotted name
    config      every value of its Config, defaults included
    inputs      fingerprints of the artifacts that it reads
    sources     content of what it reads from outside the store
    code        syntax trees of its code (`pipeline.code`)

Launch settings, paths, device count, host and time never enter.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact import digest
from pipeline.cards import load_card
from pipeline.code import code_identity
from pipeline.errors import CardError, DataError
from pipeline.graph import Node
from pipeline.hashes import HashCache
from pipeline.sources import CardUse, Fact, HubRepo, LocalFiles, Source, expand

SEMANTICS = 1
Identity = dict[str, Any]


def identity_of(node: Node, inputs: Mapping[str, list[str]], hashes: HashCache, *, offline: bool) -> Identity:
    """Return the document whose hash is the node's fingerprint.

    Args:
        node: the node.
        inputs: role -> fingerprints of what it reads.
        hashes: remembers the content of local files.
        offline: forbids asking the Hub for a commit.

    Raises:
        InputError: a source cannot be read.
    """
    return {
        "semantics": SEMANTICS,
        "stage": node.stage,
        "config": node.config.identity(),
        "inputs": {role: list(found) for role, found in inputs.items()},
        "sources": [content for source in node.config.sources() for content in _content(source, hashes, offline)],
        "code": code_identity(node.stage, hashes),
    }


def fingerprint_of(identity: Identity) -> str:
    """Return the fingerprint, 64 hex digits."""
    return digest(identity)


def _content(source: Source, hashes: HashCache, offline: bool) -> list[Any]:
    match source:
        case LocalFiles():
            return [_files(source, hashes)]
        case CardUse():
            return _card(source.name, hashes, offline)
        case HubRepo():
            return [{"hub": source.repo, "type": source.repo_type, "commit": _commit(source, offline)}]
        case Fact():
            return [{source.name: source.value}]


def _files(source: LocalFiles, hashes: HashCache) -> dict[str, Any]:
    entries = []
    for path in expand(source.patterns):
        try:
            content = hashes.sha256(path)
        except OSError as error:
            raise DataError(f"files: '{path}' cannot be read: {error.strerror}; check its permissions") from None
        name = _name(path, source)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"files: the name {str(path)!r} is not UTF-8; rename it, so that it reads the same anywhere"
            ) from None
        entries.append([name, content])
    return {"files": sorted(entries)}


def _name(path: Path, source: LocalFiles) -> str:
    if not source.named:
        return "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
    roots = [root for pattern in source.patterns if (root := Path(os.path.expanduser(pattern))).is_dir()]
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)


def _card(name: str, hashes: HashCache, offline: bool) -> list[Any]:
    """A package is pinned by the sha256 that stands in the card; the other kinds of source are followed."""
    card = load_card(name)
    contents: list[Any] = [{"card": card.identity()}]
    for entry in card.use.get("sources", []):
        kind, values = _card_source(name, entry)
        if kind == "hub":
            repo = HubRepo(str(values.get("repo")), str(values.get("revision", "main")), "dataset")
            contents += _content(repo, hashes, offline)
        elif kind == "files":
            patterns = values.get("files", values) if isinstance(values, dict) else values
            contents += _content(LocalFiles(tuple([patterns] if isinstance(patterns, str) else patterns)), hashes, offline)
        elif kind == "stdlib":
            contents += _content(Fact("python", platform.python_version()), hashes, offline)
    return contents


def _card_source(name: str, entry: Any) -> tuple[str, Any]:
    if isinstance(entry, dict) and len(entry) == 1:
        return next(iter(entry.items()))
    if isinstance(entry, dict) and "kind" in entry:
        return str(entry["kind"]), entry
    raise CardError(f"card '{name}': each of its sources must name its kind (package, hub, files, stdlib), got {entry!r}")


def _commit(source: HubRepo, offline: bool) -> str:
    """Ask the Hub which commit a revision is, offline its cache; a full commit needs no question."""
    if len(source.revision) == 40 and set(source.revision) <= set("0123456789abcdef"):
        return source.revision
    where = f"hub:{source.repo}@{source.revision}"
    # Here, as it is slow to import and few recipes name the Hub. It knows the user's login, so private repositories work.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, RevisionResolutionError  # type: ignore[attr-defined]

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    if offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        try:
            known = api.resolve_revision(source.repo, repo_type=source.repo_type, revision=source.revision, local_files_only=True)
        except (RevisionResolutionError, OSError, ValueError):
            raise DataError(
                f"{where}: the network is forbidden; pin a full commit (40 hex digits), or run once without --offline: "
                "then the Hub's cache knows this revision"
            ) from None
        return known.resolved
    try:
        return str(api.repo_info(source.repo, repo_type=source.repo_type, revision=source.revision, timeout=20).sha)
    except (HTTPError, OSError, ValueError) as error:
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"{where}: the Hub gave no commit ({line}); check name and network, log in with `hf auth login` if it is private, "
            "run with --offline to take the commit that was fetched last, or pin a commit"
        ) from None
