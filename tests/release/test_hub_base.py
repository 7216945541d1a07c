"""A published model as the base of a recipe: pinned by commit, fetched once, its records carried on; and what is no base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import constants
from transformers import AutoTokenizer

from pipeline.artifact import Artifact
from pipeline.durable import write_json
from pipeline.errors import DataError
from pipeline.fingerprint import _commit
from pipeline.sources import HubRepo
from stages.common.lora import read_base_identity
from stages.common.release.fetch import inconsistencies, remember_revision
from stages.common.release.layout import Manifest
from stages.release.publish.assemble import assemble
from stages.text.finetune.base import open_base
from stages.text.finetune.config import Config
from tests.harness import make_context
from tests.hub.server import HubServer
from tests.release.published import published, put
from tests.text.tiny_bases import TINY, save_base, tiny_model

TEXTS = [f"ROMEO. But soft, what light number {index} through yonder window breaks? It is the east.\n" * 3 for index in range(60)]


def groundup(hub: HubServer, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(
        command, cwd=where, env=hub.environment("hf_ada"), capture_output=True, text=True, timeout=280, check=False
    )


def write_recipe(where: Path, base: str) -> None:
    (where / "texts").mkdir(parents=True)
    for index, text in enumerate(TEXTS):
        (where / "texts" / f"{index}.txt").write_text(text)
    values = {key: value for key, value in TINY.items() if key != "seed"}
    corpus = {"stage": "stages.text.corpus", "files": ["texts"], "license": "cc-by-4.0", "validation_fraction": 0.2}
    corpus["test_fraction"] = 0.2
    finetune = {"stage": "stages.text.finetune", "needs": {"corpus": "corpus"}, "base": base, **values}
    (where / "recipe.yaml").write_text(
        yaml.safe_dump({"name": "borrowed", "seed": 3, "stages": {"corpus": corpus, "finetune": finetune}})
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A recipe that fine-tuned a private model of the stand-in Hub, once."""
    root = tmp_path_factory.mktemp("hub-base")
    hub = HubServer(root / "hub")
    hub.state.add_user("hf_ada", "ada")
    folder, record = published(root / "made", model=save_base(root / "base"))
    commit = put(hub, "ada/base", folder, private=True)
    where = root / "here"
    write_recipe(where, "hub:ada/base")
    done = groundup(hub, where, "run", "recipe.yaml")
    asked = hub.faults.count("/(revision|tree|resolve)/main")
    yield SimpleNamespace(asked=asked, hub=hub, root=root, where=where, commit=commit, record=record, folder=folder, done=done)
    hub.close()


@pytest.mark.slow
def test_a_recipe_fine_tunes_a_published_base_and_its_fingerprint_holds_the_commit(run):
    assert run.done.returncode == 0, run.done.stdout + run.done.stderr
    artifact = Artifact.open((run.where / "runs" / "borrowed" / "finetune").resolve())
    assert artifact.record.identity["sources"] == [{"hub": "ada/base", "type": "model", "commit": run.commit}]
    assert run.asked == 1  # by the plan: had the branch moved since, the stage would still take the commit of the fingerprint
    identity = read_base_identity(artifact / "adapter")
    assert (identity.name, identity.revision, identity.artifact) == ("ada/base", run.commit, run.record.fingerprint)


@pytest.mark.slow
def test_the_records_of_the_base_lie_in_the_artifact_and_its_report_shows_them(run):
    artifact = Artifact.open((run.where / "runs" / "borrowed" / "finetune").resolve())
    names = sorted(path.name for path in (run.folder / "provenance").iterdir())
    assert [name for name in sorted(artifact.record.files) if name.startswith("base/provenance/")] == [
        f"base/provenance/{name}" for name in names
    ]
    for name in names:
        assert (artifact / "base" / "provenance" / name).read_bytes() == (run.folder / "provenance" / name).read_bytes()
    section = (artifact / "section.json").read_text()
    assert "Where the base came from" in section
    assert run.record.fingerprint[:8] in section


@pytest.mark.slow
def test_what_was_made_from_it_is_published_with_its_records_and_can_be_pulled(run, tmp_path):
    artifact = Artifact.open((run.where / "runs" / "borrowed" / "finetune").resolve())
    made = assemble(artifact, "merged", "ada/next", tmp_path / "next").folder
    assert inconsistencies(made, Manifest.load(made)) == []
    assert {path.name for path in (run.folder / "provenance").iterdir()} < {path.name for path in (made / "provenance").iterdir()}
    put(run.hub, "ada/next", made)
    done = groundup(run.hub, tmp_path, "pull", "ada/next")
    assert done.returncode == 0, done.stderr
    assert run.record.fingerprint[:8] in done.stdout


@pytest.mark.slow
def test_with_nothing_changed_nothing_runs_with_or_without_a_network(run):
    for words in (["plan", "recipe.yaml", "--json"], ["plan", "recipe.yaml", "--json", "--offline"]):
        done = groundup(run.hub, run.where, *words)
        assert done.returncode == 0, done.stderr
        assert '"run"' not in done.stdout


@pytest.mark.slow
def test_offline_another_training_takes_the_base_from_the_cache(run):
    before = len(run.hub.faults.log)
    done = groundup(run.hub, run.where, "run", "recipe.yaml", "--offline", "stages.finetune.num_steps=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [entry.line for entry in run.hub.faults.log[before:]] == []


@pytest.mark.slow
def test_a_branch_that_moved_is_named_by_plan_with_both_commits(run):
    moved = put(run.hub, "ada/base", run.folder)
    try:
        done = groundup(run.hub, run.where, "plan", "recipe.yaml")
        pinned = groundup(run.hub, run.where, "plan", "recipe.yaml", f"stages.finetune.base=hub:ada/base@{run.commit}")
    finally:
        run.hub.state.repositories["model", "ada/base"].branches["main"] = run.commit
    assert done.returncode == 0, done.stderr
    assert f'commit: "{run.commit}" -> "{moved}"' in done.stdout
    assert moved not in pinned.stdout


@pytest.mark.slow
def test_offline_a_revision_that_was_never_fetched_is_refused_with_what_to_do(hub, tmp_path):
    put(hub, "ada/base", save_base(tmp_path / "base"))
    write_recipe(tmp_path / "here", "hub:ada/base")
    done = groundup(hub, tmp_path / "here", "plan", "recipe.yaml", "--offline")
    assert done.returncode == 2
    assert "pin a full commit (40 hex digits), or run once without --offline" in done.stderr
    assert hub.faults.log == []


def test_a_private_base_without_a_login_is_refused_with_what_to_do(hub, tmp_path, monkeypatch):
    put(hub, "ada/base", save_base(tmp_path / "base"), private=True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(DataError, match="log in with `hf auth login` if it is private"):
        _commit(HubRepo("ada/base"), offline=False)


# ---- what is no base


def opened(folder: Path, tmp_path: Path):
    return open_base(Config.parse({"base": str(folder)}, where="finetune"), make_context(tmp_path / "out"))


def test_a_stage_takes_the_commit_of_its_fingerprint_though_the_branch_has_moved(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    pinned, moved = "a" * 40, "b" * 40
    for commit in (pinned, moved):
        save_base(tmp_path / "cache" / "models--ada--base" / "snapshots" / commit)
    remember_revision("ada/base", "main", moved)
    facts = {"sources": [{"hub": "ada/base", "type": "model", "commit": pinned}]}
    config = Config.parse({"base": "hub:ada/base"}, where="finetune")
    base = open_base(config, make_context(tmp_path / "out", offline=True, facts=facts))
    assert (base.identity.revision, base.folder.name) == (pinned, pinned)


def test_an_adapter_a_model_with_its_own_code_and_one_with_another_tokenizer_are_refused_by_name(tmp_path):
    folder = save_base(tmp_path / "base")
    assert opened(folder, tmp_path).identity.name == "folder:base"
    config = json.loads((folder / "config.json").read_bytes())
    write_json(folder / "config.json", config | {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}})
    with pytest.raises(DataError, match=r"config.json asks for code of its own \('auto_map'\)"):
        opened(folder, tmp_path)
    write_json(folder / "config.json", config | {"vocab_size": 100})
    with pytest.raises(DataError, match="the tokenizer has ids up to 256, the model has rows for 100"):
        opened(folder, tmp_path)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "ada/base"})
    with pytest.raises(DataError, match="it is a LoRA adapter for ada/base"):
        opened(folder, tmp_path)


def test_a_published_base_that_was_changed_by_hand_is_refused(tmp_path):
    folder, record = published(tmp_path / "made", model=save_base(tmp_path / "base"))
    base = opened(folder, tmp_path)
    assert base.identity.artifact == record.fingerprint
    assert len(base.records) == 3
    (folder / "metrics.json").write_text("[1]")
    with pytest.raises(DataError, match=r"metrics.json was changed"):
        opened(folder, tmp_path)


def test_a_tokenizer_without_a_padding_token_is_no_hindrance(tmp_path):
    folder = save_base(tmp_path / "base", tiny_model())
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    opened(folder, tmp_path)
