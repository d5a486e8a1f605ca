"""Processes that are killed as runs invoke others and wait for promises: one child each, one answer, and nothing hangs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlib import Event, FlowError, PromiseSettled
from flowlib.model import Run
from flowlib.server import Server
from flowlib.testing import AFTER, BEFORE, check_invariants
from tests.patience import until

from . import invoking
from .ledger import AGAIN, END, Ledger
from .site import Site


class Invoking(Site):
    def __init__(self, server: Server, notes: Path) -> None:
        super().__init__("tests.crash.invoking:app", server, notes)

    def comes_to(self, function: str, status: str, state: str = "") -> Run:
        until(lambda: [(run.status, run.state) for run in self.of(function)] == [(status, state)])
        return self.runs.get(self.of(function)[0].id)

    def is_sound(self) -> None:
        lines = [(line.word, line.step) for line in Ledger(self.notes).lines() if line.word in (END, AGAIN)]
        assert all(word == END for word, _ in lines)
        assert len(lines) == len(set(lines))
        assert check_invariants(self.store) == []


@pytest.fixture
def site(fresh_server: Server, tmp_path: Path) -> Iterator[Invoking]:
    site = Invoking(fresh_server, tmp_path / "notes")
    yield site
    site.store.close()


at = pytest.mark.parametrize("when", [BEFORE, AFTER])


@at
@pytest.mark.parametrize(
    ("order", "beside", "script"),
    [
        ("order", False, "chain_job"),
        ("order", False, "finish_run"),
        ("order", True, "chain_job"),
        ("order", True, "finish_run"),
        ("order", True, "fork_run"),
        ("order-async", True, "fork_run"),
        pytest.param("order-async", False, "chain_job", marks=pytest.mark.chaos),
        pytest.param("order-async", True, "finish_run", marks=pytest.mark.chaos),
    ],
)
def test_a_worker_that_dies_as_it_invokes_or_ends_a_child_leaves_one_child_and_one_answer(
    site: Invoking, when: str, order: str, beside: bool, script: str
) -> None:
    """BEHAVIOURS 74; I3, I4: alone, and in a branch."""
    site.app.send(Event(f"crash.{order}", {"beside": beside, "slow": False}))
    site.dies_working(script, when)
    worker = site.worker()
    parent = site.comes_to(order, "completed")
    assert worker.stop() == 0
    (child,) = site.of("bill")
    assert (parent.result, child.status, child.parent) == ("work", "completed", parent.id)
    assert [step.child for step in parent.steps if step.kind == "invoke"] == [child.id]
    site.is_sound()


@at
def test_a_dispatcher_that_dies_as_it_begins_a_child_leaves_it_to_another(site: Invoking, when: str) -> None:
    """BEHAVIOURS 74; I5."""
    worker = site.worker()
    site.app.send(Event("crash.order", {"beside": False, "slow": False}))
    site.comes_to("order", "completed")
    assert worker.stop() == 0
    first = site.of("bill")[0].id
    site.app.call("bill", {"slow": False})
    site.dies_dispatching(when)
    assert len(site.of("bill")) == 1 + (when == AFTER)
    worker = site.worker()
    until(lambda: [run.status for run in site.of("bill")] == ["completed"] * 2)
    assert worker.stop() == 0
    assert first in {run.id for run in site.of("bill")}
    assert check_invariants(site.store) == []


@at
def test_who_dies_as_a_child_is_given_up_leaves_it_cancelled_and_the_parent_told(site: Invoking, when: str) -> None:
    """BEHAVIOURS 70."""
    site.app.send(Event("crash.order", {"beside": False, "slow": True}))
    site.dies_working("cancel_run", when)
    assert site.of("bill")[0].status == ("cancelled" if when == AFTER else "running")
    worker = site.worker()
    parent = site.comes_to("order", "failed")
    assert worker.stop() == 0
    assert parent.error is not None
    assert parent.error.type == "WaitTimeout"
    assert site.of("bill")[0].status == "cancelled"
    site.is_sound()


@at
@pytest.mark.parametrize("late", [False, True])
def test_who_dies_as_it_settles_a_promise_has_settled_it_or_not(site: Invoking, when: str, late: bool) -> None:
    """I1: while the run waits for it, and before."""
    worker = site.worker()
    site.app.send(Event("crash.ask", {"late": late}))
    asking = site.comes_to("ask", "running", "waiting")
    site.dies(invoking.die_settling, site.url, when, site.runs.outputs(asking.id)["mail"])
    with contextlib.nullcontext() if when == BEFORE else pytest.raises(PromiseSettled if late else FlowError):
        site.app.promises.resolve(site.runs.outputs(asking.id)["mail"], "yes")
    site.app.send(Event("go", {}))
    assert site.comes_to("ask", "completed").result == "yes"
    assert worker.stop() == 0
    site.is_sound()


@at
def test_a_worker_that_dies_as_it_begins_to_wait_for_a_promise_that_is_settled_goes_on(
    site: Invoking, when: str
) -> None:
    """I4: nothing tells it a second time."""
    worker = site.worker()
    site.app.send(Event("crash.ask", {"late": True}))
    asking = site.comes_to("ask", "running", "waiting")
    assert worker.stop() == 0
    site.app.promises.resolve(site.runs.outputs(asking.id)["mail"], "yes")
    site.app.send(Event("go", {}))
    site.dies_working("chain_job", when)
    worker = site.worker()
    assert site.comes_to("ask", "completed").result == "yes"
    assert worker.stop() == 0
    site.is_sound()
