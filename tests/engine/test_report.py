"""The report of a recipe: complete, self-contained, the same bytes each time, and honest about what is missing."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from pipeline.artifact import Adoption, FileEntry
from pipeline.report import EARLIER, ReportNode, build_report
from pipeline.report import numbers as formats
from pipeline.report.collect import MAX_FIGURE_BYTES, in_order, proved
from pipeline.report.page import STYLE, policy
from tests.engine.report_samples import SVG, everything, hostile_report, make_artifact

RECIPE = "# What it is for,\n# in two lines.\nname: tiny\nstages: {}\n"


def report(*nodes, command="groundup run tiny.yaml"):
    return build_report("tiny", nodes, recipe_text=RECIPE, command=command)


def text_of(page):
    """All text that the page shows, in order, blanks as they are."""
    parts = []
    parser = HTMLParser()
    parser.handle_data = parts.append
    parser.feed(page.split("</style>")[1])
    return "".join(parts)


def elements(page):
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))
    parser.feed(page)
    return found


@pytest.fixture
def node(tmp_path):
    artifact = make_artifact(tmp_path / "pretrain", everything("word"))
    machine = {"host": "my-host", "processor": "a CPU", "wall_seconds": 252.0, "cpu_seconds": 500.5, "peak_memory_gib": 1.5}
    return ReportNode("pretrain", status="ran", artifact=artifact, causes=["pretrain.depth: 4 -> 6"], machine=machine)


def test_the_same_artifacts_give_the_same_bytes(tmp_path):
    assert hostile_report(tmp_path / "a", "x") == hostile_report(tmp_path / "b", "x")


def test_the_page_allows_only_its_own_style_and_embedded_pictures(node):
    page, _ = report(node)
    (content,) = [attrs["content"] for tag, attrs in elements(page) if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert content == policy()
    assert content.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in content
    assert page.count("<style>") == 1
    assert not [tag for tag, attrs in elements(page) if "style" in attrs or tag in {"script", "link", "iframe", "object"}]


def test_the_page_loads_nothing_from_outside(node):
    page, _ = report(node)
    addresses = [attrs[key] for _, attrs in elements(page) for key in ("src", "href", "srcset", "action") if key in attrs]
    assert addresses
    assert all(address.startswith(("#", "data:image/svg+xml;base64,")) for address in addresses)
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_link_of_the_page_has_its_target_and_every_id_is_used_once(node):
    page, _ = report(node, ReportNode("pretrain@a", needs=["pretrain"]), ReportNode("pretrain a", needs=["gone"]))
    ids = [attrs["id"] for _, attrs in elements(page) if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in elements(page) if tag == "a"} <= set(ids)


def test_the_page_can_be_read_aloud(node):
    page, _ = report(node)
    found = elements(page)
    assert ("html", {"lang": "en"}) in found
    levels = [int(tag[1]) for tag, _ in found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attrs.get("alt") for tag, attrs in found if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in found if tag == "th")
    assert all(attrs.get("tabindex") == "0" for _, attrs in found if attrs.get("class") == "scroll")


def test_both_forms_tell_the_recipe_its_command_and_its_figures(node):
    for text in (text_of(report(node)[0]), report(node)[1].replace("\\", "")):
        assert "What it is for, in two lines." in text
        assert "groundup run tiny.yaml" in text
        assert "stages: {}" in text
        assert "4 min 12 s" in text
        assert "1.50 GiB" in text
        assert "1,234,567" in text
        assert "1.25 to 1.75" in text
        assert "lower" in text
        assert "pretrain.depth: 4 -" in text


def test_figures_have_names_and_units_for_people(tmp_path):
    def fill(context):
        shown = {"higher_is_better": None, "n": 1, "items": "epochs"}
        context.metric("num_parameters", 5, unit="1", **shown)
        context.metric("peak_memory_gib", 0.5, unit="GiB", **shown)
        context.metric("training_flops", 122_776_240_128.0, unit="FLOP", interval=[1e11, 2e11], **shown)
        context.metric("repeated_4", 0.5, unit="1", title="share of 4-word runs that repeat", **shown)
        context.metric("training_seconds", 2.5, unit="s", **shown)
        context.metric("distance", 0.25, unit="1", label="vae, seed=1", **shown)
        context.metric("hidden", 0.5, unit="1", listed=False, **shown)

    page, markdown = report(ReportNode("a", status="ran", artifact=make_artifact(tmp_path / "a", fill)))
    rows = [row.strip("| ").split(" | ") for row in markdown.replace("\\", "").splitlines() if row.endswith("| 1 epoch | – |")]
    assert [row[:4] for row in rows] == [
        ["parameters", "5", "–", "–"],
        ["peak memory", "0.5", "–", "GiB"],
        ["training flops", "122.8", "100 to 200", "GFLOP"],
        ["share of 4-word runs that repeat", "0.5", "–", "–"],
        ["training", "2.5", "–", "s"],
        ["vae, seed=1: distance", "0.25", "–", "–"],
    ]
    shown = text_of(page).split("Engineer's details")[0]
    assert all(word in shown for row in rows for word in row)
    assert "hidden" not in shown


def test_samples_after_the_third_are_folded(tmp_path):
    def fill(count):
        return lambda context: context.section.samples("S", ["text"], [[f"sample {n}"] for n in range(count)])

    three, five = (report(ReportNode("a", status="ran", artifact=make_artifact(tmp_path / str(n), fill(n))))[0] for n in (3, 5))
    assert "more</summary>" not in three
    before, after = five.split("<summary>2 more</summary>")
    assert ("sample 2" in before, "sample 3" in before, "sample 4" in after) == (True, False, True)


def test_exact_values_stand_in_the_details(node):
    for text in (text_of(report(node)[0]), report(node)[1].replace("\\", "")):
        assert node.artifact.fingerprint in text
        assert "0.1234567890123" in text
        assert "figures/a.svg" in text
        assert node.artifact.record.files["figures/a.svg"].sha256[:12] in text


def test_a_long_list_of_files_is_cut_and_says_so(tmp_path):
    def fill(context):
        for index in range(205):
            (context.samples / f"{index}.txt").touch()

    page, _ = report(ReportNode("stage", artifact=make_artifact(tmp_path / "stage", fill)))
    assert "Files (207, " in text_of(page)
    assert "and 7 more, all in record.json" in text_of(page)


def test_the_name_of_the_host_is_not_published(node):
    for text in report(node):
        assert "a CPU" in text
        assert "my-host" not in text


def test_a_figure_that_is_missing_changed_or_outside_is_named_and_not_shown(tmp_path):
    def fill(context):
        for name in ("good", "gone", "changed", "link"):
            (context.figures / f"{name}.svg").write_bytes(SVG)
            context.section.figure(f"figures/{name}.svg", name)
        (tmp_path / "secret.svg").write_text("secret")
        context.section.figure("figures/../../secret.svg", "outside")
        context.section.figure(str(tmp_path / "secret.svg"), "absolute")
        context.section.figure("metrics.json", "no picture")

    artifact = make_artifact(tmp_path / "stage", fill)
    (artifact / "figures/gone.svg").unlink()
    (artifact / "figures/changed.svg").write_bytes(SVG + b" ")
    os.remove(artifact / "figures/link.svg")
    os.symlink(tmp_path / "secret.svg", artifact / "figures/link.svg")
    page, markdown = report(ReportNode("stage", status="ran", artifact=artifact))
    assert page.count("<img") == markdown.count("![") == 1
    assert "c2VjcmV0" not in page  # "secret" in base64
    text = text_of(page)
    assert text.count("is not a file of this artifact") == 2
    assert text.count("was changed after it was made") == 2
    assert "cannot be read (No such file or directory)" in text
    assert "is neither SVG nor PNG" in text


def test_a_record_that_lists_a_file_outside_does_not_open_it(tmp_path):
    artifact = make_artifact(tmp_path / "stage", everything("word"))
    (tmp_path / "secret.svg").write_bytes(SVG)
    entry = FileEntry(sha256=artifact.record.files["figures/a.svg"].sha256, size=len(SVG))
    artifact.record.files["../secret.svg"] = entry
    assert proved(artifact, "../secret.svg", 1000) == (b"", "is not a file of this artifact")


def test_a_figure_that_is_too_large_is_left_out(tmp_path):
    def fill(context):
        (context.figures / "a.svg").write_bytes(b" " * (MAX_FIGURE_BYTES + 1))
        context.section.figure("figures/a.svg", "large")

    page, _ = report(ReportNode("stage", artifact=make_artifact(tmp_path / "stage", fill)))
    assert "is too large to show here" in text_of(page)


@pytest.mark.parametrize(
    "section",
    [
        "[]",
        "{",
        '{"blocks": 3, "title": null, "idea": 5}',
        '{"blocks": [null, 5, {"kind": "video"}, {"kind": "table", "columns": ["a"], "rows": [[1, 2]]}, {"kind": "text"}]}',
        "[" * 100_000,
    ],
)
def test_a_section_that_makes_no_sense_becomes_a_note(tmp_path, section):
    artifact = make_artifact(tmp_path / "stage", lambda context: None)
    (artifact / "section.json").write_text(section)
    entry = FileEntry(sha256=hashlib.sha256(section.encode()).hexdigest(), size=len(section))
    artifact.record.files["section.json"] = entry
    artifact.record.metrics.extend([{"name": 5}, {"name": "a", "value": "high", "unit": "1"}])
    page, markdown = report(ReportNode("stage", status="ran", artifact=artifact))
    assert text_of(page).count("cannot be") >= 2
    assert "cannot be" in markdown


def test_failed_and_missing_stages_are_told_at_the_top_and_in_their_place():
    failed = ReportNode("corpus", status="failed", causes=["corpus: file a.txt is empty; name another."])
    page, markdown = report(failed, ReportNode("tokenizer", needs=["corpus"]))
    for text in (text_of(page), markdown):
        assert "2 stages: 1 failed, 1 missing." in text.replace("\\", "")
        assert "corpus failed" in text
        assert "file a.txt is empty" in text
        assert "There is no artifact of this stage yet." in text


def test_an_adoption_is_told_at_the_top_in_its_place_and_in_the_details(node):
    adoption = Adoption(fingerprint="f" * 64, code_before="before" * 4, code_after="after" * 4, time="2026-01-01T00:00:00Z")
    node.artifact.record = node.artifact.record.model_copy(update={"adopted": [adoption]})
    for text in (text_of(report(node)[0]), report(node)[1].replace("\\", "")):
        assert "pretrain was adopted" in text
        assert "Adopted on 2026-01-01T00:00:00Z" in text
        assert "before" * 4 in text


def test_stages_stand_after_what_they_need_and_else_in_the_order_given():
    nodes = [ReportNode("c", needs=["b"]), ReportNode("z"), ReportNode("b", needs=["a", "not in the recipe"]), ReportNode("a")]
    assert [node.name for node in in_order(nodes)] == ["z", "a", "b", "c"]


def test_headlines_are_what_stages_marked_else_what_was_tested(tmp_path):
    def fill(marked):
        def run(context):
            context.metric("loss", 3.0, unit="nat/token", higher_is_better=False, n=1, split="train")
            context.metric("quality", 2.0, unit="1", higher_is_better=True, n=1, split="test")
            context.metric("special", 1.0, unit="1", higher_is_better=None, n=1, **({"headline": True} if marked else {}))

        return run

    def tiles(name, marked):
        page, _ = report(ReportNode(name, artifact=make_artifact(tmp_path / name, fill(marked))))
        return re.findall(r'<p class="of">(\w+)</p>', page)

    assert tiles("plain", False) == ["quality"]
    assert tiles("marked", True) == ["special"]


def cells(tmp_path, count, idea=lambda index: "what all do"):
    def fill(index):
        def run(context):
            context.section.describe(title="Training", idea=idea(index))
            context.metric("quality", index / 2, unit="nat", higher_is_better=True, n=1, split="test", headline=True)

        return run

    made = [make_artifact(tmp_path / f"cell{index}", fill(index)) for index in range(count)]
    return [ReportNode(f"train@seed={index}", status="done", artifact=one) for index, one in enumerate(made)]


def test_the_cells_of_a_matrix_share_a_section_with_their_figures_side_by_side(tmp_path):
    page, _ = report(ReportNode("first"), *cells(tmp_path, 3))
    assert re.findall(r'<span class="number">(\d)</span>([^<]+)</h2>', page) == [("1", "first"), ("2", "Training · train")]
    assert page.count("what all do") == 1
    rows = re.findall(r"<tr><td>(seed=\d)</td><td[^>]*>([^<]+)</td>", page)
    assert rows == [("seed=0", "0"), ("seed=1", "0.5"), ("seed=2", "1")]
    assert page.count('<details class="stage">') == 3
    ids = [attrs["id"] for _, attrs in elements(page) if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in elements(page) if tag == "a"} <= set(ids)


def rows_of(markdown, columns):
    """Rows of the Markdown table with these heads, as lists of texts."""
    lines = markdown.replace("\\", "").splitlines()
    start = lines.index(f"| {' | '.join(columns)} |") + 2
    return [line.strip("| ").split(" | ") for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])]


def test_a_cell_that_failed_takes_no_figure_from_the_others(tmp_path):
    made = cells(tmp_path, 3)
    made[0] = ReportNode("train@seed=0", status="failed", causes=["train: no"])
    page, markdown = report(*made)
    rows = re.findall(r"<tr><td>(seed=\d)</td><td>([^<]+)</td><td[^>]*>([^<]+)</td>", page)
    assert rows == [("seed=0", "failed", "–"), ("seed=1", "done", "0.5"), ("seed=2", "done", "1")]
    assert rows_of(markdown, ["cell", "state", "quality (nat)", "wall time"]) == [[*row, "–"] for row in rows]


def test_cells_show_intervals_and_where_nothing_was_tested_what_can_be_judged(tmp_path):
    def fill(index):
        def run(context):
            context.metric("flops", 5.0, unit="FLOP", higher_is_better=None, n=1)
            context.metric("training_seconds", 2.0, unit="s", higher_is_better=False, n=1)
            interval = [0.0, 2.0] if index else None
            context.metric("signs", index, unit="1", higher_is_better=False, n=1, interval=interval)
            context.metric("work", 10.0 ** (3 * index), unit="FLOP", higher_is_better=False, n=1)

        return run

    made = [make_artifact(tmp_path / str(index), fill(index)) for index in range(3)]
    _, markdown = report(*(ReportNode(f"gan@seed={index}", status="done", artifact=one) for index, one in enumerate(made)))
    assert rows_of(markdown, ["cell", "signs", "work", "wall time"]) == [
        ["seed=0", "0", "1 FLOP", "–"],
        ["seed=1", "1 (0 to 2)", "1 kFLOP", "–"],
        ["seed=2", "2 (0 to 2)", "1 MFLOP", "–"],
    ]


def test_both_forms_number_sections_alike(tmp_path):
    page, markdown = report(ReportNode("first"), *cells(tmp_path, 3), ReportNode("last"))
    titles = [("1", "first"), ("2", "Training · train"), ("3", "last")]
    assert re.findall(r'<span class="number">(\d)</span>([^<]+)</h2>', page) == titles
    assert re.findall(r"^## (\d)\. (.+)$", markdown.replace("\\", ""), re.MULTILINE) == titles
    assert markdown.count("what all do") == 1
    assert re.findall(r"^### (.+)$", markdown, re.MULTILINE) == ["seed=0", "seed=1", "seed=2"]


def test_cells_that_differ_say_each_what_they_are_and_two_are_no_matrix(tmp_path):
    page, _ = report(*cells(tmp_path, 3, idea="idea {}".format))
    assert [page.count(f"idea {index}") for index in range(3)] == [1, 1, 1]
    page, _ = report(*cells(tmp_path / "two", 2))
    assert page.count('<span class="number">') == 2


def test_headlines_of_other_stages_go_before_those_of_cells(tmp_path):
    last = make_artifact(
        tmp_path / "last", lambda context: context.metric("won", 1, unit="1", higher_is_better=None, n=1, headline=True)
    )
    page, _ = report(*cells(tmp_path, 3), ReportNode("last", artifact=last))
    assert re.findall(r'<p class="of">(\w+)</p>', page) == ["won"]


def test_headlines_of_an_earlier_run_say_so(tmp_path):
    made = make_artifact(
        tmp_path / "last", lambda context: context.metric("won", 1, unit="1", higher_is_better=None, n=1, headline=True)
    )
    page, markdown = report(ReportNode("new", artifact=made), ReportNode("old", status=EARLIER, artifact=made))
    assert re.findall(r'<p class="small">([^<]+)', page) == ["new · n = 1", "old (earlier run) · n = 1"]
    assert "| new | won | – | 1 | – | 1 |" in markdown
    assert r"| old \(earlier run\) |" in markdown


def test_a_recipe_of_ten_stages_is_written_within_its_time(tmp_path):
    """0.3 s of CPU, in a process of its own, the best of three on a busy machine; no tensor library, no matplotlib."""
    make_artifact(tmp_path / "stage", everything("word"))
    program = f"""
import json, sys, time
from pathlib import Path
from pipeline.artifact import Artifact
from pipeline.report import ReportNode, build_report
artifact = Artifact.open(Path({str(tmp_path / "stage")!r}))
nodes = [ReportNode(f"n{{i}}", [f"n{{i - 1}}"] if i else [], "cached", artifact) for i in range(10)]
took = []
for _ in range(3):
    start = time.process_time()
    build_report("ten", nodes, recipe_text="", command="")
    took.append(time.process_time() - start)
print(json.dumps([min(took), sorted(sys.modules)]))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    seconds, modules = json.loads(output)
    assert seconds < 0.3
    assert not {"torch", "numpy", "matplotlib", "transformers", "datasets", "stages"} & set(modules)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (-5, "−5"),
        (0.0, "0"),
        (2.0, "2"),
        (1.63456, "1.635"),
        (12345.678, "12,346"),
        (0.00012344, "0.0001234"),
        (1e-9, "1e−9"),
        (float("nan"), "not a number"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.412, "0.41 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (252, "4 min 12 s"),
        (11100, "3 h 05 min"),
        (183600, "2 d 3 h"),
    ],
)
def test_durations_are_written_for_people(value, text):
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (1_500_000, "1.43 MiB"), (123 * 2**30, "123 GiB")]
)
def test_sizes_are_written_for_people(value, text):
    assert formats.size(value) == text
