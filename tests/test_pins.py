"""A fresh clone installs what the tests ran with: every package that ours needs, however far down, has its pin."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if not line.startswith("#")]
    assert all(found), "a line of constraints.txt is NAME==VERSION, without an address"
    return {canonicalize_name(match[1]): Version(match[2]) for match in found if match}


def needed(name: str, extras: frozenset[str], seen: dict[str, Version]) -> dict[str, Version]:
    """Return all that `name` needs here, with the installed versions."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
        other = canonicalize_name(requirement.name)
        if not wanted or other in seen:
            continue
        seen[other] = Version(distribution(other).version)
        needed(other, frozenset(requirement.extras), seen)
    return seen


def test_every_package_that_is_needed_is_pinned_at_the_version_that_runs_here() -> None:
    pinned = pins()
    versions = needed("groundup", frozenset({"test"}), {})
    assert len(versions) > 40
    wrong = {n: str(v) for n, v in versions.items() if n not in pinned or pinned[n].public != v.public}
    assert not wrong, f"run with other versions than constraints.txt says, or without a pin: {wrong}"


def test_nothing_pulls_in_what_the_project_does_without() -> None:
    assert not pins().keys() & {"torchvision", "torchcfm", "torchmetrics", "nvidia-cublas", "triton"}
