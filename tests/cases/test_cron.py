"""`cron` as a trigger, with workers: each tick is one run, however many of them there are."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from flowlib import cron
from flowlib.model import RUNNING
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until

EACH_SECOND = "* * * * * *"


@only_sync
def test_each_tick_is_one_run_on_three_workers(case: Case) -> None:
    """BEHAVIOURS 121, 124."""
    seen: list[datetime] = []

    @case.function(on=cron(EACH_SECOND, tz="Europe/Berlin"))
    def f(event: Any, step: Any) -> Any:
        yield step.run("note", lambda: seen.append(event.data["tick"]))
        assert event.data["tick"] == event.ts

    for _ in range(3):
        case.start()
    until(lambda: len(seen) >= 3)
    ticks = sorted(run.event.ts for run in case.app.runs.list())
    assert all(later - earlier == timedelta(seconds=1) for earlier, later in pairwise(ticks))
    assert set(seen) <= set(ticks)
    assert len(set(seen)) == len(seen)
    assert check_invariants(case.app.store) == []


@in_place
def test_a_function_has_crons_and_events_beside_each_other(case: Case) -> None:
    @case.function(on=[cron(EACH_SECOND), cron("@yearly"), "test"])
    def f(event: Any, step: Any) -> Any:
        return (yield step.run("name", lambda: event.name))

    assert case.run().result == "test"
    until(lambda: "flow/cron" in {run.result for run in map(case.app.runs.get, ids(case)) if run.status != RUNNING})


def ids(case: Case) -> list[str]:
    return [run.id for run in case.app.runs.list()]
