"""The user that deploy/redis.conf ships for workers and producers, for servers of tests: it may do that, and no more.

The workers of all crash tests are this user. `FLOW_TEST_ACL=1 pytest tests/cases tests/rq tests/cli` lets the rest of the suite
be it, too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import redis

from flowlib.address import connect

CONF = Path(__file__).parents[1] / "deploy" / "redis.conf"
USER, PASSWORD = "flow", "secret"
# What tests do with a worker's connection, and no worker does: look at all keys while nobody can write, and set the scene.
FOR_TESTS = [
    "client|pause", "client|unpause", "dbsize", "flushall", "keys", "pttl", "scan", "script|flush", "type", "xgroup|setid",
]  # fmt: skip
FOR_RATE_LIMITS = ["zpopmin"]  # those of RQ, which ordinary jobs may have


def rule() -> list[str]:
    """What the user may do, as ACL SETUSER takes it."""
    (line,) = re.findall(rf"^# user {USER} on >CHANGE-ME (.+)$", CONF.read_text(), re.MULTILINE)
    return line.split()


def config(folder: Path) -> dict[str, str]:
    """For Server.start: the server knows the user, also when it is started again."""
    folder.mkdir(parents=True, exist_ok=True)
    include = folder / "access.conf"
    include.write_text(f"user {USER} on >{PASSWORD} {' '.join(rule())}\n")
    return {"include": str(include)}


def limited(url: str) -> str:
    """The same address, as that user, if the server knows it and the address names nobody."""
    if "@" in url:
        return url
    with connect(url) as client:
        known = client.acl_users()
    if USER not in [name.decode() if isinstance(name, bytes) else name for name in known]:
        return url
    return url.replace("//", f"//{USER}:{PASSWORD}@", 1)


def for_tests(client: redis.Redis, url: str) -> str:
    """What `redis_url` hands out: the address, as that user if the environment says so."""
    if not os.environ.get("FLOW_TEST_ACL"):
        return url
    client.execute_command("ACL", "SETUSER", USER, "~*", *(f"+{command}" for command in [*FOR_TESTS, *FOR_RATE_LIMITS]))
    return limited(url)
