"""Benchmarks run rarely and no type checker reads them: their calls of our code are checked against its signatures here."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py"))


def unknown_arguments(tree: ast.AST) -> Iterator[str]:
    """Yield each keyword argument that a function or class of ours, imported by name, does not take."""
    ours = {
        name.asname or name.name: getattr(importlib.import_module(node.module), name.name, None)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("pipeline", "stages", "benchmarks")
        for name in node.names
        if node.module != "benchmarks"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(ours.get(node.func.id)):
            parameters = inspect.signature(ours[node.func.id]).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                yield from (f"{node.func.id}({word.arg}=)" for word in node.keywords if word.arg and word.arg not in parameters)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_calls_of_our_code_name_arguments_that_it_takes(file):
    assert list(unknown_arguments(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_an_argument_that_was_renamed_is_seen():
    tree = ast.parse("from stages.common.images.evaluation import Evaluator\nEvaluator(train=1, num_halves=0)")
    assert list(unknown_arguments(tree)) == ["Evaluator(num_halves=)"]
