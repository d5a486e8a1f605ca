"""The time in which a run has to begin, and to end: a timer that goes with the run, whoever is first and comes again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from flowlib.testing import cut, faulty_wire

from .conftest import Desk

LONG = 3600.0


@pytest.fixture
def bounded(desk: Desk) -> Desk:
    desk.function = replace(desk.function, start_timeout=LONG, run_timeout=2 * LONG)
    return desk


def timers(desk: Desk) -> list[str]:
    names = cast(list[bytes], desk.store.client.zrange(desk.store.keys.timers, 0, -1))
    return sorted(name.decode().partition("!")[2] for name in names)


def is_due(desk: Desk, name: str) -> None:
    desk.store.client.zadd(desk.store.keys.timers, {name: 1})


def test_whoever_claims_a_run_has_begun_it(bounded: Desk) -> None:
    """BEHAVIOURS 99: also when its worker is lost after that."""
    run = bounded.start()[1].decode()
    assert timers(bounded) == ["end", "start"]
    assert bounded.start() == [0, run.encode()]
    bounded.claim(lease_ms=0)
    assert timers(bounded) == ["end"]
    bounded.store.reap()
    bounded.claim()
    assert timers(bounded) == ["end"]
    assert bounded.faults() == []


def test_a_run_that_has_ended_has_no_bounds(bounded: Desk) -> None:
    lease = bounded.at_step()
    bounded.commit(lease)
    assert bounded.finish(lease) == "finished"
    assert timers(bounded) == []
    unstarted = bounded.start("other")[1].decode()
    assert bounded.store.cancel_run(unstarted, "enough")[0] == "cancelled"
    assert timers(bounded) == []
    assert bounded.faults() == []


def test_of_a_run_whose_worker_is_dead_the_time_runs_out_all_the_same(bounded: Desk) -> None:
    """BEHAVIOURS 100; I2: what the worker reports after that is refused."""
    lease = bounded.at_step()
    is_due(bounded, f"{lease.run}!end")
    assert bounded.store.fire_due() == (1, -1)
    run = bounded.runs.get(lease.run)
    assert (run.status, run.reason) == ("cancelled", "run timeout: it had not ended after 7200 s")
    assert bounded.commit(lease) == "fenced"
    assert bounded.store.reap() == []
    assert bounded.faults() == []


def test_a_bound_that_comes_too_late_changes_nothing(bounded: Desk) -> None:
    """I6: as after a restart of Redis from an older file."""
    lease = bounded.at_step()
    bounded.commit(lease)
    bounded.finish(lease)
    before = bounded.runs.get(lease.run)
    for name in ("start", "end"):
        is_due(bounded, f"{lease.run}!{name}")
    is_due(bounded, "01ANOTHERRUNANOTHERRUN0000!end")
    assert bounded.store.fire_due() == (3, -1)
    assert bounded.runs.get(lease.run) == before
    assert bounded.faults() == []


def test_when_a_sleep_and_the_run_are_due_at_once_the_run_is_over_and_nothing_wakes(bounded: Desk) -> None:
    lease = bounded.at_step()
    bounded.commit(lease)
    bounded.sleep(lease, ms=0)
    is_due(bounded, f"{lease.run}!end")
    while bounded.store.fire_due()[0]:
        pass
    assert bounded.runs.get(lease.run).status == "cancelled"
    assert bounded.store.client.llen(bounded.store.keys.rq_queue("flow")) == 0
    assert bounded.faults() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_reply_cancels_once(bounded: Desk, when: str) -> None:
    run = bounded.start()[1].decode()
    is_due(bounded, f"{run}!start")
    bounded.use_wire(faulty_wire(cut, 1, when))
    bounded.store.fire_due()
    assert [entry.kind for entry in bounded.history(run, "cancelled")] == ["cancelled"]
    assert bounded.faults() == []


def test_functions_without_bounds_pay_nothing(desk: Desk) -> None:
    """Their runs have no field and no timer of it, so nobody looks."""
    run = desk.start()[1].decode()
    record: dict[Any, Any] = desk.stored()[desk.store.keys.run(run)]
    assert not {"starts_by", "ends_by"} & record.keys()
    assert timers(desk) == []
