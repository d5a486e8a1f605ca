"""A real server for every test: one per session, and so per xdist worker, emptied before each test that takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from flowlib.server import Server
from tests import access


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server. A test that kills, restarts or reconfigures one takes `fresh_server` instead."""
    folder = tmp_path_factory.mktemp("server")
    with Server.start(folder, config=access.config(folder)) as server:
        yield server


@pytest.fixture
def redis_url(server: Server) -> str:
    """The address of an empty server."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        return access.for_tests(client, server.url)


@pytest.fixture
def redis(server: Server, redis_url: str) -> Iterator[redis_py.Redis]:
    """A client of an empty server; replies are bytes, as RQ needs them."""
    with server.client() as client:
        yield client


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed and restarted at will."""
    with Server.start(tmp_path / "server", config=access.config(tmp_path)) as server:
        yield server
