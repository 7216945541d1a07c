"""Proof that a stranger can load what is published: in a clean process, with stock libraries, without a network."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.errors import Damaged, GroundupError
from stages.common.release.clean_process import TIMEOUT_SECONDS, ask
from stages.common.release.clean_room import rows_digest
from stages.common.release.layout import published_files
from stages.common.release.probe import Probe, measure, measuring
from stages.common.reload import PARITY_TOLERANCE, logits_difference, logits_of
from stages.release.publish.assemble import Assembled
from stages.release.publish.probe_images import against_stage
from stages.release.publish.probe_rows import ProbeRows

TEXTS = ["", "The quick brown fox jumps over 13 lazy dogs.", "  tabs\tand\nlines ", "Zoë, 東京 and 🙂"]
_LOOKS = {"causal_lm": "logits", "adapter": "logits", "tokenizer": "encodings", "text": "rows", "images": "rows"}
"""How what loads in one way is looked at, beside its card; see `clean_room`."""
_PROBE = "model_probe.json"
"""Input ids, and the logits that training had for them."""


@dataclass(frozen=True)
class Evidence:
    """What the clean process showed.

    Attributes:
        shown: sentences for the user.
        problems: what was wrong, one sentence each.
        probe: one figure that is measured again after upload; None for data.
    """

    shown: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    probe: Probe | None = None


def prove(assembled: Assembled, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Evidence:
    """Run the code of the card and load the published files in a clean process; compare with the artifact, measure a number."""
    try:
        base = base_folder(assembled)
        before = published_files(assembled.folder)
        with tempfile.TemporaryDirectory(prefix="groundup-") as temporary:
            folder = Path(temporary)
            tasks = _tasks(assembled, folder, base)
            groundup = assembled.usage.needs_groundup
            found = ask(folder, list(tasks.values()), groundup=groundup, timeout_seconds=timeout_seconds)
            answers = dict(zip(tasks, found.answers, strict=True))
            shown, problems = _judge(assembled, answers, folder, base, without_groundup=found.without_groundup)
        probe = _probe(assembled, answers, shown, problems)
        if published_files(assembled.folder) != before:
            problems.append("loading it changed files of the folder")
    except Damaged as damage:
        return Evidence(problems=(str(damage),))
    except GroundupError as error:
        return Evidence(problems=(f"it could not be tried in a clean process: {error}",))
    return Evidence(tuple(shown), tuple(problems), probe)


def base_folder(assembled: Assembled) -> Path | None:
    """Return the folder of the base under an adapter.

    Raises:
        GroundupError: it is not here.
    """
    if assembled.selection.loader != "adapter":
        return None
    from stages.common.causal_lm import model_folder

    bases = assembled.lineage.inputs(assembled.lineage.artifact, "base")
    if bases:
        return model_folder(bases[0])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    identity = json.loads((assembled.folder / "groundup_base.json").read_bytes())
    try:
        return Path(snapshot_download(identity["name"], revision=identity["revision"], local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        raise GroundupError(
            f"the base of the adapter ({identity['name']}) is neither in the store nor in the Hub's cache"
        ) from None


def _tasks(assembled: Assembled, folder: Path, base: Path | None) -> dict[str, dict[str, Any]]:
    """Prepare the rooms and return what the process is asked, by what it is."""
    usage, selection = assembled.usage, assembled.selection
    rooms = {"published": assembled.folder}
    if usage.result:
        rooms["artifact"] = assembled.lineage.artifact.path / selection.kind.folder
    for room, source in rooms.items():
        links = {assembled.repo: source} | ({str(assembled.base_repo): base} if base else {})
        for repo, target in links.items():
            link = folder / room / repo
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target.resolve())
    tasks: dict[str, dict[str, Any]] = {"card": {"do": "card", "rooms": list(rooms), "code": usage.code, "result": usage.result}}
    if look := _LOOKS.get(selection.loader):
        facts = {"repo": assembled.repo, "base": assembled.base_repo if base else None}
        tasks["look"] = {"do": look, "texts": TEXTS, "threads": torch.get_num_threads()} | facts
    if look == "logits":
        save_file({"input_ids": _input_ids(assembled, base)}, folder / "input.safetensors")
    if isinstance(assembled.probe, ProbeRows):
        texts = list(assembled.probe.texts)
        tasks["measure"] = measuring(assembled.folder, selection.kind.part, repo=assembled.repo, texts=texts, base=base)
    return tasks


def _probe(assembled: Assembled, answers: dict[str, dict[str, Any]], shown: list[str], problems: list[str]) -> Probe | None:
    """Return the figure to keep, and add what it says to `shown` or `problems`; images are measured in a process of their own,
    because the first must not see Groundup where others load without it."""
    probe = assembled.probe
    if probe is None:
        return None
    if isinstance(probe, ProbeRows):
        found = Probe(**answers["measure"], texts=list(probe.texts))
    else:
        measured = measure(assembled.folder, assembled.selection.kind.part, repo=assembled.repo)
        sentence, agree = against_stage(assembled.lineage.artifact, measured, probe)
        (shown if agree else problems).append(sentence)
        found = Probe(**measured.model_dump(), texts=[])
    shown.append(probe.sentence())
    return found


def _judge(
    assembled: Assembled, answers: dict[str, dict[str, Any]], folder: Path, base: Path | None, *, without_groundup: bool
) -> tuple[list[str], list[str]]:
    company = "stock libraries, no Groundup on the path" if without_groundup else "Groundup for its own classes"
    shown = [f"the code of the card ran in a clean process without network ({company})"]
    problems = []
    if assembled.usage.result:
        made, found = assembled.usage.result, answers["card"]
        if found["equal"]:
            shown.append(f"{made} {tuple(found['shape'])} equal the artifact's bit by bit, from the same seed")
        else:
            problems.append(f"the {made} that the card's code makes differ from the artifact's")
    if "look" in answers:
        judge = {"logits": _judge_logits, "encodings": _judge_encodings, "rows": _judge_rows}
        said, wrong = judge[_LOOKS[assembled.selection.loader]](assembled, answers["look"], folder, base)
        shown += said
        problems += wrong
    return shown, problems


def _judge_logits(assembled: Assembled, answer: dict[str, Any], folder: Path, base: Path | None) -> tuple[list[str], list[str]]:
    found = load_file(folder / "logits.safetensors")["logits"]
    expected = _artifact_logits(assembled, load_file(folder / "input.safetensors")["input_ids"], base)
    compared = {"the artifact's": logits_difference(expected, found)}
    if (trained := _trained_logits(assembled)) is not None:
        compared["those of training"] = logits_difference(trained, found[:, -1])
    shown: list[str] = []
    problems: list[str] = []
    for whose, difference in compared.items():
        sentence = f"logits differ from {whose} by {difference:.2g} of their spread"
        (shown if difference <= PARITY_TOLERANCE else problems).append(f"{sentence} (at most {PARITY_TOLERANCE:g} is rounding)")
    if answer["num_generated"] == 8:
        shown.append(f"{answer['class']} generated 8 tokens: {answer['generated']!r}")
    else:
        problems.append(f"it was asked for 8 tokens and generated {answer['num_generated']}")
    return shown, problems


def _judge_encodings(
    assembled: Assembled,
    answer: dict[str, Any],
    folder: Path,  # noqa: ARG001  # all judges are called alike
    base: Path | None,  # noqa: ARG001
) -> tuple[list[str], list[str]]:
    from stages.common.causal_lm import load_tokenizer

    own = load_tokenizer(assembled.lineage.artifact / assembled.selection.kind.folder)
    if answer["encodings"] == [own(text).input_ids for text in TEXTS]:
        return [f"{answer['class']} encodes {len(TEXTS)} texts as the artifact's does"], []
    return [], ["the published tokenizer encodes other than the artifact's"]


def _judge_rows(
    assembled: Assembled,
    answer: dict[str, Any],
    folder: Path,  # noqa: ARG001
    base: Path | None,  # noqa: ARG001
) -> tuple[list[str], list[str]]:
    from stages.common.corpus_io import SPLITS
    from stages.release.publish.data_form import published_rows

    own = {split: rows_digest(published_rows(assembled.lineage.artifact, split)) for split in SPLITS}
    if answer["rows"] == own:
        return [
            f"load_dataset reads every row as it is in the artifact ({', '.join(f'{k} {v[0]:,}' for k, v in own.items())})"
        ], []
    return [], ["load_dataset reads other rows than the artifact holds"]


def _input_ids(assembled: Assembled, base: Path | None) -> Tensor:
    """The ids that training left logits for, or some that are spread over the vocabulary, int64 (1, L)."""
    path = assembled.lineage.artifact / _PROBE
    if path.is_file():
        return torch.tensor(json.loads(path.read_bytes())["input_ids"])
    config = json.loads(((base or assembled.folder) / "config.json").read_bytes())
    length = min(16, int(config.get("max_position_embeddings") or config.get("n_positions") or 16) - 8)
    return torch.arange(1, 1 + max(length, 1)).unsqueeze(0) * 7919 % int(config["vocab_size"])


def _artifact_logits(assembled: Assembled, input_ids: Tensor, base: Path | None) -> Tensor:
    from stages.common.causal_lm import load_causal_lm

    folder = _part_folder(assembled.lineage.artifact, assembled)
    if base is None:
        return logits_of(load_causal_lm(folder), input_ids)
    from stages.common.lora import load_adapter

    return logits_of(load_adapter(base, folder), input_ids)


def _part_folder(artifact: Artifact, assembled: Assembled) -> Path:
    return artifact / assembled.selection.kind.folder


def _trained_logits(assembled: Assembled) -> Tensor | None:
    path = assembled.lineage.artifact / _PROBE
    return torch.tensor(json.loads(path.read_bytes())["last_logits"]) if path.is_file() else None
