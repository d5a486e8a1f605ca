"""Runs that are to be undone while what is stored of them cannot be opened, for a moment or until a key is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowlib import Event, Middleware
from flowlib.middleware import Encryption
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place
from tests.cases.test_sealing import Flaky
from tests.patience import until

KEY, OTHER = bytes(32), bytes(range(32))


def booked(case: Case, middleware: Middleware) -> str:
    """A run that has something to undo, and sleeps."""
    case.use_middleware([middleware])

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        flight = yield step.run("flight", case.body("flight", "x" * 3000))
        step.on_rollback(case.body("released"))
        yield step.sleep("moment", 0.01)
        yield step.wait_for_event("go", "go", timeout=3600)
        return len(flight)

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    return run_id


def with_another(case: Case, middleware: Middleware) -> None:
    """From now on workers have that in place of the one before."""
    for worker, _ in case._workers:
        worker.stop()
    case.join()
    case.use_middleware([middleware])
    case.start()


@in_place
def test_a_store_that_is_away_as_a_run_is_to_be_undone_is_asked_again(case: Case, tmp_path: Path) -> None:
    run_id = booked(case, Flaky(f"file://{tmp_path}", over=1000))
    Flaky.away = 1
    case.app.runs.cancel(run_id)
    run = case.ended(run_id)
    assert (run.status, Flaky.away, case.ledger) == ("cancelled", 0, ["flight", "released"])
    assert check_invariants(case.app.store) == []


@in_place
def test_a_run_that_is_cancelled_while_its_key_is_missing_is_undone_once_it_is_back(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowlib.frame.UNDONE_AGAIN", 0.05)
    run_id = booked(case, Encryption({"new": KEY}))
    with_another(case, Encryption({"other": OTHER}))
    case.app.runs.cancel(run_id)
    tries = 4  # more than its function's retries
    until(lambda: [entry.kind for entry in case.app.runs.history(run_id)].count("claimed") > tries)
    assert case.ledger == ["flight"]
    with_another(case, Encryption({"new": KEY}))
    run = case.ended(run_id)
    assert (run.status, case.ledger) == ("cancelled", ["flight", "released"])
    assert check_invariants(case.app.store) == []


@in_place
def test_a_run_that_fails_for_want_of_its_key_is_not_undone_and_goes_on_once_it_is_back(case: Case) -> None:
    run_id = booked(case, Encryption({"new": KEY}))
    with_another(case, Encryption({"other": OTHER}))
    case.app.send(Event("go", {}))
    failed = case.ended(run_id)
    assert (failed.status, case.ledger) == ("failed", ["flight"])
    assert "there is only 'other'" in str(failed.error)
    with_another(case, Encryption({"new": KEY, "other": OTHER}))
    case.app.runs.retry(run_id)
    run = case.ended(run_id)
    assert (run.status, run.result, case.ledger) == ("completed", 3000, ["flight"]), run.error
    assert check_invariants(case.app.store) == []
