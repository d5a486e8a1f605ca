"""`step.wait_for_any`: the first event of several kinds, or None at the timeout; whatever wins has won for good."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from flowlib import Event, EventType
from flowlib.testing import check_invariants
from tests.cases.case import Case, only_async
from tests.patience import until


@dataclass(frozen=True)
class Verdict:
    key: str
    mark: int = 0


approved = EventType("import.approved", Verdict)
declined = EventType("import.declined", Verdict)


def waiting(case: Case, many: int) -> str:
    """The id of a run that has come to its waits."""
    run_id = case.send()
    until(lambda: [step.status for step in case.app.runs.get(run_id).steps] == ["waiting"] * many)
    return run_id


def nothing_waits(case: Case) -> bool:
    keys = [key.decode() for key in case.app.store.client.scan_iter("flow:*")]
    return not [key for key in keys if any(part in key for part in ("waits", "waiters", "fields"))]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_first_event_of_any_kind_is_given_whole_and_the_other_waits_are_dropped(case: Case, which: int) -> None:
    """BEHAVIOURS 56, 92; I3: the same in each replay, and nothing around it is repeated."""
    seen: list[Any] = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        found = yield step.wait_for_any("verdict", approved, "import.lost", declined, match={"key": "a"}, timeout=3600)
        seen.append(found)
        yield step.run("after", case.body("after", fails=2))
        return found.name

    run_id = waiting(case, 3)
    kinds: list[EventType[Any]] = [approved, EventType("import.lost", dict), declined]
    first, *later = kinds[which], *kinds
    case.app.send([kind(Verdict("b")) for kind in kinds])
    case.app.send(first(Verdict("a", 1), id="won"))
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", first.name), run.error
    case.app.send([kind(Verdict("a", 2)) for kind in later])
    assert {(found.id, found.name) for found in seen} == {("won", first.name)}
    assert seen[0].data == ({"key": "a", "mark": 1} if which == 1 else Verdict("a", 1))
    told = {f"verdict[{kind.name}]": "completed" if kind is first else "cancelled" for kind in kinds}
    assert {step.id: step.status for step in run.steps} == {**told, "after": "completed"}
    assert case.ledger == ["after"] * 3
    assert nothing_waits(case)
    assert check_invariants(case.app.store) == []


def test_none_is_given_when_the_time_of_all_is_over(case: Case) -> None:
    """BEHAVIOURS 57, 58."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        found = yield step.wait_for_any("verdict", approved, declined, timeout=0.3)
        yield step.run("after", case.body("after", fails=1))
        return found

    run = case.run()
    assert (run.status, run.result) == ("completed", None), run.error
    assert run.ended is not None
    assert (run.ended - run.created).total_seconds() >= 0.3
    assert nothing_waits(case)
    assert check_invariants(case.app.store) == []


def test_since_and_when_hold_for_every_kind_and_of_two_that_were_there_one_stays_the_winner(case: Case) -> None:
    """BEHAVIOURS 66."""
    seen: set[str] = set()

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        sent = [kind(Verdict("a", mark), id=f"{kind.name} {mark}") for kind in (approved, declined) for mark in (1, 2)]
        yield step.send_event("tell", sent)
        found = yield step.wait_for_any(
            "verdict", approved, declined, since=event.ts, timeout=60, when=lambda each: each.data.mark == 2
        )
        seen.add(found.id)
        yield step.run("after", case.body("after", fails=2))
        return found.id

    run = case.run()
    assert {run.result} == seen, run.error
    assert seen < {"import.approved 2", "import.declined 2"}
    assert nothing_waits(case)
    assert check_invariants(case.app.store) == []


def test_one_kind_is_as_good_as_a_wait_for_it(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_any("verdict", approved, timeout=60)).data.mark

    run_id = waiting(case, 1)
    case.app.send(approved(Verdict("a", 4)))
    assert case.ended(run_id).result == 4
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize(
    ("kinds", "settings", "message"),
    [
        ((), {}, "step 'it': wait_for_any takes at least one EventType or event's name"),
        ((approved, 7), {}, "step 'it[7]': wait_for_event takes an EventType or an event's name, got 7"),
        ((approved, declined), {"timeout": "1h"}, "step 'it[import.approved]': timeout takes a timedelta or seconds"),
        ((approved, declined), {"match": {"kee": 1}}, "step 'it[import.approved]': match: Verdict has no field 'kee'"),
    ],
)
def test_what_makes_no_sense_fails_when_it_is_reached_and_nothing_waits(
    case: Case, kinds: tuple[Any, ...], settings: dict[str, Any], message: str
) -> None:
    """BEHAVIOURS 59."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        yield step.wait_for_any("it", *kinds, **settings)

    run = case.run()
    assert run.error is not None
    assert (run.error.type, case.ledger) == ("ConfigError", ["before"])
    assert run.error.message.startswith(message)
    assert nothing_waits(case)
    assert check_invariants(case.app.store) == []


@only_async
def test_one_that_is_given_up_itself_takes_its_waits_with_it(case: Case) -> None:
    """BEHAVIOURS 92."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        try:
            yield asyncio.wait_for(step.wait_for_any("verdict", approved, declined), 0.2)
        except TimeoutError:
            yield step.run("after", case.body("after", fails=1))
        return "late"

    run = case.run()
    assert run.result == "late", run.error
    assert nothing_waits(case)
    assert check_invariants(case.app.store) == []
