"""The identity of a stage's code: what it does, not how it is written.

Python files count by their syntax tree without comments, docstrings and formatting, in a form that is equal on every
supported Python; other files of the stage's folder count by their bytes. Followed are the imports that stay under the
stage's own top package (`stages`), found statically, also inside functions.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from pipeline.durable import sha256_file
from pipeline.errors import RecipeError
from pipeline.hashes import HashCache

_IGNORED_FIELDS = frozenset({"type_comment", "kind", "ctx"})


@cache
def code_identity(stage: str, hashes: HashCache) -> dict[str, str]:
    """Return {file: sha256} of all code that defines `stage` (a dotted package name); paths are relative to the top package.

    Asked once for each stage and cache of hashes, which lives as long as one plan.

    Raises:
        RecipeError: there is no such package, or a file of it cannot be parsed.
    """
    top = stage.partition(".")[0]
    root = _package_folder(top).parent
    folder = _package_folder(stage)
    pending = {path for path in folder.rglob("*") if path.is_file() and _is_code(path)} | _files_of_module(stage, root)
    found: dict[Path, str] = {}
    while pending:
        path = pending.pop()
        found[path], imports = hashes.fact(path, f"code-{_format()}", lambda path: _facts(path, root))
        imported = {file for name in imports if name.split(".")[0] == top for file in _files_of_module(name, root)}
        pending |= imported - found.keys()
    return {path.relative_to(root).as_posix(): found[path] for path in sorted(found)}


@cache
def _format() -> str:
    """Facts remembered by another version of this very file are not used."""
    return sha256_file(Path(__file__))[:16]


def _facts(path: Path, root: Path) -> tuple[str, list[str]]:
    """Return the identity of one file's code, and the dotted names that it may import."""
    content = path.read_bytes()
    if path.suffix != ".py":
        return hashlib.sha256(content).hexdigest(), []
    tree = _parse(path, content)
    package = path.relative_to(root).with_suffix("").parts[:-1]
    names = {name for node in ast.walk(tree) for name in _imported_names(node, package)}
    return hashlib.sha256("\n".join(_lines(tree)).encode()).hexdigest(), sorted(names)


def _is_code(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith(".") and path.suffix != ".pyc"


def _package_folder(package: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise RecipeError(f"stage '{package}' cannot be found: {error}") from None
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"stage '{package}' cannot be found; a stage is named by the dotted path of its package")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _parse(path: Path, content: bytes) -> ast.Module:
    try:
        return ast.parse(content)
    except SyntaxError as error:
        raise RecipeError(f"{path}:{error.lineno}: this stage cannot be read: {error.msg}") from None


def _lines(node: object, depth: int = 0) -> list[str]:
    """Serialise a syntax tree; empty fields are left out, as newer versions of Python add some."""
    if isinstance(node, list):
        return [line for item in node if not _is_bare_string(item) for line in _lines(item, depth)]
    if not isinstance(node, ast.AST):
        return [f"{' ' * depth}{type(node).__name__} {node!r}"]
    lines = [f"{' ' * depth}{type(node).__name__}"]
    for name, value in ast.iter_fields(node):
        if name not in _IGNORED_FIELDS and value is not None and value != []:
            lines.append(f"{' ' * depth}.{name}")
            lines += _lines(value, depth + 1)
    return lines


def _is_bare_string(node: object) -> bool:
    """Docstrings, also those under a field: a string statement does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported_names(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        return [module, *(f"{module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and _called_name(node.func) in {"import_module", "__import__"} and node.args:
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return [argument.value]
    return []


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _files_of_module(name: str, root: Path) -> set[Path]:
    """`stages.common.loss` is a module, a package (its `__init__` counts; `*` means all of it), or a name in one."""
    parts = name.split(".")
    files = {root.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1)}
    files.add(root.joinpath(*parts).with_suffix(".py"))
    if parts[-1] == "*":
        files |= set(root.joinpath(*parts[:-1]).glob("*.py"))
    return {path for path in files if path.is_file()}
