"""One number that a folder gives when it is loaded in a clean process, and its memory `probe.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import Damaged
from stages.common.release.probe import PROBE, TEXTS, Measured, Probe, load_probe, measure
from tests.hub.publishing import write_folder


def test_a_probe_is_written_read_and_agrees_with_a_new_measurement(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    texts = ["The fox", "The"]
    measured = measure(folder, "tokenizer", repo="me/one", texts=texts)
    assert measured == Measured(metric="tokens_per_byte", value=3 / 10, n=10)
    written = Probe(**measured.model_dump(), texts=texts)
    written.save(folder)
    assert load_probe(folder) == written
    assert measure(folder, "tokenizer", repo="me/one").agrees(written)  # on the texts of the probe
    assert not measure(folder, "tokenizer", repo="me/one", texts=list(TEXTS)).agrees(written)


@pytest.mark.parametrize("other", [{"value": 2.001}, {"n": 4}, {"metric": "m"}])
def test_measurements_agree_up_to_rounding_and_no_further(other: dict[str, object]) -> None:
    one = Measured(metric="bits_per_byte", value=2.0, n=3)
    assert one.agrees(one.model_copy(update={"value": 2.0001}))
    assert not one.agrees(one.model_copy(update=other))


def test_a_probe_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    assert load_probe(tmp_path) is None
    (tmp_path / PROBE).write_text('{"format": 2}')
    with pytest.raises(Damaged, match=r"probe.json cannot be read"):
        load_probe(tmp_path)


def test_a_folder_that_does_not_load_is_damage(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(Damaged, match="it does not load in a clean process"):
        measure(folder, "tokenizer", repo="me/one")


CARD = """---
license: mit
---
```python
import torch
from stages.common.release.layout import MANIFEST

images = torch.full((2, 3), float(len(open("me/one/size.txt").read()) + len(MANIFEST)))
```
"""


@pytest.mark.slow
def test_the_code_of_the_card_runs_on_the_folder_and_sees_groundup_only_when_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "size.txt").write_text("12345")
    card = tmp_path / "README.md"
    card.write_text(CARD)
    assert measure(tmp_path, "model", repo="me/one") == Measured(metric="mean", value=18.0, n=6)
    card.write_text(CARD.replace("from stages.common.release.layout import MANIFEST", "import stages; MANIFEST = 1"))
    with pytest.raises(Damaged, match="No module named 'stages'"):
        measure(tmp_path, "model", repo="me/one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import socket, torch; socket.create_connection(('127.0.0.1', 9))", "must load without a network"),
        ("import os, torch; x = torch.ones(2) * len(os.environ['HF_TOKEN'])", "HF_TOKEN"),
        ("x = 1", "makes no tensor"),
    ],
)
def test_the_clean_process_has_no_network_and_no_token(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    (tmp_path / "README.md").write_text(f"```python\n{code}\n```\n")
    with pytest.raises(Damaged, match=message):
        measure(tmp_path, "model", repo="me/one")


def test_what_is_kept_is_plain(tmp_path: Path) -> None:
    Probe(metric="tokens_per_byte", value=1.0, n=3, texts=["The"]).save(tmp_path)
    assert json.loads((tmp_path / PROBE).read_text()).keys() == {"format", "metric", "value", "n", "texts"}
