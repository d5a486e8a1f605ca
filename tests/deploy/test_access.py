"""The access rule in deploy/redis.conf is the least that works: all that it allows is used, and nothing else is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flowlib.server import Server
from tests import access

from .day import day_at

ROOT = Path(__file__).parents[2]
# Without these all goes on, if slower (client|reply) or with a connection of RQ's tools that goes on watching (unwatch); but
# each use of them would stand in the server's log of denials, and hide the others.
POLITE = {"client|setinfo", "client|unblock", "client|reply", "unwatch"}
UNDENIABLE = {"hello"}  # whoever is not logged in yet may say it


def allowed() -> set[str]:
    return {part.removeprefix("+") for part in access.rule() if part.startswith("+")}


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[redis.Redis]:
    with (
        Server.start(tmp_path / "server", config=access.config(tmp_path)) as server,
        server.client(decode_responses=True) as client,
    ):
        yield client


def url_of(admin: redis.Redis, user: str = access.USER) -> str:
    path = admin.connection_pool.connection_kwargs["path"]
    return f"unix://{user}:{access.PASSWORD}@{path}?db=1"


def test_the_rule_allows_what_the_work_takes_and_nothing_else(admin: redis.Redis) -> None:
    """When a command is new here, or gone: change the line `user flow` in deploy/redis.conf."""
    admin.config_resetstat()
    with day_at(url_of(admin)) as day:
        day.go_by()
    stats: Any = admin.info("commandstats")
    used = {name.removeprefix("cmdstat_") for name in stats} - {"config|resetstat"}
    assert [entry["object"] for entry in admin.acl_log()] == []
    assert used == allowed()


def test_the_rule_names_its_keys_and_channels(admin: redis.Redis) -> None:
    """None but those of the two prefixes that README names."""
    assert {part for part in access.rule() if not part.startswith("+")} == {
        "~flow:*",
        "~rq:*",
        "resetchannels",
        "&flow:*",
        "&rq:*",
    }


@pytest.mark.chaos
@pytest.mark.parametrize("command", sorted(allowed() - POLITE - UNDENIABLE))
def test_without_any_one_of_its_commands_something_fails_or_complains(admin: redis.Redis, command: str) -> None:
    admin.execute_command("ACL", "SETUSER", "lacking", "on", f">{access.PASSWORD}", *access.rule(), f"-{command}")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.deploy.day", url_of(admin, "lacking")],
        cwd=ROOT, capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    assert ended.returncode or ended.stderr
    assert command in [entry["object"] for entry in admin.acl_log()], ended.stderr
