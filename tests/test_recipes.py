"""Every recipe that the repository offers can be opened, and the stages that may run as several processes are known."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from pipeline.cli.listings import field_sentences
from pipeline.cli.listings import stages as list_stages
from pipeline.graph import build_graph, config_class
from pipeline.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
STAGES = [".".join(path.parent.relative_to(ROOT).parts) for path in sorted((ROOT / "stages").glob("*/*/run.py"))]
SHARED = {
    *(f"stages.text.{name}" for name in ("pretrain", "finetune")),
    *(f"stages.image.{name}" for name in ("vae", "gan", "flow", "flow_matching", "diffusion", "classifier", "discriminative")),
}
"""Stages that train through an Accelerator; every other one would be run once by each process."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_the_repository_can_be_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    nodes = build_graph(load_recipe(path))
    assert {node.stage.partition(".")[0] for node in nodes.values()} == {"stages"}


def test_every_stage_is_listed_with_what_each_of_its_parameters_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert list_stages(Namespace()) == 0
    listed = capsys.readouterr().out
    for stage in STAGES:
        assert f"{stage}  makes " in listed
    assert "stages.common" not in listed
    for stage in STAGES:
        config = config_class(stage, stage)
        assert config.model_fields.keys() - field_sentences(config).keys() == set(), stage


def test_exactly_the_stages_that_train_share_their_work() -> None:
    assert len(STAGES) >= 15
    assert {stage for stage in STAGES if config_class(stage, stage).shares_work} == SHARED
