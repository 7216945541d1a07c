"""What the attempts at one artifact cost: `.attempts.json` in the partial directory, summed up in the record."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from pipeline.durable import write_json


class Attempts:
    """The attempts so far; one that was killed counts until its last sign of life."""

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self._path = partial / ".attempts.json"
        try:
            self._rows: list[dict[str, Any]] = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            self._rows = []

    def begin(self) -> None:
        """Open an attempt, and close one that a kill left open."""
        beats = [path.stat().st_mtime for path in self._partial.glob(".beat-*")]
        for row in self._rows:
            row.setdefault("wall_seconds", max(0.0, max(beats, default=row["began"]) - row["began"]))
        self._rows.append({"began": time.time()})
        write_json(self._path, self._rows)

    def end(self, usage: resource.struct_rusage) -> None:
        """Close the attempt with what its processes used."""
        self._rows[-1] |= {
            "wall_seconds": time.time() - self._rows[-1]["began"],
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory_gib": usage.ru_maxrss / 2**20,
        }
        write_json(self._path, self._rows)

    @property
    def count(self) -> int:
        """How many attempts it took."""
        return len(self._rows)

    def total(self, key: str) -> float:
        """Sum of `wall_seconds` or `cpu_seconds` over all attempts."""
        return float(round(sum(row.get(key, 0.0) for row in self._rows), 3))

    def peak_memory_gib(self) -> float:
        """Resident memory of the largest process, in GiB."""
        return float(round(max((row.get("peak_memory_gib", 0.0) for row in self._rows), default=0.0), 3))
