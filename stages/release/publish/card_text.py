"""The card's text for people, section by section."""

from __future__ import annotations

import html
import json
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact
from stages.common.release.layout import CARD, DATA_CARDS, MANIFEST, METRICS, PROVENANCE, RECIPE, provenance_name
from stages.common.release.measured import subjects
from stages.common.release.private import override_without_paths, value_without_paths
from stages.release.publish.markdown import block, code, plain, table
from stages.release.publish.parts import read_json

if TYPE_CHECKING:
    from stages.common.release.foreign import ForeignBase
    from stages.release.publish.card import Facts
    from stages.release.publish.model_index import Measurement

_WHAT = {
    "causal_lm": "A language model",
    "adapter": "A LoRA adapter",
    "tokenizer": "A tokenizer",
    "text": "A text corpus",
    "images": "A set of images",
    "diffusers": "An image model",
    "groundup": "An image feature extractor",
    "classifier": "An image classifier",
}
_LIMITS = {
    "causal_lm": (
        "It continues text. It was not taught to follow instructions, it repeats what its data say, and it invents facts."
    ),
    "tokenizer": "It was fitted to one corpus: other languages and kinds of text cost more tokens.",
    "text": "Documents were not checked one by one for truth, offence or personal facts.",
    "images": "Labels were taken as they came.",
    "diffusers": "It draws images like those of its data, on their grid, and nothing else.",
    "classifier": "It names one of its classes for whatever it is shown, noise and images of other things included.",
    "groundup": "Its features judge images of this very data; figures from other extractors cannot be compared.",
}


def title(facts: Facts) -> str:
    """Return the heading."""
    names = ", ".join(dict.fromkeys(data.title for data in facts.data)) or facts.repo
    return f"{_WHAT[facts.selection.kind.loader]}: {plain(facts.repo.partition('/')[2])} ({plain(names)})"


def sections(facts: Facts) -> list[str]:
    """Return all sections, those without content empty."""
    return [
        _what(facts),
        _use(facts),
        _data(facts),
        _procedure(facts),
        _results(facts),
        _figures(facts),
        _limits(facts),
        _reproduce(facts),
    ]


def _what(facts: Facts) -> str:
    artifact, kind = facts.lineage.artifact, facts.selection.kind
    origin = " and ".join(code(one.pinned) for one in facts.bases)
    made = f"fine-tuned with Groundup from {origin}" if origin else "made from the ground up with Groundup"
    lines = [f"{_WHAT[kind.loader]}, {made}: {code(artifact.record.stage)}."]
    parameters = _metric(artifact, "num_parameters")
    if parameters is not None:
        lines.append(f"{parameters:,.0f} parameters.")
    if kind.loader == "adapter":
        identity = read_json(artifact / "adapter" / "groundup_base.json")
        lines.append(
            f"It works on top of {code(str(facts.base_repo))} alone, whose tensors have sha256 "
            f"{code(str(identity['tensors_sha256']))}; `groundup_base.json` holds the same fact for programs."
        )
    if kind.loader in ("images", "diffusers"):
        grid = read_json(artifact / "grid.json")
        shape = f"{grid['channels']} x {grid['height']} x {grid['width']}"
        lines.append(f"An image is {shape} whole numbers from 0 to {grid['levels'] - 1}: channels, height, width.")
    lines.append(f"Licence: {plain(facts.licence.name or facts.licence.license)}.")
    if facts.usage.needs_groundup:
        lines.append(
            "Its classes are Groundup's own, so it loads where Groundup is installed; no code is fetched from this page."
        )
    return " ".join(lines)


def _use(facts: Facts) -> str:
    before = "Run this in a checkout of Groundup." if facts.usage.needs_groundup else "Stock libraries, no remote code."
    return (
        f"## How to use it\n\n{before} It was run as it stands before this was published.\n\n{block(facts.usage.code, 'python')}"
    )


def _data(facts: Facts) -> str:
    rows = []
    for data in facts.data:
        sizes = ", ".join(f"{plain(split)} {number:,}" for split, number in data.sizes.items())
        licence = facts.licence.by_data.get(data.name, "not stated")
        rows.append([plain(data.title), sizes, plain(licence), "; ".join(data.sources), code(data.artifact.fingerprint[:8])])
    lines = [
        "## The data" if facts.is_data else "## Training data",
        table(["data", "rows", "licence", "source and revision", "artifact"], rows),
        f"Their cards are in `{DATA_CARDS}/`.",
        *map(_base_data, facts.bases),
    ]
    return "\n\n".join(lines)


def _base_data(base: ForeignBase) -> str:
    """Say what is known of what a base from elsewhere had learnt before."""
    known = f"its records are in `{PROVENANCE}/`" if base.artifact else "its training data are not known here"
    return f"The base, {code(base.pinned)} (licence: {plain(base.license)}), was trained before that: {known}."


def _procedure(facts: Facts) -> str:
    lines = ["## How it was made" if facts.is_data else "## Training procedure", _cost(facts)]
    for artifact in facts.lineage.everything():
        if artifact in facts.lineage.evaluations or artifact.fingerprint not in _made_of(facts):
            continue
        record = artifact.record
        values = dict(record.identity.get("config", {}))
        decided = {f"{key} (decided by a probe)": value for key, value in _resolved(artifact).items()}
        if not values and not decided:
            continue
        rows = [[code(key), code(_value(value))] for key, value in (values | decided).items()]
        tables = [table(["setting", "value"], rows)]
        if derived := _derived(artifact):
            rows = [[plain(key), code(_value(value))] for key, value in derived.items()]
            tables.append(table(["what followed from the settings and the data", "value"], rows))
        heading = f"<summary>{html.escape(f'{record.name}: {record.stage} {record.fingerprint[:8]}')}</summary>"
        lines.append("\n\n".join([f"<details>{heading}", *tables, "</details>"]))
    return "\n\n".join(lines)


def _made_of(facts: Facts) -> set[str]:
    return {facts.lineage.artifact.fingerprint, *facts.lineage.ancestors}


def _cost(facts: Facts) -> str:
    rows = []
    for artifact in facts.lineage.everything():
        if artifact.fingerprint not in _made_of(facts):
            continue
        spent = artifact.record.provenance
        flops = _metric(artifact, "training_flops")
        rows.append(
            [
                plain(artifact.record.name),
                f"{spent['wall_seconds']:,.0f} s" if "wall_seconds" in spent else "",
                f"{spent['cpu_seconds']:,.0f} s" if "cpu_seconds" in spent else "",
                f"{spent['peak_memory_gib']:.2f} GiB" if spent.get("peak_memory_gib") is not None else "",
                f"{flops:.3g}" if flops else "",
                plain(_device(artifact)),
            ]
        )
    return table(["stage", "time", "processor time", "peak memory", "FLOPs, counted", "hardware"], rows)


def _device(artifact: Artifact) -> str:
    """What kind of machine it was; never its name."""
    path = artifact / "machine.json"
    if not path.is_file():
        return ""
    facts = read_json(path)
    gpus = len(facts.get("gpu_ids") or [])
    return f"{facts.get('processor', '')}, {facts.get('processes', 1)} process(es), " + (f"{gpus} GPU(s)" if gpus else "no GPU")


def _results(facts: Facts) -> str:
    columns = ["measure", "data, split", "value", "unit", "95 % interval", "n", "better", "measured by"]
    with_means = any(one.mean for one in facts.measured)
    rows = []
    for one in facts.measured:
        row = one.row
        better = {True: "higher", False: "lower", None: ""}[row.get("higher_is_better")]
        where = f"{plain(one.data.title)}, {plain(str(row['split']))}" if one.data and row.get("split") else ""
        counted = f"{row['n']:,} {plain(str(row.get('items', '')))}".strip()
        unit = "" if row["unit"] == "1" else plain(str(row["unit"]))
        cells = [plain(one.title), where, f"{row['value']:,.6g}", unit, _interval(row), counted, better]
        rows.append([*cells, plain(one.artifact.record.name), *([_mean(one)] if with_means else [])])
    columns += ["mean over seeds"] if with_means else []
    lines = [table(columns, rows), *_company(facts), f"The same rows for programs: `{METRICS}`."]
    if not rows:
        lines = []
    lines += [
        f"{code(one.record.name)} ({code(one.fingerprint[:8])}) measured it too, but what it measured on is not in the store any "
        "more, so it is left out."
        for one in facts.lineage.left_out
    ]
    return "## Results\n\n" + "\n\n".join(lines) if lines else ""


def _interval(row: dict[str, Any]) -> str:
    return f"{row['interval'][0]:.4g} to {row['interval'][1]:.4g}" if row.get("interval") else ""


def _mean(one: Measurement) -> str:
    if one.mean is None:
        return ""
    interval = f" ({_interval(one.mean)})" if one.mean.get("interval") else ""
    return f"{one.mean['value']:,.6g}{interval}, {one.mean_over} seeds"


def _company(facts: Facts) -> list[str]:
    """Say beside whom it was measured, with whose eyes, and what a mean is."""
    own = facts.lineage.artifact.fingerprint
    beside = {one: len(subjects(one.record) - {own}) for one in facts.lineage.evaluations}
    lines = [
        f"{code(one.record.name)} measured it beside {number} other model(s). Only its own figures stand here; who took part, "
        f"the record {code(provenance_name(one.record))} says."
        for one, number in beside.items()
        if number
    ]
    if judges := sorted({str(one.row["extractor"]) for one in facts.measured if one.row.get("extractor")}):
        lines.append(
            "Distances, precision to coverage, variety (Vendi) and classes were measured in the features of a network, "
            f"{' and '.join(map(code, judges))}, whose record is here; figures from another network cannot be compared."
        )
    if any(one.mean for one in facts.measured):
        lines.append(
            "The value is of this model alone. The mean over seeds is of models with the same settings that were trained from "
            "different seeds, of which this is one."
        )
    return lines


def _figures(facts: Facts) -> str:
    lines = [f"![{plain(PurePosixPath(path).stem)}]({path})\n\n{plain(caption)}" for path, caption in facts.figures.items()]
    return "## Figures\n\n" + "\n\n".join(lines) if lines else ""


def _limits(facts: Facts) -> str:
    kind = facts.selection.kind.loader
    lines = [_LIMITS["causal_lm" if kind == "adapter" else kind]]
    lines += [f"- {plain(data.title)}: {data.limits}" for data in facts.data if data.limits]
    return "## Limits\n\n" + "\n".join([lines[0], "", *lines[1:]])


def _reproduce(facts: Facts) -> str:
    artifact, recipe = facts.lineage.artifact, facts.lineage.recipe
    commit = str(artifact.record.provenance.get("commit") or "not recorded")
    if recipe is None:
        how = "The recipe is not in the store any more; the settings above and the records are what it said."
    else:
        command = ["groundup", "run", RECIPE, *(override_without_paths(word) for word in recipe.overrides), "--only", recipe.node]
        how = f"With Groundup at commit {code(commit)}:\n\n{block(shlex.join(command), 'bash')}"
    versions = artifact.record.provenance.get("versions") or {}
    named = ", ".join(f"{plain(str(name))} {plain(str(version))}" for name, version in versions.items())
    rows = [
        [plain(one.record.name), code(one.record.stage), code(one.fingerprint), code(provenance_name(one.record))]
        for one in facts.lineage.everything()
    ]
    changed = "It was made with changes that no commit holds.\n\n" if commit.endswith("+changes") else ""
    lines = [
        "## How to reproduce it",
        f"{changed}{how}",
        f"Versions: {named}." if named else "",
        "A fingerprint is the hash of settings, code, inputs and sources: equal fingerprints mean the same work. On the same "
        f"versions and kind of machine the result is the same bit by bit; `{MANIFEST}` holds the sha256 of every file, and "
        f"`{PROVENANCE}/` the records. They are not signed: pin a commit of this repository to be sure of what you get.",
        table(["stage", "kind", "fingerprint", "record"], rows),
        f"{plain(facts.probe.sentence())}." if facts.probe else "",
        f"`{CARD}` was generated from these records.",
    ]
    return "\n\n".join(line for line in lines if line)


def _metric(artifact: Artifact, name: str) -> float | None:
    return next((float(row["value"]) for row in artifact.record.metrics if row["name"] == name), None)


def _resolved(artifact: Artifact) -> dict[str, Any]:
    path = artifact / "resolved.json"
    return read_json(path) if path.is_file() else {}


def _derived(artifact: Artifact) -> dict[str, Any]:
    """Return sizes, rates and steps that the settings leave open (null): what the stage's report says of model and training."""
    path = artifact / "section.json"
    blocks = read_json(path)["blocks"] if path.is_file() else []
    facts = [block for block in blocks if block["kind"] == "facts" and block.get("title") in ("Model", "Adapter", "Training")]
    return {f"{block['title'].lower()}: {key}": value for block in facts for key, value in block["values"].items()}


def _value(value: Any) -> str:
    shown = value_without_paths(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
