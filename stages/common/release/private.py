"""What must not leave this machine: secrets, mail addresses, paths, and the names of user and host.

Looked for in the files that we generate; other people's corpora and vocabularies are theirs, and are told of in their cards.
Forms of secrets: https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns
"""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PLACEHOLDER = "PATH"
MAX_SHOWN = 5
"""Lines shown for each file that tells too much."""
_SECRETS = {
    "a token of the Hub": r"\bhf_[A-Za-z0-9]{20,}",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Google": r"\bAIza[\w-]{35}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a token of Slack": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a token of PyPI": r"\bpypi-AgE[\w-]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@",
}
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b")
_ROOTS = "home|Users|root|tmp|var|work|workspace|mnt|media|opt|srv|scratch|private|Volumes|etc|usr|data|content|kaggle|nfs|gpfs"
_REST = r"[^\s\"'`<>|,;)\]}]+"
# Behind a letter, a dot or a slash it is part of an address or of a relative path; a colon may stand before (KEY:/home/x), as
# that of an address is followed by a second slash. Folders of other names (/projects/acme) count from two parts on, and not
# behind what ends a placeholder or a pattern ({repo}/resolve/main, **/a/b). A share of Windows has twice as many strokes at
# its beginning as inside, also where JSON doubles them; \\nfoo\\nbar has not.
_PATH = re.compile(
    rf"(?<![\w./<~-])(?:~?/(?:{_ROOTS})/{_REST}|~(?:[A-Za-z][\w.-]*)?/{_REST}|[A-Za-z]:\\[^\s\"'<>|]+|[A-Za-z]:/(?!/){_REST})"
    rf"|(?<![\w./<~)}}\]*>+%$-])/(?:[^\W\d]|[._])[\w.+@~-]*/[\w.+@~-]{_REST.removesuffix('+')}*"
    r"|(?<!\\)\\{4}[\w.-]+\\{2}[\w$.-]+|(?<!\\)\\{2}[\w.-]+\\[\w$.-]+"
)
_FILE_URL = re.compile(r"\bfile://[^\s\"'<>]+")
# `hub:owner/name@revision`, and without `hub:` where the revision begins like a version, is no mail address.
_PINNED = re.compile(r"\bhub:[\w.-]+/[\w.-]+@[\w./-]+|(?<![\w./-])[\w.-]+/[\w.-]+@v?\d[\w.-]*")
_COMMON_NAMES = frozenset(
    [
        *("root", "user", "users", "admin", "ubuntu", "debian", "ec2-user", "runner", "docker", "jovyan", "vagrant", "localhost"),
        *("vm", "host", "computer", "default", "test", "guest", "node", "server", "build", "train", "data", "home", "work"),
        *("main",),
    ]
)
"""Names of users and hosts that are words of their own, and tell nothing of anybody."""
_OTHERS = frozenset({"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"})
_TEXTS = frozenset({"", ".md", ".json", ".yaml", ".yml", ".svg", ".jinja", ".txt", ".csv"})


def is_generated_text(name: str) -> bool:
    """Say whether the file `name` of a repository is text of ours."""
    path = Path(name)
    return path.suffix.lower() in _TEXTS and path.name not in _OTHERS


def findings(text: str, repo: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what) for all in `text` that must not be published; the secret itself is never repeated.

    Args:
        text: content of a file.
        repo: `owner/name`, which is public, and may contain the user's name.
    """
    own = _own_names(repo.partition("/")[0])
    for number, line in enumerate(text.splitlines(), 1):
        for what, form in _SECRETS.items():
            if re.search(form, line):
                yield number, what
        if _MAIL.search(_PINNED.sub("", line)):
            yield number, "a mail address"
        for pattern in (_PATH, _FILE_URL):
            if found := pattern.search(line):
                yield number, f"a path of a machine ({found[0][:60]})"
        for what, name in own.items():
            if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", line.replace(repo, "")):
                yield number, f"the name of this {what}"


def told_by(path: Path, name: str, repo: str, *, hint: str = "") -> Iterator[str]:
    """Yield what the text file `path`, called `name` in the repository, must not tell; at most MAX_SHOWN lines of it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield f"{name} is not UTF-8"
        return
    found = list(findings(text, repo))
    yield from (f"{name}, line {line}: {what}{hint}" for line, what in found[:MAX_SHOWN])
    if len(found) > MAX_SHOWN:
        yield f"{name}: and {len(found) - MAX_SHOWN} more of the kind"


def without_paths(text: str) -> str:
    """Return the YAML `text` with PATH for each scalar that holds a path of a machine: no result depends on where a file lies.

    The whole scalar goes, as nothing says where in `/home/me/My Texts/a.txt` the path ends; in a comment, all that follows.
    """
    pieces, end = [], 0
    for start, stop in _scalars(text):
        pieces += [_open_end(text[end:start]), _blanked(text[start:stop])]
        end = stop
    return "".join([*pieces, _open_end(text[end:])])


def override_without_paths(word: str) -> str:
    """Return KEY=VALUE with PATH for a value that holds a path of a machine."""
    key, equals, value = word.partition("=")
    return f"{key}={PLACEHOLDER}" if equals and _holds_path(value) else _blanked(word)


def value_without_paths(value: Any) -> Any:
    """Return a value of a configuration with PATH for each string in it that holds a path of a machine."""
    if isinstance(value, str):
        return _blanked(value)
    if isinstance(value, dict):
        return {key: value_without_paths(one) for key, one in value.items()}
    return [value_without_paths(one) for one in value] if isinstance(value, list | tuple) else value


def _holds_path(text: str) -> bool:
    return bool(_PATH.search(text) or _FILE_URL.search(text))


def _blanked(scalar: str) -> str:
    """A block of several lines keeps the end of its last one."""
    if not _holds_path(scalar):
        return scalar
    return PLACEHOLDER + scalar[len(scalar.rstrip()) :]


def _open_end(text: str) -> str:
    """Return text between scalars, comments for the most part, each line cut at the first path in it."""
    return "".join(_cut(line) for line in text.splitlines(keepends=True))


def _cut(line: str) -> str:
    found = [match.start() for match in (_PATH.search(line), _FILE_URL.search(line)) if match]
    return line[: min(found)] + PLACEHOLDER + line[len(line.rstrip("\r\n")) :] if found else line


def _scalars(text: str) -> list[tuple[int, int]]:
    """Return where scalars begin and end; none where the text is no YAML, so that lines are cut."""
    try:
        tokens = [token for token in yaml.scan(text, Loader=yaml.SafeLoader) if isinstance(token, yaml.ScalarToken)]
    except yaml.YAMLError:
        return []
    return [(token.start_mark.index, token.end_mark.index) for token in tokens]


def _own_names(owner: str) -> dict[str, str]:
    names = {what: name for what, name in _machine_names().items() if name.lower() not in _COMMON_NAMES and len(name) > 2}
    return {what: name for what, name in names.items() if name.lower() != owner.lower()}


@cache
def _machine_names() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no entry for this user id, as in some containers
        user = ""
    return {"user": user, "machine": platform.node().partition(".")[0], "home folder": Path.home().name}
