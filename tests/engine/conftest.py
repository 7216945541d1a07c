"""A project of toy stages in a temporary folder, and the real command line to run them with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WRITE = """
    from pathlib import Path


    def run(config, context):
        with open(Path(context.directory).parents[2] / "runs.log", "a") as log:
            log.write(f"{config.text}\\n")
        text = config.text + "".join(a.path.joinpath("out.txt").read_text() for a in context.inputs("upstream"))
        (context.directory / "out.txt").write_text(text)
        context.metric("length", len(text), unit="character", higher_is_better=None, n=1)
        context.section.describe(title="Write", idea="It writes. Nothing else.")
"""

CONFIG = """
    from typing import ClassVar

    from pipeline.contract import Input, LocalFiles, StageConfig


    class Config(StageConfig):
        produces: ClassVar[str] = "text"
        inputs: ClassVar = {"upstream": Input(("text",), "what came before", optional=True, many=True)}
        locations: ClassVar = frozenset({"file"})

        text: str
        size: int = 3
        seed: int = 0
        file: str | None = None

        def sources(self):
            return [LocalFiles((self.file,))] if self.file else []
"""


SHARED = CONFIG.replace("        text: str\n", "        shares_work: ClassVar[bool] = True\n\n        text: str\n")
"""CONFIG of a stage that several processes may run together."""


class Project:
    """A folder with toy stages; `groundup(...)` runs the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        self.stage("write", WRITE)

    def stage(self, name: str, run: str, config: str = CONFIG) -> Path:
        """Write stage `toy.NAME` and return its folder."""
        folder = self.root / "toy" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self.root / "toy" / "__init__.py", folder / "__init__.py"):
            path.touch()
        (folder / "config.py").write_text(textwrap.dedent(config))
        (folder / "run.py").write_text(textwrap.dedent(run))
        return folder

    def recipe(self, text: str, name: str = "recipe.yaml") -> Path:
        """Write a recipe and return its path."""
        path = self.root / name
        path.write_text(textwrap.dedent(text))
        return path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def groundup(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run a command, require its exit code, return what it printed."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"exit code {process.returncode}, wanted {code}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out + err

    def copy(self, root: Path) -> Project:
        """Return a copy of this project, with all it has made, in the new folder `root`."""
        shutil.copytree(self.root, root, symlinks=True)
        twin = Project.__new__(Project)
        twin.root, twin.environment = root, self.environment
        return twin

    def ran(self) -> list[str]:
        """What the toy stages wrote down, one line for each time one ran; empties the list."""
        path = self.root / "runs.log"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with the toy stage `toy.write`."""
    return Project(tmp_path)


@pytest.fixture
def toys(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose folder is on the path of this process."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
            del sys.modules[name]

    forget()
    monkeypatch.syspath_prepend(str(project.root))
    yield project
    forget()


DIAMOND = """
    name: diamond
    seed: 1
    stages:
      a: {stage: toy.write, text: a}
      b: {stage: toy.write, needs: {upstream: a}, text: b}
      c: {stage: toy.write, needs: {upstream: a}, text: c}
      d: {stage: toy.write, needs: {upstream: [b, c]}, text: d}
"""


@pytest.fixture
def diamond(project: Project) -> Project:
    """Return a project whose recipe is a diamond: a -> b, c -> d."""
    project.recipe(DIAMOND)
    return project


@pytest.fixture(scope="session")
def diamond_ran_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a diamond that was run; tests take a copy of it, `finished_diamond`."""
    project = Project(tmp_path_factory.mktemp("diamond"))
    project.recipe(DIAMOND)
    project.groundup("run", "recipe.yaml")
    assert sorted(project.ran()) == ["a", "b", "c", "d"]
    return project


@pytest.fixture
def finished_diamond(diamond_ran_once: Project, tmp_path: Path) -> Project:
    """Return a diamond that was run."""
    return diamond_ran_once.copy(tmp_path / "copy")


@pytest.fixture(scope="session")
def one_ran_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project of one stage that was run; tests take a copy of it, `finished_one`."""
    project = Project(tmp_path_factory.mktemp("one"))
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n")
    project.groundup("run", "recipe.yaml")
    assert project.ran() == ["a"]
    return project


@pytest.fixture
def finished_one(one_ran_once: Project, tmp_path: Path) -> Project:
    """Return a project whose recipe `r` of one stage, `a`, was run."""
    return one_ran_once.copy(tmp_path / "copy")
