"""Take along the code that an app needs, and no more: definitions are followed by name, and unneeded ones are left out.

An app runs without Groundup. So the modules that hold what it imports are copied under their own names, each with only the
functions, classes and constants that are reached from there. Names are found in the syntax tree, as far as they stand there;
a class that is looked up by a string must be named by the caller.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOPS = ("stages", "pipeline")
NOTE = "# From Groundup, Apache-2.0; definitions that this app does not need were left out."


@dataclass
class _Module:
    """One source file: where each of its names is made, and which statements are needed."""

    path: Path
    tree: ast.Module
    lines: list[str]
    makers: dict[str, ast.stmt] = field(default_factory=dict)
    imports: dict[str, tuple[ast.Import | ast.ImportFrom, ast.alias]] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> _Module:
        text = path.read_text(encoding="utf-8")
        found = cls(path, ast.parse(text), text.splitlines())
        for statement in _flat(found.tree.body):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for alias in statement.names:
                    found.imports[alias.asname or alias.name.partition(".")[0]] = (statement, alias)
            else:
                found.makers.update(dict.fromkeys(_names_made(statement), statement))
        return found


def imported(code: str) -> dict[str, set[str]]:
    """Return what a program imports from our packages: module -> names."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in TOPS:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def vendor(wanted: Mapping[str, set[str]], root: Path) -> dict[str, str]:
    """Return the files to take along, by relative path.

    Args:
        wanted: module -> the names that are needed from it.
        root: folder of the project.

    Raises:
        KeyError: a module does not make such a name.
    """
    modules: dict[str, _Module] = {}
    pending = [(module, name) for module, names in sorted(wanted.items()) for name in sorted(names)]
    while pending:
        module, name = pending.pop()
        if module not in modules:
            modules[module] = _Module.read(_file_of(module, root))
        if name not in modules[module].needed:
            modules[module].needed.add(name)
            pending += _follow(modules[module], module, name)
    files = {_file_of(name, root).relative_to(root).as_posix(): _render(module) for name, module in modules.items()}
    packages = {parent.as_posix() for path in files for parent in Path(path).parents if parent != Path(".")}
    return {f"{package}/__init__.py": "" for package in packages} | files


def _follow(module: _Module, dotted: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield what the definition of `name` needs: names of the same module, and of others of ours."""
    if name in module.imports:
        statement, alias = module.imports[name]
        source = statement.module if isinstance(statement, ast.ImportFrom) else None
        if source and source.partition(".")[0] in TOPS:
            yield source, alias.name
        return
    for node in ast.walk(module.makers[name]):
        used = node.id if isinstance(node, ast.Name) else None
        if used in module.makers or used in module.imports:
            yield dotted, used
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in TOPS:  # inside a function
            yield from ((node.module, alias.name) for alias in node.names)


def _render(module: _Module) -> str:
    """Return the source with the needed statements only, as they were written."""
    parts = [NOTE]
    if (said := ast.get_docstring(module.tree)) is not None:
        parts.append(f'"""{said}"""'.replace("\\", "\\\\"))
    kept = {id(module.makers[name]) for name in module.needed if name in module.makers}
    imports, rest = [], []
    for statement in _flat(module.tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports += _import_line(module, statement)
        elif id(statement) in kept:
            rest.append(_source(module, statement))
    return "\n".join([*parts, "", *imports, *("\n\n" + text for text in rest), ""])


def _import_line(module: _Module, statement: ast.Import | ast.ImportFrom) -> list[str]:
    future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
    names = [alias for alias in statement.names if future or (alias.asname or alias.name.partition(".")[0]) in module.needed]
    if not names:
        return []
    copy = ast.Import(names) if isinstance(statement, ast.Import) else ast.ImportFrom(statement.module, names, statement.level)
    return [ast.unparse(copy)]


def _source(module: _Module, statement: ast.stmt) -> str:
    first = min([statement.lineno, *(decorator.lineno for decorator in getattr(statement, "decorator_list", []))])
    while first > 1 and module.lines[first - 2].startswith("#"):  # a comment right above belongs to it
        first -= 1
    return "\n".join(module.lines[first - 1 : statement.end_lineno])


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module; those under `if TYPE_CHECKING` count as if they stood at the top."""
    for statement in body:
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING":
            yield from statement.body
        else:
            yield statement


def _names_made(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _file_of(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
