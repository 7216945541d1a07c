"""The identity of code: what it does, not how it is written."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.code import _lines, code_identity
from pipeline.errors import RecipeError
from pipeline.hashes import HashCache

BASE = "def f(x):\n    return x + 1\n"
SAME = {
    "comment": "# note\ndef f(x):\n    return x + 1  # add\n",
    "docstring": '"""Module."""\ndef f(x):\n    """Adds."""\n    return x + 1\n',
    "format": "def f( x ):\n\n    return (x\n      + 1)\n",
}
OTHER = {
    "constant": "def f(x):\n    return x + 2\n",
    "kind of constant": "def f(x):\n    return x + 1.0\n",
    "true for one": "def f(x):\n    return x + True\n",
    "name": "def f(y):\n    return y + 1\n",
    "operator": "def f(x):\n    return x - 1\n",
    "decorator": "@g\ndef f(x):\n    return x + 1\n",
    "default": "def f(x=0):\n    return x + 1\n",
    "async": "async def f(x):\n    return x + 1\n",
}


def serialised(source: str) -> str:
    return "\n".join(_lines(ast.parse(source)))


@pytest.mark.parametrize("name", SAME)
def test_the_way_it_is_written_does_not_count(name: str) -> None:
    assert serialised(SAME[name]) == serialised(BASE)


@pytest.mark.parametrize("name", OTHER)
def test_what_it_does_counts(name: str) -> None:
    assert serialised(OTHER[name]) != serialised(BASE)


def test_the_serialised_form_is_the_same_on_every_python() -> None:
    """Python 3.13 leaves empty lists out of trees, 3.12 adds type parameters: neither may change a fingerprint."""
    assert serialised("class A(B):\n    x: int = 1\n").splitlines() == [
        "Module", ".body", " ClassDef", " .name", "  str 'A'", " .bases", "  Name", "  .id", "   str 'B'", " .body",
        "  AnnAssign", "  .target", "   Name", "   .id", "    str 'x'", "  .annotation", "   Name", "   .id", "    str 'int'",
        "  .value", "   Constant", "   .value", "    int 1", "  .simple", "   int 1",
    ]  # fmt: skip


def test_imports_are_followed_in_every_form_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "wing/__init__.py": "",
        "wing/stage/__init__.py": "",
        "wing/stage/config.py": "import json\n",
        "wing/stage/run.py": "import wing.a\nfrom wing import b\nfrom wing.c import thing\nfrom ..d import x\nfrom . import config\n"
        "def run():\n    from wing.e import late\n    import importlib\n    importlib.import_module('wing.f')\n",
        "wing/stage/words.txt": "one two",
        "wing/a.py": "import wing.deep\n", "wing/b.py": "", "wing/c/__init__.py": "thing = 1\n", "wing/d.py": "", "wing/e.py": "",
        "wing/f.py": "", "wing/deep.py": "", "wing/unused.py": "", "wing/stage/__pycache__/x.pyc": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert set(code_identity("wing.stage", HashCache(tmp_path / "hashes.json"))) == set(files) - {
        "wing/unused.py",
        "wing/stage/__pycache__/x.pyc",
    }


def test_a_stage_with_broken_syntax_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/__init__.py").touch()
    (tmp_path / "broken/run.py").write_text("def run(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match=r"run.py:1"):
        code_identity("broken", HashCache(tmp_path / "hashes.json"))


def test_our_own_packages_are_the_ones_that_are_imported() -> None:
    import pipeline
    import stages

    root = Path(__file__).resolve().parents[2]
    assert Path(pipeline.__file__).parent == root / "pipeline"
    assert Path(stages.__file__).parent == root / "stages"
