"""YAML that does not guess: duplicate keys and tabs are errors, `1e-3` is a number, `no` is a string.

The scalar rules are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema); lines are kept, so
that an error can name its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import RecipeError

Path = tuple[str | int, ...]
_MAX_DEPTH = 50
_MAX_NODES = 1_000_000
"""Anchors can make a short text grow without bound."""


@dataclass
class Document:
    """The values of a document, and the line (from 1) of each key."""

    name: str
    values: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    num_nodes: int = 0

    def at(self, *path: str | int) -> str:
        """Return `file:line` of the key at `path`, or of its nearest parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def load_yaml(text: str, *, name: str, first_line: int = 1) -> Document:
    """Parse `text` as one mapping.

    Args:
        text: the document.
        name: what errors call it.
        first_line: number of its first line within the file.

    Raises:
        RecipeError: it is empty, not a mapping, not YAML, repeats a key, or uses anchors that refer to themselves.
    """
    document = Document(name, {})
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + first_line}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{place}: not valid YAML: {problem}; indent with spaces, never tabs") from None
    if node is None:
        raise RecipeError(f"{name}: the file is empty; it must hold a mapping of keys")
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{name}:{node.start_mark.line + first_line}: the document must be a mapping of keys")
    document.values = _build(node, (), document, first_line)
    return document


def parse_scalar(text: str) -> Any:
    """Parse a command-line value as YAML (`3`, `1e-3`, `true`, `[a, b]`); anything else is a string."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return text if node is None else _build(node, (), Document("value", {}), 1)
    except (yaml.YAMLError, RecipeError):
        return text


def _build(node: yaml.Node, path: Path, document: Document, first_line: int) -> Any:
    document.num_nodes += 1
    if len(path) > _MAX_DEPTH or document.num_nodes > _MAX_NODES:
        raise RecipeError(f"{document.name}: too many values, or an anchor that refers to itself; write them out")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), document, first_line) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + first_line
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{document.name}:{line}: a key must be a plain word")
        key = key_node.value
        if key in values:
            first = document.lines[(*path, key)]
            raise RecipeError(f"{document.name}:{line}: key '{key}' stands twice (first in line {first}); keep one")
        document.lines[(*path, key)] = line
        values[key] = _build(value_node, (*path, key), document, first_line)
    return values


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it is built: seven times faster


class _Loader(_Base):  # type: ignore[misc, valid-type]
    """SafeLoader with the scalar rules of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _first, _pattern in (
    ("null", ["n", "N", "~", ""], r"null|Null|NULL|~|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("-+0123456789"), r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", list("-+.0123456789"), r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
    ("float", list("-+."), r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)
