"""The interactive page in a real browser: it needs nothing but itself, shows the right pixels, and takes no text for markup."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import DataError
from stages.image.compare.page import write_page
from tests.image.comparisons import GRID_4X4, contestant, number, study

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
    "--virtual-time-budget=1000000",
    "--dump-dom",
]
HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)> "&{{data}}'
WIDTHS = (320, 1000)
MEASURE = """
const pause = () => new Promise((done) => setTimeout(done, 60));
const grey = (canvas, x, y) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[0];
const set = async (input, value, kind, view) => {
  input.value = value;
  input.dispatchEvent(new view.Event(kind));
  do await pause(); while (input.ownerDocument.querySelector('[aria-busy="true"]'));
};
addEventListener("load", async () => {
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, view = frame.contentWindow, broken = [];
    page.addEventListener("securitypolicyviolation", (event) => broken.push(event.violatedDirective));
    while (page.body.dataset.ready !== "yes") await pause();
    const left = page.getElementById("left"), canvas = left.querySelector("canvas"), slider = left.querySelector("input");
    const tile = (canvas.width + 3) / 8, middle = Math.floor(tile / 2);
    const at = (index) => grey(canvas, (index % 8) * tile + middle, Math.floor(index / 8) * tile + middle);
    const first = { name: left.querySelector("output").textContent, tiles: [0, 1, 2, 9].map(at) };
    await set(slider, 0, "input", view);
    const moved = { name: left.querySelector("output").textContent, tiles: [0, 1, 2, 9].map(at) };
    const facts = left.querySelector("dl").textContent;
    await set(left.querySelector("select"), left.querySelector("select").options[1].value, "change", view);
    const other = { name: left.querySelector("output").textContent, facts: left.querySelector("dl").textContent };
    const planes = [...page.querySelectorAll(".plane")], sliders = [...page.querySelectorAll(".controls input")], corner = [];
    const shown = () => planes.map((plane) => grey(plane.querySelector("canvas"), 10, 10));
    for (const place of [[0, 0], [2, 0], [2, 2]]) {
      for (const index of [0, 1]) await set(sliders[index], place[index], "input", view);
      corner.push(shown());
    }
    const named = planes.map((plane) => plane.querySelector("canvas").getAttribute("aria-label"));
    const whole = planes[1].querySelectorAll("canvas")[1], box = whole.getBoundingClientRect();
    const inTile = { clientX: box.left + box.width / 6, clientY: box.top + box.height / 6, bubbles: true };
    whole.dispatchEvent(new view.MouseEvent("click", inTile));
    do await pause(); while (page.querySelector('[aria-busy="true"]'));
    const clicked = { places: sliders.map((slider) => slider.value), shown: shown() };
    const inside = page.createElement("script");
    inside.textContent = "document.title = 'taken'";
    page.body.append(inside);
    await pause();
    found.push({
      title: page.title, heading: page.querySelector("h1").textContent, models: [...left.querySelectorAll("option")].map((o) => o.text),
      first, moved, facts, other, corner, named, clicked, broken, about: planes.map((plane) => plane.querySelector("p").textContent),
      labels: [...page.querySelectorAll("input, select")].map((input) => input.labels.length), hidden: page.getElementById("latents").hidden,
      outside: [...page.querySelectorAll("[src], [href]")].length, width: page.documentElement.clientWidth,
      needed: page.documentElement.scrollWidth,
    });
  }
  document.body.replaceChildren(JSON.stringify(found));
});
"""


def levels(*values: int, num: int = 10) -> torch.Tensor:
    """Return `num` images of one level each: `values`, again and again."""
    rows = torch.tensor([values[index % len(values)] for index in range(num)], dtype=torch.uint8)
    return rows[:, None, None, None].expand(num, 1, 4, 4).contiguous()


def save_plane(folder: Path, rows: int, columns: int, metadata: dict[str, str]) -> None:
    """Write a plane whose images are of one level each: 0, 1, 2, 3, 0, ... row by row."""
    images = levels(0, 1, 2, 3, num=rows * columns).unflatten(0, (rows, columns))
    save_file({"images": images}, folder / "latents.safetensors", metadata=metadata)


def a_study(folder: Path, name: str = HOSTILE):
    folder.mkdir()
    save_plane(folder, 3, 2, {"about": HOSTILE})
    other = folder.with_name(f"{folder.name}-other")
    other.mkdir()
    save_plane(other, 3, 3, {})
    samples = {"1/8": levels(0, 1, 2), "1": levels(3, 2, 1), "raw": levels(0)}
    vae = contestant("vae", "vae", samples=samples, path=folder)
    gan = contestant("gan", "gan", samples={"1": levels(1)}, path=other)
    found = study({vae: {"fd_ratio": number(0.1, 0.2, 0.3)}, gan: {"recall": number(0.25)}})
    return replace(found, grid=replace(GRID_4X4, name=name))


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[int, dict]:
    if CHROMIUM is None:
        pytest.skip("needs the system program chromium, which is not installed")
    folder = tmp_path_factory.mktemp("browser")
    page = write_page(folder, a_study(folder / "vae"), levels(2), 10, about="few & small").read_text(encoding="utf-8")
    frames = [f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS]
    path = folder / "frames.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{''.join(frames)}<script>{MEASURE}</script>", encoding="utf-8")
    return dict(zip(WIDTHS, measured(folder, path), strict=True))


def measured(folder: Path, path: Path, attempts: int = 4) -> list[dict]:
    """Return what the page's script found. On a busy machine virtual time can run out before a picture is decoded: try again."""
    for attempt in range(attempts):
        command = [CHROMIUM, *SWITCHES, f"--user-data-dir={folder / f'profile-{attempt}'}", f"file://{path}"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        if found := re.search(r"<body>(\[.*\])</body>", output, re.S):
            return json.loads(html.unescape(found.group(1)))
    raise AssertionError(f"the page's script did not end in {attempts} attempts")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_shows_the_pixels_of_each_share_of_the_budget(pages, width):
    page = pages[width]
    assert page["models"] == ["vae", "gan", "real"]
    assert page["first"] == {"name": "after all of the budget", "tiles": [255, 170, 85, 255]}
    assert page["moved"] == {"name": "after 1/8 of the budget", "tiles": [0, 85, 170, 0]}


def test_another_model_brings_its_own_figures(pages):
    page = pages[1000]
    assert page["facts"] == "distance (0 real, 1 pixels)0.20\u00a0±\u00a00.25"
    assert page["other"] == {"name": "after all of the budget", "facts": "recall0.25"}


@pytest.mark.parametrize("width", WIDTHS)
def test_two_sliders_move_every_model_that_brings_a_plane_to_the_same_place(pages, width):
    page = pages[width]
    assert page["hidden"] is False
    # Top left, bottom left, bottom right. Planes of 3x2 and 3x3: images 0, 4, 5 and 0, 6, 8, of levels 0, 0, 1 and 0, 2, 0 of 3.
    assert page["corner"] == [[0, 0], [0, 170], [85, 0]]
    assert page["named"] == ["vae: image 3 of 3 down, 2 of 2 across", "gan: image 3 of 3 down, 3 of 3 across"]
    assert set(page["labels"]) == {1}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_on_a_plane_goes_to_that_image_in_all_of_them(pages, width):
    assert pages[width]["clicked"] == {"places": ["0", "0"], "shown": [0, 0]}


def test_what_a_model_says_of_its_plane_stays_text_and_may_be_missing(pages):
    assert pages[1000]["about"] == [HOSTILE, ""]


def test_no_text_of_a_file_can_end_the_script_that_holds_it(tmp_path):
    page = write_page(tmp_path, a_study(tmp_path / "vae"), levels(2), 10, about="few & small").read_text(encoding="utf-8")
    assert page.count("</script>") == 2  # of the data and of the page's own script
    assert "\\u003cimg src=x onerror" in page


def test_without_a_plane_the_section_stays_hidden(tmp_path):
    found = a_study(tmp_path / "vae")
    for path in tmp_path.glob("*/latents.safetensors"):
        path.unlink()
    assert '"latents":' not in write_page(tmp_path, found, levels(2), 10, about="few & small").read_text(encoding="utf-8")


def test_a_hostile_name_stays_text_and_no_other_script_runs(pages):
    for page in pages.values():
        assert page["title"] == page["heading"] == f"Image models side by side: {HOSTILE}"
        assert page["outside"] == 0
        assert page["broken"] == ["script-src-elem"]  # the script that the test put in


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(pages, width):
    assert pages[width]["needed"] == pages[width]["width"] <= width


def test_equal_studies_give_equal_pages(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, a_study(tmp_path / name / "vae"), levels(2), 10, about="few & small")
    assert (tmp_path / "a/explorer.html").read_bytes() == (tmp_path / "b/explorer.html").read_bytes()


@pytest.mark.parametrize("latents", [torch.zeros(2, 2, 1, 4, 5, dtype=torch.uint8), torch.zeros(2, 2, 1, 4, 4), torch.zeros(4)])
def test_a_plane_of_latents_that_does_not_fit_is_refused_by_name(tmp_path, latents):
    found = a_study(tmp_path / "vae")
    save_file({"images": latents}, tmp_path / "vae/latents.safetensors")
    with pytest.raises(DataError, match=r"vae: latents\.safetensors must hold 'images', uint8 \(A, B\) of \(1, 4, 4\)"):
        write_page(tmp_path, found, levels(2), 10, about="few & small")
