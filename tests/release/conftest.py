"""A Hub on the loopback for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import Desk
from tests.hub.server import HubServer


def people(hub: HubServer) -> HubServer:
    """Let `ada` write (also for `guild`) and give `bob` a token that only reads."""
    hub.state.add_user("hf_ada", "ada", orgs=("guild",))
    hub.state.add_user("hf_bob", "bob", role="read")
    return hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A new empty Hub."""
    server = HubServer(tmp_path / "hub")
    yield people(server)
    server.close()


@pytest.fixture(scope="module")
def open_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The Hub and client process that the tests of one file share."""
    desk = Desk(HubServer(tmp_path_factory.mktemp("desk") / "hub"))
    yield desk
    desk.close()


@pytest.fixture
def desk(open_desk: Desk) -> Desk:
    """A Hub that was emptied, with a client process that is up already."""
    open_desk.hub.reset()
    people(open_desk.hub)
    return open_desk
