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

from pipeline.errors import RecipeError

_IGNORED_FIELDS = frozenset({"type_comment", "kind", "ctx"})


def code_identity(stage: str) -> dict[str, str]:
    """Return {file: sha256} of all code that defines `stage` (a dotted package name); paths are relative to the top package.

    Raises:
        RecipeError: there is no such package, or a file of it cannot be parsed.
    """
    return dict(_code_identity(stage))


@cache
def _code_identity(stage: str) -> dict[str, str]:
    top = stage.partition(".")[0]
    root = _package_folder(top).parent
    folder = _package_folder(stage)
    pending = {path for path in folder.rglob("*") if path.is_file() and _is_code(path)} | _files_of_module(stage, root)
    found: dict[Path, str] = {}
    while pending:
        path = pending.pop()
        found[path] = _file_hash(path)
        pending |= {imported for imported in _imports(path, root, top) if imported not in found}
    return {path.relative_to(root).as_posix(): found[path] for path in sorted(found)}


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


@cache
def _file_hash(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        content = "\n".join(_lines(_parse(path, content))).encode()
    return hashlib.sha256(content).hexdigest()


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


@cache
def _imports(path: Path, root: Path, top: str) -> frozenset[Path]:
    """Return the files under `top` that the Python file `path` imports, with the `__init__` of their packages."""
    if path.suffix != ".py":
        return frozenset()
    package = path.relative_to(root).with_suffix("").parts[:-1]
    found: set[Path] = set()
    for node in ast.walk(_parse(path, path.read_bytes())):
        for name in _imported_names(node, package):
            if name.split(".")[0] == top:
                found |= _files_of_module(name, root)
    return frozenset(found)


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
