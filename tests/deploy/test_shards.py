"""deploy/SCALING.md: several shards of one app, each a Redis of its own with workers of its own, chosen by a key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowlib import App, Event
from flowlib.server import Server
from flowlib.testing import check_invariants
from tests.benchmarks.parts import PARTS

from . import relay

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy" / "SCALING.md"
KEYS = [f"customer-{number}" for number in range(20)]


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[list[str]]:
    with Server.start(tmp_path / "one") as one, Server.start(tmp_path / "two") as two:
        yield [one.url, two.url]


@pytest.fixture
def producer(urls: list[str]) -> dict[str, Any]:
    """What the page tells a producer to do, with the addresses of these servers."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert re.search(r"^URLS = .*", example, re.MULTILINE)
    told: dict[str, Any] = {}
    exec(re.sub(r"^URLS = .*", f"URLS = {urls!r}", example, flags=re.MULTILINE), told)
    return told


def test_each_run_is_on_the_shard_of_its_key_and_only_there(
    producer: dict[str, Any], urls: list[str], tmp_path: Path
) -> None:
    """I5 on each shard: an event that is sent twice goes to the same one, and starts one run."""
    for key in (*KEYS, *KEYS):
        producer["shard_of"](key).send(Event("relay/start", {}, id=key))
    (tmp_path / "gate").touch()
    environment = {**os.environ, relay.NOTES: str(tmp_path / "notes"), relay.GATE: str(tmp_path / "gate")}
    command = [sys.executable, "-m", "flowlib.cli", "worker", "tests.deploy.relay:app", "--burst", "--redis-url"]
    workers = [subprocess.Popen([*command, url], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) for url in urls]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    shards = [App("relay", redis_url=url) for url in urls]
    found = [shard.runs.list() for shard in shards]
    assert all(run.status == "completed" for runs in found for run in runs)
    assert sorted(run.event.id for runs in found for run in runs) == sorted(KEYS)
    assert all(found), "one shard has everything"
    for shard in shards:
        assert check_invariants(shard.store) == []
        shard.store.close()


def test_every_figure_on_the_page_is_one_that_its_command_prints() -> None:
    (part,) = (part for part in PARTS if part.name == "scaling")
    printed = [column.heading for table in part.tables for column in table.columns]
    (block,) = re.findall(r"```\n(What a step takes.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for line in block.splitlines() if re.search(r"  [\d.,]+$", line)]
    assert [re.sub(r" {2,}[\d.,]+$", "", line) for line in lines] == printed


def test_a_key_stays_on_its_shard(producer: dict[str, Any]) -> None:
    """Also in the next process: Python's own hash() of a string differs from one to the next."""
    assert [producer["SHARDS"].index(producer["shard_of"](key)) for key in KEYS[:8]] == [1, 1, 1, 1, 0, 0, 0, 0]
