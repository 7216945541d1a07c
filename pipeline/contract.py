"""All that a stage may use of the engine (with `pipeline.artifact` and `pipeline.errors`).

A stage is a package: `config.py` holds `class Config(StageConfig)`, `run.py` holds `def run(config, context) -> None`,
`__main__.py` calls `stage_main(__package__)`, so that `python -m stages.text.tokenizer --help` works.
"""

from __future__ import annotations

from pipeline.cards import Card, load_card
from pipeline.config import Input, StageConfig
from pipeline.context import Context
from pipeline.durable import fsync_directory, fsync_tree, sha256_file, write_bytes, write_json
from pipeline.events import Event, EventLog, read_events
from pipeline.section import Section
from pipeline.sources import CardUse, Fact, HubRepo, LocalFiles, Source, expand

__all__ = [
    "Card",
    "CardUse",
    "Context",
    "Event",
    "EventLog",
    "Fact",
    "HubRepo",
    "Input",
    "LocalFiles",
    "Section",
    "Source",
    "StageConfig",
    "expand",
    "fsync_directory",
    "fsync_tree",
    "load_card",
    "read_events",
    "sha256_file",
    "stage_main",
    "write_bytes",
    "write_json",
]


def stage_main(package: str) -> None:
    """Run one stage from the command line, its config keys as flags."""
    from pipeline.cli.one_stage import main

    main(package)
