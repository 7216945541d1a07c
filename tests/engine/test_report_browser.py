"""The page in a real browser: its style is in force, its figures are drawn, and it never scrolls sideways.

A page around it, made for the test, holds the report in frames of three widths and writes down what it measures there; the
report itself stays as it is, with its content security policy.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.report import ReportNode, build_report
from tests.engine.report_samples import HOSTILE, everything, make_artifact

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--dump-dom",
]
WIDTHS = (320, 360, 800, 1280)

MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
    const style = (selector, key) => view.getComputedStyle(page.querySelector(selector))[key];
    const clipped = (one) => one && one !== root &&
      (view.getComputedStyle(one).overflowX !== "visible" || clipped(one.parentElement));
    const out = [...page.body.querySelectorAll("*")].filter(
      (one) => one.getBoundingClientRect().right > root.clientWidth + 1 && !clipped(one));
    return {
      width: root.clientWidth, needed: root.scrollWidth, height: root.scrollHeight,
      out: out.map((one) => one.tagName + "." + one.getAttribute("class")),
      pictures: [...page.images].map((image) => image.naturalWidth),
      weight: style("h2", "fontWeight"), wide: style(".wide-only", "display"), narrow: style(".narrow-only", "display"),
    };
  });
  document.body.replaceChildren(JSON.stringify(found));
});
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[int, dict]:
    if CHROMIUM is None:
        pytest.skip("needs the system program chromium, which is not installed")
    folder = tmp_path_factory.mktemp("browser")
    artifact = make_artifact(folder / "stage", everything(HOSTILE), note=HOSTILE)
    nodes = [ReportNode("dataset", (), "ran", artifact, [HOSTILE]), ReportNode("split", ["dataset"], "cached", artifact)]
    nodes += [ReportNode(f"train@seed={seed},{'x' * 40}", ["split"]) for seed in range(15)]
    page, _ = build_report("w" * 80, nodes, recipe_text=HOSTILE * 3, command=HOSTILE)
    frames = [f'<iframe width="{width}" height="800" frameborder="0" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS]
    path = folder / "frames.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{''.join(frames)}<script>{MEASURE}</script>", encoding="utf-8")
    return dict(zip(WIDTHS, _run(path, folder / "profile"), strict=True))


def _run(path: Path, profile: Path) -> list[dict]:
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", f"file://{path}"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = json.loads(html.unescape(re.search(r"<body>(\[.*\])</body>", output, re.S).group(1)))
    assert len(found) == len(WIDTHS)
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(measured, width):
    one = measured[width]
    assert one["out"] == []
    assert one["needed"] == one["width"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_its_policy_lets_the_style_and_the_figures_through(measured, width):
    assert measured[width]["weight"] == "650"
    assert measured[width]["pictures"] == [40] * 2


def test_a_narrow_page_has_a_graph_of_its_own(measured):
    assert (measured[360]["wide"], measured[360]["narrow"]) == ("none", "block")
    assert (measured[1280]["wide"], measured[1280]["narrow"]) == ("block", "none")
