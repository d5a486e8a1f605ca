"""`app.runs.replay`: a new run of the same event, anew or from a step on, with edited memos; each run tells of the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowlib import Event, EventType, NotFound, PayloadError, StepFailed
from flowlib.store import Store
from flowlib.testing import AFTER, check_invariants, cut, faulty_wire
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Rows:
    names: tuple[str, ...]


def three_steps(case: Case) -> None:
    def enrich() -> Rows:
        case.ledger.append("enrich")
        return Rows(("ada",))

    def store(rows: Rows) -> int:
        case.ledger.append(f"store {', '.join(rows.names)}")
        return len(rows.names)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("check", case.body("check"))
        rows = yield step.run("enrich", enrich)
        stored = yield step.run("store", store, rows)
        yield step.run("tell", case.body("tell"))
        return [event.data["key"], stored]


def test_all_of_it_runs_anew_as_a_run_of_its_own_and_the_first_stays_as_it_was(case: Case) -> None:
    three_steps(case)
    first = case.run({"key": 7})
    second = case.ended(case.app.runs.replay(first.id))
    assert (second.status, second.result, second.event) == ("completed", [7, 1], first.event)
    assert case.ledger == ["check", "enrich", "store ada", "tell"] * 2
    assert second.id != first.id
    before = case.app.runs.get(first.id)
    assert (before.status, before.result, before.replays, before.replay_of) == ("completed", [7, 1], (second.id,), "")
    assert (second.replay_of, second.replays) == (first.id, ())
    assert case.app.runs.of_event(first.event.id) == [first.id]
    assert check_invariants(case.app.store) == []


def test_from_a_step_on_what_was_recorded_before_is_kept(case: Case) -> None:
    """BEHAVIOURS 139."""
    three_steps(case)
    first = case.run({"key": 7})
    case.ledger.clear()
    second = case.ended(case.app.runs.replay(first.id, from_step="store"))
    assert (second.result, case.ledger) == ([7, 1], ["store ada", "tell"])
    assert [(step.id, step.status, step.origin) for step in second.steps] == [
        ("check", "completed", "kept"), ("enrich", "completed", "kept"), ("store", "completed", ""), ("tell", "completed", ""),
    ]  # fmt: skip
    case.ledger.clear()
    third = case.ended(case.app.runs.replay(second.id, from_step="enrich"))  # of a run that began with memos itself
    assert (third.result, case.ledger) == ([7, 1], ["enrich", "store ada", "tell"])
    assert check_invariants(case.app.store) == []


def test_an_edited_memo_is_what_the_step_returns_rebuilt_to_its_type(case: Case) -> None:
    """BEHAVIOURS 139, I8: with new input."""
    three_steps(case)
    first = case.run({"key": 7})
    case.ledger.clear()
    new = case.app.runs.replay(first.id, from_step="store", set={"enrich": {"names": ["bob", "cyd"]}})
    second = case.ended(new)
    assert (second.result, case.ledger) == ([7, 2], ["store bob, cyd", "tell"])
    assert [step.origin for step in second.steps] == ["kept", "given", "", ""]
    case.ledger.clear()
    third = case.ended(case.app.runs.replay(first.id, set={"enrich": {"names": []}}))  # all others run anew
    assert (third.result, case.ledger) == ([7, 0], ["check", "store ", "tell"])
    assert check_invariants(case.app.store) == []


def test_values_and_waits_and_sleeps_before_the_step_are_kept_and_later_values_are_new(case: Case) -> None:
    answered = EventType("answered", dict)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        early = step.uuid()
        yield step.run("one", case.body("one"))
        yield step.sleep("nap", 0.01)
        answer = yield step.wait_for_event("answer", answered)
        yield step.run("two", case.body("two"))
        return [str(early), str(step.uuid()), answer.data]

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    case.app.send(answered({"n": 42}))
    first = case.ended(run_id)
    second = case.ended(case.app.runs.replay(first.id, from_step="two"))
    assert (second.result[0], second.result[2]) == (first.result[0], {"n": 42})
    assert second.result[1] != first.result[1]
    assert case.ledger == ["one", "two", "two"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_failure_that_was_caught_before_the_step_is_kept_too(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        with contextlib.suppress(StepFailed):
            yield step.run("optional", case.body("optional", fails=1))
        for n in range(3):
            yield step.run("pack", case.body(n))

    first = case.run()
    case.ledger.clear()
    second = case.ended(case.app.runs.replay(first.id, from_step="pack (2)"))
    assert (second.status, case.ledger) == ("completed", [1, 2])
    assert [(step.id, step.status, step.origin) for step in second.steps][:2] == [
        ("optional", "failed", "kept"), ("pack", "completed", "kept"),
    ]  # fmt: skip
    assert check_invariants(case.app.store) == []


@in_place
def test_an_unfinished_run_is_replayed_and_goes_on_itself(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("one", case.body("one", 1))
        got = yield step.wait_for_event("go", "go")
        return got.data

    first = case.send()
    until(lambda: case.app.runs.get(first).state == "waiting")
    second = case.app.runs.replay(first, from_step="go")
    until(lambda: case.app.runs.get(second).state == "waiting")
    case.app.send(Event("go", "went"))
    assert [case.ended(run).result for run in (first, second)] == ["went", "went"]
    assert case.ledger == ["one"]
    assert check_invariants(case.app.store) == []


@only_sync
def test_what_there_is_not_and_what_cannot_be_set_is_refused_and_nothing_is_started(case: Case) -> None:
    """BEHAVIOURS 139; I10."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("one", case.body("one"))
        yield step.sleep("nap", 0.01)

    run = case.run()
    replay = case.app.runs.replay
    refusals: list[tuple[Callable[[], str], type[Exception], str]] = [
        (lambda: replay("01JUNK"), NotFound, "run '01JUNK' does not exist"),
        (lambda: replay(run.id, from_step="tow"), NotFound, f"run {run.id} has no step 'tow': it has one, nap"),
        (lambda: replay(run.id, set={"tow": 1}), NotFound, "has no step 'tow'"),
        (lambda: replay(run.id, set={"nap": 1}), PayloadError, "step 'nap' .* is a sleep: only what a step returns"),
        (lambda: replay(run.id, set={"one": object()}), PayloadError, "step 'one'.* cannot be stored"),
    ]
    for refused, error, says in refusals:
        with pytest.raises(error, match=says):
            refused()
    assert [each.id for each in case.app.runs.list()] == [run.id]
    assert case.app.runs.get(run.id).replays == ()


@only_sync
def test_a_lost_reply_to_a_replay_starts_one_run(case: Case) -> None:
    three_steps(case)
    first = case.run({"key": 7})
    case.app.connect(store=Store(case.app.store.url, wire=faulty_wire(cut, 1, AFTER)))
    new = case.app.runs.replay(first.id)
    assert case.ended(new).result == [7, 1]
    assert {run.id for run in case.app.runs.list()} == {first.id, new}
    assert case.app.runs.get(first.id).replays == (new,)
    assert check_invariants(case.app.store) == []


@only_sync
def test_runs_are_found_by_fields_of_their_events(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return None

    for n in range(3):
        case.run({"user": {"id": n}, "kind": "a"})
    assert len(case.app.runs.list(match={"kind": "a"})) == 3
    assert [run.event.data["user"]["id"] for run in case.app.runs.list(match={"user.id": 1, "kind": "a"})] == [1]
    assert case.app.runs.list(match={"user.id": "1"}) == case.app.runs.list(match={"nothing": None}) == []


@only_sync
def test_a_promise_is_made_anew_from_its_own_step_on(case: Case) -> None:
    """BEHAVIOURS 139: though it was settled before anybody waited for it."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        approval = step.promise("approval")
        step.run("mail", lambda: case.ledger.append(approval.token))
        if event.data["early"]:
            step.run("early", lambda: case.app.promises.resolve(approval.token, "early"))
        return approval.result()

    first = case.run({"early": True})
    assert first.result == "early"
    again = case.app.runs.replay(first.id, from_step="approval")
    until(lambda: case.app.runs.get(again).state == "waiting")
    case.app.promises.resolve(case.ledger[0].replace(first.id, again), "late")
    assert case.ended(again).result == "late"
    assert check_invariants(case.app.store) == []
