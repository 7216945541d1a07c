"""What a pull says when it is done: what came, from where, what was checked, and what that does not prove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.common.release.fetch import Fetched
from stages.common.release.layout import RECIPE, Manifest, load_provenance
from stages.common.release.model_checks import ADAPTER_CONFIG, CONFIG, PIPELINE_INDEX, adapter_base


def describe(fetched: Fetched) -> str:
    """Return the lines for the terminal."""
    kind = "datasets/" if _is_data(fetched) else ""
    lines = [f"{fetched.folder}", f"  from      hub:{kind}{fetched.repo}@{fetched.commit}"]
    if fetched.manifest is not None:
        lines += [*_published(fetched.folder, fetched.manifest), *_left_out(fetched)]
    else:
        lines += _plain(fetched)
    lines.append("  executed  nothing that came was run" + ("; its recipe is a text" if _has(fetched, RECIPE) else ""))
    return "\n".join([*lines, *_next(fetched), ""])


def printable(text: str) -> str:
    """Return text of others as one line that cannot steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _published(folder: Path, manifest: Manifest) -> list[str]:
    records = load_provenance(folder)
    made = ", ".join(f"{record.stage.removeprefix('stages.')} {record.fingerprint[:8]}" for record in records.values())
    size = sum(entry.bytes for entry in manifest.files.values())
    kind = "data set" if manifest.repo_type == "dataset" else "model"
    return [
        printable(f"  is        a {kind} published by Groundup: {manifest.part} of {manifest.stage} {manifest.artifact[:8]}"),
        f"  files     {len(manifest.files)}, {size / 2**20:.1f} MiB, each with the sha256 of the manifest",
        printable(f"  records   {len(records)}, consistent: {made}"),
        "  trust     the records are not signed: they show damage and mistakes, not who wrote them. The commit pins what you got",
    ]


def _plain(fetched: Fetched) -> list[str]:
    lines = ["  is        a plain Hub model: Groundup did not publish it, so nothing says how it was made"]
    lines += _left_out(fetched)
    lines.append("  checked   types of files, weights, config and tokenizer; it asks for no code of its own. The commit pins it")
    return lines


def _left_out(fetched: Fetched) -> list[str]:
    return [printable(f"  left out  {name}: {reason}") for name, reason in fetched.left_out.items()]


def _next(fetched: Fetched) -> list[str]:
    """Say what can be done with it."""
    folder = fetched.folder
    if _is_data(fetched):
        texts = fetched.manifest is not None and fetched.manifest.produces == "corpus"
        return [f"  next      in a recipe, as the text of a corpus (which splits it anew): files: {folder}/data"] if texts else []
    if _has(fetched, ADAPTER_CONFIG):
        return [printable(f"  next      it is an adapter for {adapter_base(folder)}; groundup chat {folder} --base FOLDER")]
    if not _has(fetched, CONFIG) or _has(fetched, PIPELINE_INDEX) or not _is_causal_lm(folder):
        return []
    return [
        f"  next      groundup chat {folder}",
        f"            in a recipe, as the base of a fine-tuning: base: {folder}, or base: hub:{fetched.repo}@{fetched.commit}",
    ]


def _is_causal_lm(folder: Path) -> bool:
    values: Any = json.loads((folder / CONFIG).read_bytes())
    architectures = values.get("architectures") if isinstance(values, dict) else None
    names = architectures if isinstance(architectures, list) else []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _is_data(fetched: Fetched) -> bool:
    return fetched.manifest is not None and fetched.manifest.repo_type == "dataset"


def _has(fetched: Fetched, name: str) -> bool:
    return (fetched.folder / name).exists()
