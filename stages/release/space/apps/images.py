"""A page that draws images: a grid of samples, and, where the family has latents, sliders that walk among them.

The model comes from the repository and commit in `settings.json`; MODEL_FOLDER names a folder on this machine instead.
Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gradio as gr  # type: ignore[import-not-found, unused-ignore]
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from sampler import Sampler  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor

SETTINGS = json.loads(Path(__file__).with_name("settings.json").read_text(encoding="utf-8"))
TILE = 96
"""Least side of an image on the page, pixels."""
COLUMNS = 4
NUM_SLIDERS = 4
REACH = 3.0
"""How far a slider goes to either side, in standard deviations of the latents."""
_DATA = ["*.json", "*.safetensors"]


def model_folder() -> Path:
    """Return the folder with the model: data only, nothing of the repository is executed."""
    own = os.environ.get("MODEL_FOLDER")
    return Path(own or snapshot_download(SETTINGS["model_repo"], revision=SETTINGS["revision"], allow_patterns=_DATA))


sampler = Sampler(model_folder(), SETTINGS)


@torch.no_grad()
def samples(number: float, seed: float) -> Image.Image:
    """Return one picture of `number` samples."""
    return picture(sampler.sample(int(number), torch.Generator().manual_seed(int(seed))))


@torch.no_grad()
def walk(first: float, last: float, place: float, *offsets: float) -> Image.Image:
    """Return the image at `place`, 0 to 1, on the way between the latents of two seeds, moved by the sliders."""
    ends = [sampler.latents(1, torch.Generator().manual_seed(int(seed))) for seed in (first, last)]
    latents = between(ends[0], ends[1], place)
    flat = latents.flatten(1).clone()
    for unit, offset in zip(UNITS, offsets, strict=True):
        flat[:, unit] += offset
    return picture(sampler.images(flat.reshape(latents.shape)))


def between(first: Tensor, last: Tensor, place: float) -> Tensor:
    """Go along the arc from one normal draw to another: a straight line would pass where hardly any draw lies."""
    angle = torch.tensor(place * torch.pi / 2)
    return torch.cos(angle) * first + torch.sin(angle) * last


@torch.no_grad()
def telling_units() -> list[int]:
    """Return the latent units that change the image most where each is moved by one standard deviation."""
    latents = sampler.latents(8, torch.Generator().manual_seed(0))
    before, effects = sampler.images(latents).float(), []
    flat = latents.flatten(1)
    for unit in range(flat.shape[1]):
        moved = flat.clone()
        moved[:, unit] += 1
        effects.append(float((sampler.images(moved.reshape(latents.shape)).float() - before).abs().mean()))
    return sorted(range(len(effects)), key=lambda unit: -effects[unit])[:NUM_SLIDERS]


def picture(images: Tensor) -> Image.Image:
    """Return uint8 (N, C, H, W) in levels as one picture, each image enlarged by a whole factor."""
    factor = max(1, -(-TILE // images.shape[3]))
    values = (images.float() * (255 / (SETTINGS["levels"] - 1))).round().to(torch.uint8)
    values = values.expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    columns = min(COLUMNS, len(values))
    rows = -(-len(values) // columns)
    height, width = values.shape[2] + factor, values.shape[3] + factor
    page = torch.full((3, rows * height - factor, columns * width - factor), 255, dtype=torch.uint8)
    for index, value in enumerate(values):
        top, left = index // columns * height, index % columns * width
        page[:, top : top + value.shape[1], left : left + value.shape[2]] = value
    return Image.fromarray(page.permute(1, 2, 0).numpy())


UNITS = telling_units() if sampler.has_latents and sampler.has_units else []


def build() -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(title=SETTINGS["title"], analytics_enabled=False) as page:
        gr.Markdown(f"# {SETTINGS['title']}\n\n{SETTINGS['about']}")
        with gr.Tab("Samples"):
            with gr.Row():
                number = gr.Slider(1, 32, value=16, step=1, label="Images")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed (same seed, same images)", elem_id="seed")
            drawn = gr.Image(label="Samples", format="png", elem_id="grid")
            gr.Button("Draw", variant="primary", elem_id="draw").click(samples, [number, seed], drawn, api_name="samples")
        if sampler.has_latents:
            with gr.Tab("Latents"):
                _walk_tab()
        page.load(samples, [number, seed], drawn)
    return page


def _walk_tab() -> None:
    with gr.Row():
        first = gr.Number(0, precision=0, minimum=0, label="Seed at the start")
        last = gr.Number(1, precision=0, minimum=0, label="Seed at the end")
    place: list[Any] = [gr.Slider(0, 1, value=0, step=0.02, label="Way from start to end", elem_id="place")]
    moves = [gr.Slider(-REACH, REACH, value=0, step=0.1, label=f"Latent {unit}", elem_id=f"unit-{unit}") for unit in UNITS]
    shown = gr.Image(label="Image", format="png", elem_id="walk")
    inputs = [first, last, *place, *moves]
    for part in inputs:
        part.change(walk, inputs, shown, show_progress="hidden", api_name=False)
    gr.Button("Show", elem_id="show").click(walk, inputs, shown, api_name="walk")


if __name__ == "__main__":
    build().queue(default_concurrency_limit=1).launch()
