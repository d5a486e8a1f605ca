"""Processes that are killed as a run ends: it ends once, is told of once, and its handler runs once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowlib import Event
from flowlib.server import Server
from flowlib.testing import AFTER, BEFORE, check_invariants
from tests.patience import until

from . import endings
from .ledger import AGAIN, END, Ledger
from .site import Site


class Endings(Site):
    def __init__(self, server: Server, notes: Path) -> None:
        super().__init__("tests.crash.endings:app", server, notes)

    def send(self, name: str, how: str = "") -> None:
        self.app.send(Event(name, {"how": how}))

    def told(self) -> list[str]:
        entries: Any = self.store.client.xrange(self.store.keys.events)
        return [name for _, fields in entries if (name := fields[b"name"].decode()).startswith("flow/")]

    def ends_once(self, function: str, status: str) -> None:
        """With one handler's run, of one event; told of by whoever is left."""
        what = {"failed": "on-failure", "completed": "on-success", "cancelled": "on-cancel"}[status]
        worker = self.worker()
        until(lambda: [run.status for run in self.of(f"{function}.{what}")] == ["completed"])
        assert worker.stop() == 0
        (run,) = self.of(function)
        (handler,) = self.of(f"{function}.{what}")
        assert (run.status, handler.result) == (status, run.id)
        assert self.told() == [f"flow/run.{status}"]
        done = [(line.word, line.step) for line in Ledger(self.notes).lines() if line.word in (END, AGAIN)]
        assert done.count((END, "handle")) == 1
        assert (AGAIN, "work") not in done
        assert check_invariants(self.store) == []


@pytest.fixture
def site(fresh_server: Server, tmp_path: Path) -> Iterator[Endings]:
    site = Endings(fresh_server, tmp_path / "notes")
    yield site
    site.store.close()


at = pytest.mark.parametrize("when", [BEFORE, AFTER])


@at
@pytest.mark.parametrize(("how", "status"), [("fail", "failed"), ("", "completed")])
def test_a_worker_that_dies_as_it_ends_a_run_leaves_one_event_and_one_handler(
    site: Endings, when: str, how: str, status: str
) -> None:
    """BEHAVIOURS 43, 46, 47; I6."""
    site.send("crash.end", how)
    site.dies_working("finish_run", when)
    assert len(site.told()) == (when == AFTER)
    site.ends_once("ending", status)


@at
def test_who_dies_as_time_runs_out_leaves_a_run_that_is_cancelled_once(site: Endings, when: str) -> None:
    """BEHAVIOURS 100, 49: its sleep and its timer are gone, whoever it was."""
    worker = site.worker()
    site.send("crash.late")
    until(lambda: [run.state for run in site.of("late")] == ["sleeping"])
    worker.kill()
    site.dies(endings.die_firing, site.url, when)
    assert [run.status for run in site.of("late")] == ["cancelled" if when == AFTER else "running"]
    site.ends_once("late", "cancelled")


@at
def test_who_dies_as_it_cancels_has_cancelled_all_of_it_or_nothing(site: Endings, when: str) -> None:
    """BEHAVIOURS 98, 49."""
    worker = site.worker()
    site.send("crash.end", "sleep")
    until(lambda: [run.state for run in site.of("ending")] == ["sleeping"])
    assert worker.stop() == 0
    (run,) = site.of("ending")
    site.dies(endings.die_cancelling, site.url, when, run.id)
    assert check_invariants(site.store) == []
    if when == BEFORE:
        assert site.runs.get(run.id).state == "sleeping"
        site.runs.cancel(run.id)
    site.ends_once("ending", "cancelled")


@at
def test_a_dispatcher_that_dies_as_it_starts_a_handler_leaves_it_to_another(site: Endings, when: str) -> None:
    """BEHAVIOURS 42; I5."""
    worker = site.worker()
    site.send("crash.end", "sleep")
    until(lambda: [run.state for run in site.of("ending")] == ["sleeping"])
    assert worker.stop() == 0
    site.runs.cancel(site.of("ending")[0].id)
    site.dies_dispatching(when)
    assert len(site.of("ending.on-cancel")) == (when == AFTER)
    site.ends_once("ending", "cancelled")


@at
def test_a_dispatcher_that_dies_as_an_event_cancels_leaves_it_to_another(site: Endings, when: str) -> None:
    """BEHAVIOURS 94, 49."""
    worker = site.worker()
    site.app.send(Event("crash.order", {"order": 7}))
    until(lambda: [run.state for run in site.of("order")] == ["sleeping"])
    assert worker.stop() == 0
    site.app.send(Event("crash.stop", {"order": 7}, id="stop-7"))
    site.dies_dispatching(when)
    site.ends_once("order", "cancelled")
    assert site.of("order")[0].reason == "event crash.stop (stop-7)"


def undone(site: Endings) -> list[str]:
    """What was done and undone, each once, in that order."""
    return [line.step for line in Ledger(site.notes).lines() if line.word == END and line.step != "handle"]


@at
def test_workers_that_die_as_they_begin_and_end_to_undo_leave_the_rest_to_another(site: Endings, when: str) -> None:
    """I3: what is undone is recorded, and what has failed stays so."""
    site.send("crash.undo", "fail")
    site.dies_working("finish_run", when)
    assert [run.status for run in site.of("undoing")] == ["running"]
    assert check_invariants(site.store) == []
    site.store.client.delete(site.store.keys.housekeeper)
    site.dies_working("finish_run", when)
    site.ends_once("undoing", "failed")
    assert undone(site) == ["work", "more", "undo-more", "undo-work"]
    (run,) = site.of("undoing")
    assert run.error is not None
    assert run.error.message == "no"


@at
def test_who_dies_as_it_cancels_a_run_that_undoes_has_done_all_of_it_or_nothing(site: Endings, when: str) -> None:
    """BEHAVIOURS 97, 98; a worker that dies while it undoes, too."""
    worker = site.worker()
    site.send("crash.undo", "sleep")
    until(lambda: [run.state for run in site.of("undoing")] == ["sleeping"])
    assert worker.stop() == 0
    (run,) = site.of("undoing")
    site.dies(endings.die_cancelling, site.url, when, run.id)
    assert check_invariants(site.store) == []
    if when == BEFORE:
        site.runs.cancel(run.id)
    site.dies_working("finish_run", when)
    site.ends_once("undoing", "cancelled")
    assert undone(site) == ["work", "more", "undo-more", "undo-work"]
