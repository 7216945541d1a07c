"""What a stage sees while it runs: its inputs, its directory, and how it reports.

In a stage with several processes every process has a Context; only the main process writes files, the others' calls to
`log`, `progress`, `metric` and `finish` count as heartbeats and write nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.artifact import CHECKPOINTS, Artifact
from pipeline.durable import write_json
from pipeline.errors import Interrupted, StageError
from pipeline.events import EventLog
from pipeline.section import Section

RESOLVED = "resolved.json"


class Context:
    """Everything that is not a stage's Config: inputs, output directory, processes, reporting.

    Attributes:
        directory: where the stage writes; becomes the artifact.
        process_index, num_processes: this process among those of the stage; `is_main` is true for index 0.
        threads: CPU threads that this process may use.
        offline: true when the user forbade the network.
        deterministic: true when the user wants algorithms that give the same bits each time, on a GPU too.
        facts: what the engine knows about this run; `sources` are those of the artifact's identity.
        section: the stage's part of the report.
        events: the event log (use `log` and `progress`; `events.rewind(step)` after a resume).
    """

    def __init__(
        self,
        directory: Path,
        inputs: Mapping[str, list[Artifact]],
        *,
        process_index: int = 0,
        num_processes: int = 1,
        threads: int = 1,
        offline: bool = False,
        deterministic: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self._inputs = inputs
        self.process_index = process_index
        self.num_processes = num_processes
        self.threads = threads
        self.offline = offline
        self.deterministic = deterministic
        self.facts = dict(facts or {})
        self.section = Section()
        self.events = EventLog(directory / "events.jsonl", silent=process_index != 0)
        self._metrics: list[dict[str, Any]] = []
        self._stop_signal = 0
        self._last_progress = 0.0
        self._counted: tuple[int, str] | None = None

    @property
    def is_main(self) -> bool:
        """True in the one process that writes."""
        return self.process_index == 0

    @property
    def checkpoints(self) -> Path:
        """Directory for the state to resume from: it survives a kill and is not part of the artifact."""
        path = self.directory / CHECKPOINTS
        path.mkdir(exist_ok=True)
        return path

    @property
    def figures(self) -> Path:
        """Directory for pictures (SVG or PNG)."""
        path = self.directory / "figures"
        path.mkdir(exist_ok=True)
        return path

    @property
    def samples(self) -> Path:
        """Directory for generated samples."""
        path = self.directory / "samples"
        path.mkdir(exist_ok=True)
        return path

    def input(self, role: str) -> Artifact:
        """Return the one artifact under `role`; raises KeyError for an optional role that the recipe left out."""
        (artifact,) = self._inputs[role]
        return artifact

    def inputs(self, role: str) -> list[Artifact]:
        """Return all artifacts under `role` (several when a matrix fills it, none when it was left out)."""
        return list(self._inputs.get(role, []))

    def hub_commit(self, repo: str) -> str | None:
        """Return the commit that this artifact's fingerprint holds for a repository of the Hub; None when it holds none.

        A branch may have moved since: a stage fetches this commit, never the branch.
        """
        for source in self.facts.get("sources", []):
            if source.get("hub") == repo:
                return str(source["commit"])
        return None

    def beat(self) -> None:
        """Say that this process is alive; needed only in work that neither logs nor reports progress for minutes."""
        path = self.directory / f".beat-{self.process_index}"
        try:
            os.utime(path)
        except FileNotFoundError:
            path.touch()

    def log(self, step: int, **values: float | str) -> None:
        """Record named values at `step` in the event log (`loss=2.5, learning_rate=0.01`)."""
        self.beat()
        self.events.append(step, values)

    def progress(self, step: int, total: int, *, unit: str = "step", **values: float | str) -> None:
        """Show how far the stage is; cheap to call often (at most five lines a second are written for what is counted)."""
        self.beat()
        now = time.monotonic()
        if self.is_main and (step >= total or now - self._last_progress > 0.2 or self._counted != (total, unit)):
            self._last_progress, self._counted = now, (total, unit)
            self.events.append(step, {"progress": step, "total": total, "unit": unit, **values})

    def phase(self, words: str) -> None:
        """Show what the stage does now where nothing can be counted, such as `saving the model`; `progress` takes over."""
        self.log(0, phase=words)
        self._counted = None

    def metric(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        higher_is_better: bool | None,
        n: int,
        split: str | None = None,
        **extra: Any,
    ) -> None:
        """Add one line to `metrics.json`.

        Args:
            name: a standard name, such as `bits_per_byte`.
            value: the figure.
            unit: its unit, such as `bit/byte`.
            higher_is_better: None when there is no better.
            n: how many items (documents, tokens, images; `extra` may say which) the figure stands on.
            split: the split it was measured on.
            extra: more facts, such as `interval=[low, high]`, `seeds=3`, `items="documents"`; for the page a `title` where the
                name says too little, `listed=False` where a table of the section shows the figure, and `yardstick=True` where
                it is of something simpler that the artifact is held against. A stage that measures
                several artifacts names in each row those that the figure is a mean over, with what each gave alone:
                `of=[{"artifact": fingerprint, "value": 0.3, "n": 500, "items": "images", "interval": [low, high]}]`.
        """
        row = {"name": name, "value": value, "unit": unit, "higher_is_better": higher_is_better, "n": n, "split": split}
        self._metrics.append(row | extra)

    def resolve(self, key: str, decide: Callable[[], Any]) -> Any:
        """Return what was decided for `key`: asked once of `decide`, kept in `resolved.json`, reused on resume.

        For whatever is probed at run time: dtype, compile or not, threads, the number of steps of a budget in minutes.
        Call it in the main process only (others read it after a barrier through `resolved`).
        """
        decided = self.resolved()
        if key not in decided:
            assert self.is_main, f"resolve({key!r}) must be called by the main process first"
            decided[key] = decide()
            write_json(self.directory / RESOLVED, decided)
        return decided[key]

    def resolved(self) -> dict[str, Any]:
        """Return all that was decided so far."""
        path = self.directory / RESOLVED
        if not path.exists():
            return {}
        try:
            decided: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:
            raise StageError(f"{RESOLVED} cannot be read; run again with --force to decide anew") from None
        return decided

    @property
    def stop_requested(self) -> bool:
        """True after Ctrl-C or SIGTERM: save a checkpoint, then call `check_stop`.

        With several processes agree on it first (one all-reduce): signals do not arrive at the same step everywhere.
        """
        return self._stop_signal != 0

    def check_stop(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self._stop_signal:
            raise Interrupted("stopped on request; the same command goes on from what is saved")

    def interrupt(self) -> None:
        """Leave the stage now; call it after the state was saved."""
        raise Interrupted("stopped on request; the state is saved, the same command goes on from it")

    def listen_for_stop(self) -> None:
        """Turn SIGTERM and SIGINT into `stop_requested`."""

        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number

        signal.signal(signal.SIGTERM, remember)
        signal.signal(signal.SIGINT, remember)

    def finish(self) -> None:
        """Write `metrics.json` and `section.json`; the engine calls it after `run`."""
        if self.is_main:
            write_json(self.directory / "metrics.json", self._metrics)
            write_json(self.directory / "section.json", self.section.to_json())
