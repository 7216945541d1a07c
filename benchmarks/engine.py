"""Start-up, planning and overhead of the engine, on toy stages: `python -m benchmarks.engine [--rounds 15]`.

- `--help`, `plan` and a run with nothing to do, as processes, against a bare interpreter (`python -c pass`).
- A chain of six toy stages through `groundup run`, against the very same stages as plain processes, each of which imports
  the stage, validates its config, runs it and writes its metrics: what no engine could leave out.
- A made-up recipe of 2,000 stages: planned when nothing was ever run, and when everything is finished.

`--finished RECIPE STORE` also measures `plan` and `run` of a finished recipe, such as the quickstart.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

from benchmarks.measuring import ROOT, Row, Side, Table, alternate, below, command_seconds, spread, timed
from pipeline.artifact import InputEntry, Record, manifest
from pipeline.graph import add_working_directory, build_graph
from pipeline.plan import Plan, make_plan
from pipeline.recipe import load_recipe
from pipeline.store import Store

CHAIN = 6
MANY = 2_000
_CONFIG = """
    from typing import ClassVar

    from pipeline.contract import Input, StageConfig


    class Config(StageConfig):
        produces: ClassVar[str] = "text"
        inputs: ClassVar = {"upstream": Input(("text",), "what came before", optional=True, many=True)}

        text: str = "a"
        number: int = 0
"""
_RUN = """
    def run(config, context):
        before = "".join((artifact / "out.txt").read_text() for artifact in context.inputs("upstream"))
        (context.directory / "out.txt").write_text(before + config.text)
        context.metric("length", len(before) + 1, unit="character", higher_is_better=None, n=1)
"""
_PLAIN = """
    import json
    import sys
    from pathlib import Path

    from pipeline.contract import Context
    from toy.write.config import Config
    from toy.write.run import run

    directory = Path(sys.argv[1])
    directory.mkdir(parents=True)
    context = Context(directory, {})
    run(Config.parse(json.loads(sys.argv[2]), where="plain"), context)
    context.finish()
"""


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    table = Table("Engine", packages=["pydantic"], other="plain processes")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        _write_project(project)
        rows = _start_up(project, arguments.rounds, arguments.finished)
        rows += _overhead(project, arguments.rounds)
        rows += _many(project, arguments.rounds)
    table.show(rows)


def _start_up(project: Path, rounds: int, finished: list[str] | None) -> list[Row]:
    _groundup(project, "run", "chain.yaml")
    plan, run = ("`plan`, six toy stages done", "`run`, six toy stages done")
    sides: dict[str, Side] = {
        "python -c pass": partial(command_seconds, [sys.executable, "-c", "pass"], cwd=project, times=3),
        "`--help`": partial(_groundup, project, "--help", times=3),
        plan: partial(_groundup, project, "plan", "chain.yaml", times=3),
        run: partial(_groundup, project, "run", "chain.yaml", times=3),
    }
    limits = {"`--help`": 0.3, plan: 1.0, run: 1.0}
    if finished:
        recipe, store = finished
        for verb in ("plan", "run"):
            name = f"`{verb} {recipe}`, all done"
            sides[name] = partial(_groundup, ROOT, verb, recipe, "--store", store)
            sides[name]()
            limits[name] = 1.0
    found = alternate(sides, rounds=rounds)
    bare = found.pop("python -c pass")
    return [below(name, values, limits[name], other=bare) for name, values in found.items()]


def _overhead(project: Path, rounds: int) -> list[Row]:
    """A chain of six stages with and without the engine; the driver's own start is shared out over the six."""
    counter = iter(range(10_000))

    def engine(recipe: str) -> float:
        return _groundup(project, "run", recipe, "--store", f"store{next(counter)}")

    def plain() -> float:
        root = f"plain{next(counter)}"
        commands = [
            [sys.executable, "plain.py", f"{root}/{number}", f'{{"text": "{number}", "number": {number}}}']
            for number in range(CHAIN)
        ]
        return sum(command_seconds(command, cwd=project, environment=_PATH) for command in commands)

    found = alternate({"run": partial(engine, "chain.yaml"), "one": partial(engine, "one.yaml"), "plain": plain}, rounds=rounds)
    per_stage = [(a - b) / CHAIN for a, b in zip(found["run"], found["plain"], strict=True)]
    marginal = [(a - b) / (CHAIN - 1) - c / CHAIN for a, b, c in zip(found["run"], found["one"], found["plain"], strict=True)]
    limit = 0.2
    return [
        Row("a chain of six toy stages", spread(found["run"], "s"), spread(found["plain"], "s")),
        below("engine per stage, the driver's start and report included", per_stage, limit),
        below("engine per further stage", marginal, limit),
    ]


def _many(project: Path, rounds: int) -> list[Row]:
    """2,000 stages, each with up to three needs among the forty before it."""
    stages = _random_stages()
    (project / "many.yaml").write_text(f"name: many\nstages:\n{stages}")
    fresh, done = project / "fresh", project / "done"
    _finish(_plan(project / "many.yaml", done), Store(done))
    _plan(project / "many.yaml", done)  # hashes of the made-up files are learned once, as a run learns them
    rounds = max(3, rounds // 3)
    sides: dict[str, Side] = {}
    for state, store in (("never run", fresh), ("all done", done)):
        sides[f"`plan`, {MANY:,} stages, {state}"] = partial(_groundup, project, "plan", "many.yaml", "--store", str(store))
        sides[f"planning in process, {MANY:,} stages, {state}"] = partial(timed, partial(_plan, project / "many.yaml", store))
    found = alternate(sides, rounds=rounds)
    return [below(name, values, 2.0) for name, values in found.items()]


def _plan(recipe: Path, store: Path) -> Plan:
    loaded = load_recipe(recipe)
    return make_plan(build_graph(loaded), Store(store), loaded.name)


def _finish(plan: Plan, store: Store) -> None:
    """Write the artifacts of `plan` without running anything."""
    for name, planned in plan.items():
        directory = store.place(planned.node.stage, planned.fingerprint).final
        directory.mkdir(parents=True)
        (directory / "out.txt").write_text(name)
        inputs = {
            role: [InputEntry(stage=plan[n].node.stage, fingerprint=plan[n].fingerprint) for n in upstream]
            for role, upstream in planned.node.needs.items()
        }
        Record(
            name=name,
            stage=planned.node.stage,
            produces="text",
            fingerprint=planned.fingerprint,
            identity=planned.identity,
            inputs=inputs,
            files=manifest(directory),
            metrics=[],
            provenance={},
        ).save(directory)


_PATH = {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def _groundup(project: Path, *arguments: str, times: int = 1) -> float:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return command_seconds(command, cwd=project, environment=_PATH, times=times)


def _write_project(project: Path) -> None:
    stage = project / "toy" / "write"
    stage.mkdir(parents=True)
    for path in (project / "toy" / "__init__.py", stage / "__init__.py"):
        path.touch()
    for path, text in ((stage / "config.py", _CONFIG), (stage / "run.py", _RUN), (project / "plain.py", _PLAIN)):
        path.write_text(textwrap.dedent(text))
    for name, length in (("chain", CHAIN), ("one", 1)):
        lines = [_stage_line(number, [number - 1] if number else []) for number in range(length)]
        (project / f"{name}.yaml").write_text(f"name: {name}\nstages:\n" + "".join(lines))
    sys.path.append(str(project))
    add_working_directory()


def _random_stages() -> str:
    draw = random.Random(0)
    lines = []
    for number in range(MANY):
        recent = range(max(0, number - 40), number)
        lines.append(_stage_line(number, draw.sample(recent, min(len(recent), draw.randint(0, 3)))))
    return "".join(lines)


def _stage_line(number: int, needs: list[int]) -> str:
    upstream = f", needs: {{upstream: [{', '.join(f's{n}' for n in needs)}]}}" if needs else ""
    return f'  s{number}: {{stage: toy.write{upstream}, text: "{number}", number: {number}}}\n'


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--finished", nargs=2, metavar=("RECIPE", "STORE"), help="a finished recipe and its store")
    return parser.parse_args()


if __name__ == "__main__":
    main()
