"""A Hub on the loopback for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """An empty Hub with two people: `ada` (may write, also for `guild`) and `bob` (his token only reads)."""
    server = HubServer(tmp_path / "hub")
    server.state.add_user("hf_ada", "ada", orgs=("guild",))
    server.state.add_user("hf_bob", "bob", role="read")
    yield server
    server.close()
