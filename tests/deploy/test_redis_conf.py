"""deploy/redis.conf: a real server takes it and keeps to it, and the access rule in it allows the work and no more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from flowlib.server import Server

CONF = Path(__file__).parents[2] / "deploy" / "redis.conf"
UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30}


def directives() -> dict[str, str]:
    """Name -> value, as CONFIG GET prints it."""
    lines = (shlex.split(line, comments=True) for line in CONF.read_text().splitlines())
    return {name: _in_bytes(" ".join(value)) for name, *value in filter(None, lines)}


def _in_bytes(value: str) -> str:
    match = re.fullmatch(r"(\d+)(kb|mb|gb)", value)
    return str(int(match[1]) * UNITS[match[2]]) if match else value


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Server]:
    """A server started with the file, its rule for the user `flow` switched on with a password."""
    rule = next(line for line in CONF.read_text().splitlines() if line.startswith("# user flow "))
    conf = tmp_path / "redis.conf"
    conf.write_text(CONF.read_text() + rule.removeprefix("# ").replace(">CHANGE-ME", ">secret") + "\n")
    with Server.start(tmp_path / "server", config={"include": str(conf)}) as server:
        yield server


@pytest.fixture
def limited(configured: Server) -> Iterator[redis.Redis]:
    """A client that is the user `flow` of the file's access rule."""
    with configured.client(username="flow", password="secret") as client:
        yield client


def test_a_real_server_takes_every_line_of_the_file(configured: Server) -> None:
    with configured.client(decode_responses=True) as client:
        live = {name: client.config_get(name)[name] for name in directives()}
    assert live == directives()


def test_the_file_keeps_runs_over_a_restart_and_under_memory_pressure() -> None:
    """I3 and I4 hold only on a server that keeps an append-only file and deletes nothing by itself."""
    settings = directives()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] in ("everysec", "always")
    assert settings["maxmemory-policy"] == "noeviction"
    assert int(settings["maxmemory"]) > 0


def test_an_rq_worker_runs_as_the_limited_user(limited: redis.Redis) -> None:
    queue = Queue("flow", connection=limited, serializer=JSONSerializer)
    job = queue.enqueue("builtins.len", "four")
    SimpleWorker([queue], connection=limited, serializer=JSONSerializer).work(burst=True)
    assert job.return_value() == 4


def test_the_limited_user_reads_the_settings_that_doctor_checks(limited: redis.Redis) -> None:
    assert limited.config_get("appendonly") == {"appendonly": "yes"}
    assert "used_memory" in limited.info("memory")


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG SET appendonly no", "SHUTDOWN", "ACL LIST", "MONITOR", "GET other:key"]
)
def test_the_limited_user_may_do_nothing_else(limited: redis.Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        limited.execute_command(*command.split())
