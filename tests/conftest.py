"""A real server for every test: one per session, and so per xdist worker, emptied before each test that takes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from flowlib.server import Server
from tests import access
from tests.databases import MANY, Databases

BYTECODE = "PYTHONDONTWRITEBYTECODE"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: half as many again as there are processors, for tests wait about half of their time."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_configure(config: pytest.Config) -> None:
    """The tests' own code is compiled once, and not by each worker of each run, whatever the environment says. Of what tests
    write there is no bytecode: a module that is written twice in a second would still be the first one."""
    if config.getoption("numprocesses", None):  # the one that starts the workers, which get its environment
        os.environ.pop(BYTECODE, None)
    else:
        os.environ[BYTECODE] = "1"


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


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[Databases]:
    """Those of a server of the test's own."""
    with Server.start(tmp_path / "server", config={"databases": str(MANY), **access.config(tmp_path)}) as server:
        yield Databases(server, tmp_path)
