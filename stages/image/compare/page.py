"""The interactive page: one HTML file with all that it shows, no source outside it, no text that could become markup.

Legend: N images, C channels, H height, W width, K levels; A x B points of a plane through a latent space.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from pipeline.contract import write_bytes
from pipeline.errors import DataError
from stages.common.images.grid import Grid
from stages.common.images.latent_plane import ABOUT, LATENTS
from stages.common.images.pictures import to_rgb
from stages.image.compare.models import RAW, SHARES, Contestant, Run
from stages.image.compare.study import COLUMNS, Study
from stages.image.compare.tables import cell

PAGE = "explorer.html"
ACROSS = 8
"""Images in a row of the page."""
SHOWN = ("fd_ratio", "bits_per_dim", "recall", "coverage", "laplacian_ratio", "nn_ratio", "latency_ms_per_image", "parameters")
_TEMPLATE, _STYLE, _SCRIPT = (
    Path(__file__).with_name(f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
)


def write_page(directory: Path, study: Study, real: Tensor, num_images: int, *, about: str) -> Path:
    """Write `explorer.html` into `directory`; real images, uint8 (N, C, H, W), stand beside the models'; `about` explains them.

    Raises:
        DataError: a model's plane of latents is not uint8 (A, B, C, H, W) on the images' grid.
    """
    grid = study.grid
    models = [_model(study, one, num_images) for one in study.contestants]
    models.append({"label": "real", "facts": [], "sheets": [_sheet(f"{study.split} images", real[:num_images], grid)]})
    data = {"height": grid.height, "width": grid.width, "columns": ACROSS, "models": models}
    parts = {
        "policy": html.escape(policy()),
        "title": html.escape(f"Image models side by side: {grid.name}"),
        "about": html.escape(about),
        "style": _STYLE,
        "script": _SCRIPT,
        # A "<" could end the script element that holds the data.
        "data": json.dumps(data).replace("<", "\\u003c"),
    }
    path = directory / PAGE
    write_bytes(path, re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _TEMPLATE).encode())
    return path


def policy() -> str:
    """Return the page's content security policy: embedded pictures, this one style sheet and this one script, nothing else."""
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT))
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _model(study: Study, one: Contestant, num_images: int) -> dict[str, Any]:
    run = next(iter(one.runs.values()))
    names = [*SHARES, RAW] if one.is_model else [one.sample_set]
    shares = {name: f"after {name} of the budget" for name in SHARES} | {
        "1": "after all of the budget",
        RAW: "last weights, not averaged",
    }
    sheets = [
        _sheet(shares.get(name, name), run.samples[name][:num_images], study.grid, shown=name == one.sample_set)
        for name in names
        if name in run.samples
    ]
    facts = [[COLUMNS[key].title, words] for key in SHOWN if (words := cell(study, one, key)) is not None]
    model = {"label": one.label, "facts": facts, "sheets": sheets}
    latents = _latents(run, study.grid) if one.is_model else None
    return model if latents is None else model | {"latents": latents}


def _sheet(name: str, images: Tensor, grid: Grid, *, shown: bool = True) -> dict[str, Any]:
    return {"name": name, "count": len(images), "shown": shown, "source": _data_uri(images, grid.levels, ACROSS)}


def _latents(run: Run, grid: Grid) -> dict[str, Any] | None:
    """Return the images over a plane of latents that a model may bring along, and what it says of them."""
    path = run.artifact.path / LATENTS
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        found = file.get_tensor("images") if "images" in file.keys() else None  # noqa: SIM118 - the file is no mapping
        about = (file.metadata() or {}).get(ABOUT, "")
    if (
        found is None
        or found.dtype != torch.uint8
        or found.ndim != 5
        or tuple(found.shape[2:]) != grid.shape
        or not found.numel()
    ):
        shape = None if found is None else tuple(found.shape)
        raise DataError(
            f"{run.artifact.record.name}: {LATENTS} must hold 'images', uint8 (A, B) of {grid.shape}, and holds "
            f"{shape}; run that stage again, or leave the file out"
        )
    rows, columns = found.shape[:2]
    source = _data_uri(found.flatten(0, 1), grid.levels, columns)
    return {"rows": rows, "columns": columns, "source": source, "about": about}


def _data_uri(images: Tensor, levels: int, across: int) -> str:
    """Return images, uint8 (N, C, H, W), as one PNG of `across` images in a row, without gaps, one pixel for each value."""
    shown = to_rgb(images, levels)
    rows = -(-len(shown) // across)
    height, width = shown.shape[1:3]
    canvas = Image.new("RGB", (across * width, rows * height))
    for index, image in enumerate(shown):
        canvas.paste(Image.fromarray(image), (index % across * width, index // across * height))
    stream = io.BytesIO()
    (canvas if images.shape[1] == 3 else canvas.convert("L")).save(stream, format="PNG", compress_level=9)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
