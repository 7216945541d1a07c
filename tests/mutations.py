"""Proof that the tests can fail: take each guard away in turn and see its test fail (`python -m tests.mutations [WORD ...]`).

A mutation is a text that stands once in a file, what it becomes, and one test. All of it happens in a copy of the
repository in a temporary folder. Each test runs in a forked child of a process that has loaded the large libraries and
none of our code, so that seventy of them cost minutes. WORDs choose mutations by a part of their name.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from tests import mutation_table, mutation_table_images, mutation_table_release
from tests.mutation_table import Mutation

MUTATIONS = mutation_table.MUTATIONS + mutation_table_images.MUTATIONS + mutation_table_release.MUTATIONS

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("pipeline", "stages", "tests", "data_cards", "configs", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
LIBRARIES = ("torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "matplotlib.pyplot", "hypothesis")
LIBRARIES += ("diffusers.pipelines.ddpm", "diffusers.models.unets.unet_2d", "sklearn.datasets", "scipy.stats")
MODELS = ("AutoModelForCausalLM", "AutoTokenizer", "Qwen3ForCausalLM", "LlamaForCausalLM", "GPT2LMHeadModel")
BROKEN, ELSEWHERE = 98, 99
"""Exit codes of a child: the runner itself failed; our code was imported from somewhere else than the copy."""


def main(words: list[str]) -> int:
    """Run the chosen mutations, print a table, return 1 when a guard survives or a mutation does not apply."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.guard for word in words)]
    wrong = [f"{m.guard}: its text stands {n} times in {m.file}" for m in chosen if (n := _source(m).count(m.old)) != 1]
    if wrong or not chosen:
        print("\n".join(wrong) or "no such mutation")
        return 1
    _load_libraries()
    with tempfile.TemporaryDirectory(prefix="groundup-mutations-") as folder:
        copy = _copy(Path(folder) / "copy")
        if code := _run(copy, sorted({m.test for m in chosen})):
            print((copy / "pytest.log").read_text()[-4000:], f"\nwithout a mutation the tests end with exit code {code}")
            return 1
        return _table(copy, chosen)


def _table(copy: Path, chosen: list[Mutation]) -> int:
    survivors = 0
    print("guard | test | result | seconds")
    for mutation in chosen:
        path, begin = copy / mutation.file, time.monotonic()
        original = path.read_text(encoding="utf-8")
        path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
        code = _run(copy, [mutation.test])
        path.write_text(original, encoding="utf-8")
        # Only a failed test counts: not a file that cannot be imported, nor a test that is not there.
        result = "killed" if code == pytest.ExitCode.TESTS_FAILED else f"SURVIVED (exit code {code})"
        survivors += result != "killed"
        print(f"{mutation.guard} | {mutation.test} | {result} | {time.monotonic() - begin:.1f}", flush=True)
    print(f"{len(chosen)} guards removed, {len(chosen) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


def _source(mutation: Mutation) -> str:
    return (ROOT / mutation.file).read_text(encoding="utf-8")


def _load_libraries() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in MODELS:
        getattr(sys.modules["transformers"], name)


def _copy(copy: Path) -> Path:
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copyfile(source, copy / name)
    return copy


def _run(copy: Path, tests: list[str]) -> int:
    child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            code = _in_child(copy, tests)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _in_child(copy: Path, tests: list[str]) -> int:
    """Run pytest in the copy, with the copy first on the path, and check that nothing of ours came from elsewhere."""
    log = os.open(copy / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ROOT).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pipeline", "stages", "tests")]:
        del sys.modules[name]
    loaded = "ignore::pytest.PytestAssertRewriteWarning"  # pytest's plugins were loaded with the libraries
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    code = pytest.main(["-x", "-W", loaded, "-p", "pytest_timeout", "--timeout=120", "-p", "no:cacheprovider", *tests])
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("pipeline", "stages", "tests")]
    files = [Path(module.__file__) for module in ours if getattr(module, "__file__", None)]
    return int(code) if files and all(file.is_relative_to(copy) for file in files) else ELSEWHERE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
