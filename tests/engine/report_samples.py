"""Small artifacts for the tests of the report, made as a stage makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.artifact import Adoption, Artifact
from pipeline.context import Context
from pipeline.report import ReportNode, build_report
from tests.harness import commit, make_context

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'
HOSTILE = (
    "<script>alert(1)</script>\n---\n# h | a | `b` ``` [l](javascript:x) & \"q\" 'r' \u202eabc\u202c \x00\x1b 🧬 " + "w" * 300
)


class Config(BaseModel):
    """Stands for a stage's Config, whatever its values."""

    produces: str = "text"
    note: str = "plain"


def make_artifact(folder: Path, fill: Callable[[Context], None], note: str = "plain") -> Artifact:
    """Return the artifact that a stage with body `fill` leaves in `folder`."""
    context = make_context(folder)
    fill(context)
    return commit(f"stages.text.{folder.name}", Config(note=note), context)


def everything(text: str) -> Callable[[Context], None]:
    """Return the body of a stage that puts `text` wherever a stage can put text."""

    def fill(context: Context) -> None:
        section = context.section
        section.describe(title=text, idea=text, formula=text)
        section.text(text)
        section.table(text, ["name", text], [[text, 1.5], [None, 2]], caption=text)
        (context.figures / "a.svg").write_bytes(SVG)
        section.figure("figures/a.svg", text)
        section.figure(f"figures/{text}.svg", text)
        section.samples(text, [text, "after"], [[text, text]], caption=text)
        section.facts(text, {text: text, "exact": 0.1234567890123})
        context.metric(text, 1.5, unit=text, higher_is_better=False, n=1234567, split=text, interval=[1.25, 1.75], items=text)

    return fill


def hostile_report(folder: Path, text: str, **options: Any) -> tuple[str, str]:
    """Return the report of a recipe of three nodes in which every text is `text`."""
    artifact = make_artifact(folder / "stage", everything(text), note=text)
    adopted = [Adoption(fingerprint="f", code_before=text, code_after=text, time=text)]
    identity = artifact.record.identity | {"code": {text: text}}
    changes = {"adopted": adopted, "provenance": {"versions": {text: text}, text: text}, "identity": identity}
    artifact.record = artifact.record.model_copy(update=changes)
    machine = {"wall_seconds": 12.5, "cpu_seconds": 20, "peak_memory_gib": 0.5, text: text}
    nodes = [
        ReportNode(f"a{text}", status=f"s{text}", artifact=artifact, causes=[text], machine=machine, notes=[text]),
        ReportNode(f"b@{text}", needs=[f"a{text}"], status="failed", causes=[text]),
        ReportNode("c", needs=[f"b@{text}", f"a{text}"]),
    ]
    values: Mapping[str, str] = {"recipe_text": f"# {text}\nname: x\n# {text}", "command": text} | options
    return build_report(text, nodes, recipe_text=values["recipe_text"], command=values["command"])
