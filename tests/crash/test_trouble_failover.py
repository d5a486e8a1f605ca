"""A failover to the replica by real Sentinels: workers and producers follow, and no run is stuck.

Replication is asynchronous, so the new master may lack the last moments of the old one, and what was recorded in them is
done again. A producer that has doubts sends its events again: their ids make that safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowlib.cli import main
from flowlib.server import Server
from tests.patience import until

from .sentinels import Watched
from .troubled import Fleet


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with Watched(tmp_path) as watched:
        yield watched


@pytest.fixture
def fleet(watched: Watched, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(watched.url, watched.limited_url, tmp_path / "notes")
    yield fleet
    fleet.close()


def kill_master(watched: Watched) -> Server:
    """Returns it when another one has taken its place."""
    old = watched.master
    assert old is not None
    old.kill()
    until(lambda: watched.moved(old))
    return old


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_and_producers_follow_when_the_master_is_killed(watched: Watched, fleet: Fleet) -> None:
    """BEHAVIOURS 146; I4."""
    fleet.start(runs=40, seconds=4.0)
    kill_master(watched)
    assert fleet.goes_on()
    fleet.send_again()
    assert fleet.faults(forgetful=True) == []
    said = CliRunner().invoke(main, ["runs", "--json", "--limit", "40", "--redis-url", watched.limited_url])
    assert len(json.loads(said.stdout)) == 40, said.output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_while_there_is_no_master_at_all_a_worker_only_waits_for_one(watched: Watched, fleet: Fleet) -> None:
    """BEHAVIOURS 146; I3, I4: the replica is dead, too, so there is nobody to promote."""
    fleet.start(workers=1, runs=40, seconds=4.0)  # of several that spin none might get enough of a processor to be seen
    master = watched.master
    assert master is not None
    for server in sorted(watched.servers, key=lambda each: each is master):
        server.kill()
    fleet.endure(2.0)
    master.restart()
    until(lambda: watched.master is master)
    assert fleet.goes_on()
    assert fleet.faults() == []


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_workers_and_producers_follow_when_the_master_is_demoted(watched: Watched, fleet: Fleet) -> None:
    """As an operator does it before an upgrade: the old master lives on, read-only."""
    fleet.start(runs=40, seconds=4.0)
    old = watched.master
    watched.fail_over()
    until(lambda: watched.moved(old))
    assert fleet.goes_on()
    fleet.send_again()
    assert fleet.faults(forgetful=True) == []


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_one_failover_after_the_other_leaves_no_run_stuck(watched: Watched, fleet: Fleet) -> None:
    """BEHAVIOURS 146; I4: five times, from master to replica and back."""
    fleet.start(workers=4, runs=400, seconds=60.0)
    for _ in range(5):
        old = kill_master(watched)
        assert fleet.goes_on()
        watched.bring_back(old)
    fleet.send_again()
    assert fleet.faults(forgetful=True) == []
