"""`step.wait_for_event`: the event that matches, or None at the timeout; one of both, once."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flowlib import Event, EventType, PayloadError, RunCancelled
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


@dataclass(frozen=True)
class User:
    id: int
    name: str = "Ada"


@dataclass(frozen=True)
class Approval:
    key: str
    by: User | None = None


approved = EventType("import.approved", Approval)


def waiting(case: Case, data: Any = None) -> str:
    """The id of a run that has come to its wait."""
    run_id = case.send(data)
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    return run_id


def test_a_wait_gets_the_event_that_comes_later_whole_and_once(case: Case) -> None:
    """BEHAVIOURS 56, 61; I3: nothing around it is repeated."""
    seen: list[Any] = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        found = yield step.wait_for_event("approval", approved, match={"key": "a"}, timeout=timedelta(days=2))
        seen.append(found)
        yield step.run("after", case.body("after", fails=1))
        return found.data.by.id

    run_id = waiting(case)
    assert case.app.store.client.zcard(case.app.store.keys.leases) == 0
    assert check_invariants(case.app.store) == []
    sent = case.app.send(approved(Approval("a", User(7)), ts=datetime(2026, 1, 2, tzinfo=UTC)))
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", 7), run.error
    assert set(seen) == {Event("import.approved", Approval("a", User(7)), sent, datetime(2026, 1, 2, tzinfo=UTC))}
    assert case.ledger == ["before", "after", "after"]
    assert [(step.id, step.kind, step.status) for step in run.steps] == [
        ("before", "run", "completed"), ("approval", "wait", "completed"), ("after", "run", "completed"),
    ]  # fmt: skip
    assert check_invariants(case.app.store) == []


def test_a_wait_that_nothing_matches_gives_none_at_its_timeout_and_not_before(case: Case) -> None:
    """BEHAVIOURS 57, 58."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("approval", approved, match={"key": "a"}, timeout=0.3))

    run_id = waiting(case)
    case.app.send([approved(Approval("b")), approved(Approval("A")), Event("import.refused", {"key": "a"})])
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", None), run.error
    assert run.ended is not None
    assert run.ended - run.created >= timedelta(seconds=0.3)
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize(
    ("match", "data", "matches"),
    [
        ({"by.id": 7}, {"key": "a", "by": {"id": 7, "name": "Ada"}}, True),
        ({"by.id": 7, "key": "a"}, {"key": "a", "by": {"id": 7}}, True),
        ({"by.id": 7, "key": "a"}, {"key": "b", "by": {"id": 7}}, False),
        ({"by.id": 7}, {"key": "a", "by": None}, False),
        ({"by": None}, {"key": "a", "by": None}, True),
        ({"by": None}, {"key": "a"}, False),
        ({"n": 1}, {"n": True}, False),
        ({"n": 1}, {"n": 1.0}, False),
        ({"n": 1}, {"n": "1"}, False),
        ({"n": {"b": 1, "a": 2}}, {"n": {"a": 2, "b": 1}}, True),
        ({"n": {3, 1, 2}}, {"n": [1, 2, 3]}, True),
        ({"n": UUID(int=5)}, {"n": "00000000-0000-0000-0000-000000000005"}, True),
        ({"n": User(1)}, {"n": {"id": 1, "name": "Ada"}}, True),
        ({"n\ud800": "\ud800"}, {"n\ud800": "\ud800"}, True),
        ({"a": 1}, [1], False),
        ({}, [1], True),
    ],
    ids=repr,
)
@only_sync
def test_fields_match_by_equality_and_types_count(case: Case, match: Any, data: Any, matches: bool) -> None:
    """BEHAVIOURS 56, 57: 1 is not True; what came as JSON is the value that it spells."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("it", "it", match=match, timeout=10)).id

    run_id = waiting(case)
    case.app.send(
        [Event("it", data, id="first"), Event("it", {**match, "by": {"id": 7}, **match, "more": 1}, id="last")]
    )
    assert case.ended(run_id).result == ("first" if matches else "last")
    assert check_invariants(case.app.store) == []


def test_an_event_from_before_the_wait_is_matched_with_since_and_not_without(case: Case) -> None:
    """BEHAVIOURS 66. The earliest one is found."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", [approved(Approval(key), id=f"{n}{key}") for n in (1, 2) for key in "ab"])
        yield step.run("pass", case.body("pass"))
        early = yield step.wait_for_event("early", approved, match={"key": "b"}, timeout=10, since=event.ts)
        none = yield step.wait_for_event("late", approved, match={"key": "b"}, timeout=0.1)
        later = yield step.wait_for_event("gone", approved, since=datetime.now(UTC) + timedelta(hours=1), timeout=0)
        return [early.id, none, later]

    run = case.run()
    assert run.result == ["1b", None, None], run.error
    assert case.ledger == ["pass"]
    assert check_invariants(case.app.store) == []


def test_a_wait_that_looks_back_and_finds_nothing_gets_what_comes_later(case: Case) -> None:
    """BEHAVIOURS 66."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        since = event.ts + timedelta(
            milliseconds=1
        )  # the stream tells milliseconds: what came just before may be as old
        return (yield step.wait_for_event("approval", approved, match={"key": "b"}, timeout=10, since=since)).id

    case.start()
    case.app.send([approved(Approval("b")), approved(Approval("a"))])
    run_id = waiting(case)
    case.app.send([approved(Approval("a")), approved(Approval("b"), id="it")])
    assert case.ended(run_id).result == "it"


def test_waits_in_a_loop_get_one_event_each(case: Case) -> None:
    """BEHAVIOURS 62: what the first has got, the second does not get again."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        got = []
        for _ in range(3):
            found = yield step.wait_for_event("item", "item", timeout=10)
            got.append(found.data)
        return got

    run_id = case.send()
    for number in range(3):
        until(lambda: case.app.runs.get(run_id).state == "waiting")
        case.app.send(Event("item", number))
        until(lambda: case.app.runs.get(run_id).recorded > number)  # noqa: B023 - it is called here and now
    assert case.ended(run_id).result == [0, 1, 2]


@only_sync
def test_one_event_resolves_many_runs_however_many_wait(case: Case) -> None:
    """More than one script wakes at once."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("start", "start", timeout=60)).id

    case.start()
    ids = case.app.send([Event("test", {}) for _ in range(230)])
    runs = case.app.runs
    until(lambda: len(runs.list(status="waiting", limit=300)) == len(ids))
    case.app.send([Event("start", {}, id="go"), Event("start", {}, id="late")])
    until(lambda: len(runs.list(status="completed", limit=300)) == len(ids))
    assert {run.id: runs.get(run.id).result for run in runs.list(limit=300)} == dict.fromkeys(
        [run.id for run in runs.list(limit=300)], "go"
    )
    assert check_invariants(case.app.store) == []


@in_place
def test_the_record_tells_what_is_waited_for_and_what_has_come(case: Case) -> None:
    """BEHAVIOURS 61."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("one", approved, match={"key": "ä", "by": None}, timeout=3600, since=event.ts)
        yield step.wait_for_event("two", "other", timeout=0.05)

    before = time.time()
    run_id = waiting(case)
    run = case.app.runs.get(run_id)
    (one,) = run.steps
    assert (run.status, run.state, run.step, one.status) == ("running", "waiting", "one", "waiting")
    assert one.until == pytest.approx(before + 3600, abs=10)
    assert one.wait is not None
    assert (one.wait.event, one.wait.match) == ("import.approved", '{"key": "ä", "by": null}')
    assert one.wait.timeout == 3600
    assert one.wait.since == pytest.approx(run.event.ts.timestamp())
    assert (one.wait.found, one.wait.timed_out) == (None, False)
    case.app.send(approved(Approval("ä"), id="it"))
    one, two = case.ended(run_id).steps
    assert one.wait is not None
    assert two.wait is not None
    assert (one.wait.found, one.wait.timed_out) == ("it", False)
    assert (two.wait.event, two.wait.match, two.wait.found, two.wait.timed_out) == ("other", "{}", None, True)
    assert case.app.runs.outputs(run_id)["one"]["id"] == "it"


def test_a_run_that_is_cancelled_while_it_waits_leaves_nothing(case: Case) -> None:
    """BEHAVIOURS 98."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("approval", approved, match={"key": "a"}, timeout=3600)
        case.ledger.append("after")

    run_id = waiting(case)
    case.app.runs.cancel(run_id, reason="enough")
    keys = case.app.store.keys
    case.app.send(approved(Approval("a")))
    with pytest.raises(RunCancelled):
        case.app.runs.result(run_id)
    assert case.app.runs.get(run_id).steps[0].status == "cancelled"
    assert case.ledger == []
    names = [key.decode() for key in case.app.store.client.scan_iter(f"{keys.prefix}:*")]
    assert [name for name in names if any(part in name for part in ("waits", "waiters", "fields"))] == []
    assert check_invariants(case.app.store) == []


async def asked_later(event: Event[Any]) -> bool:
    return True


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"match": {"kee": 1}}, "match: Approval has no field 'kee' of 'kee': it has by, key"),
    ({"match": {"by.nam": 1}}, "match: User has no field 'nam' of 'by.nam': it has id, name"),
    ({"match": ["key"]}, "match takes a dict of fields and their values, got ['key']"),
    ({"match": {1: 2}}, "match takes a dict of fields and their values, got {1: 2}"),
    ({"timeout": timedelta(days=366, seconds=1)}, "366 days, 0:00:01 is too long a timeout: at most 366 days"),
    ({"timeout": math.nan}, "timeout takes a timedelta or seconds, at most 366 days, got nan"),
    ({"timeout": "1h"}, "timeout takes a timedelta or seconds, at most 366 days, got '1h'"),
    (
        {"since": datetime(2026, 1, 1)},
        "since takes an aware datetime (with a tzinfo), got datetime.datetime(2026, 1, 1,",
    ),
    ({"when": "later"}, "when takes a function of the event, got 'later'"),
    ({"when": asked_later}, "when is asked and answers at once: <function asked_later"),
    (
        {"event": "flow/invoke"},
        "event name 'flow/invoke': of flowlib's own events only the ends of runs can be waited for",
    ),
    ({"event": "import.*/*"}, "event name 'import.*/*': all events of a noun can only start functions"),
    ({"event": 7}, "wait_for_event takes an EventType or an event's name, got 7"),
    ({"event": ""}, "event name '': must be a string of 1 to 256 characters"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[" ".join(wrong) for wrong, _ in WRONG])
@in_place
def test_a_wait_that_makes_no_sense_fails_when_it_is_reached(case: Case, wrong: Any, message: str) -> None:
    """BEHAVIOURS 59."""
    settings = {"event": approved, **wrong}

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        yield step.wait_for_event("it", settings.pop("event"), **settings)

    run = case.run()
    assert run.error is not None
    assert (run.error.type, case.ledger) == ("ConfigError", ["before"])
    assert run.error.message.startswith(f"step 'it': {message}")


@only_sync
def test_a_value_that_no_event_can_have_is_refused(case: Case) -> None:
    """I10."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("it", "it", match={"when": object()})

    run = case.run()
    assert run.error is not None
    assert run.error.message == "step 'it': match.when: <class 'object'> cannot be stored"


@in_place
def test_an_event_whose_data_does_not_fit_the_type_fails_the_run_with_its_path(case: Case) -> None:
    """It was sent by somebody who does not know the type."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("it", approved, match={"key": "a"}, timeout=10)

    run_id = waiting(case)
    case.app.send(Event("import.approved", {"key": "a", "by": {"id": "7"}}, id="bad"))
    run = case.ended(run_id)
    assert run.error is not None
    assert run.error.type == PayloadError.__name__
    assert run.error.message == "step 'it': event 'bad': data.by.id: expected int, got str"


@in_place
def test_a_timeout_that_is_left_out_is_the_longest_and_one_of_nothing_waits_for_nothing(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        none = yield step.wait_for_event("no", "it", timeout=0)
        less = yield step.wait_for_event("less", "it", timeout=timedelta(days=-1))
        found = yield step.wait_for_event("back", "test", timeout=0, since=event.ts)
        case.ledger.append((none, less, found.data))
        yield step.wait_for_event("long", "it")

    run_id = waiting(case, {"n": 1})
    until(lambda: case.app.runs.get(run_id).step == "long")
    assert case.ledger[-1] == (None, None, {"n": 1})
    long = case.app.runs.get(run_id).steps[-1]
    assert long.until == pytest.approx(time.time() + 366 * 86_400, abs=60)


# -- when ----------------------------------------------------------------------------------------------------------------


def test_when_is_asked_of_each_event_that_matches_until_one_will_do(case: Case) -> None:
    """Where equality is not enough. Events that come while it asks are not missed."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        found = yield step.wait_for_event(
            "big", "item", match={"kind": "x"}, when=lambda e: e.data["n"] > 5, timeout=60
        )
        return found.id

    run_id = waiting(case)
    case.app.send(Event("item", {"n": 9, "kind": "y"}, id="other"))
    for n in range(3):
        case.app.send(Event("item", {"n": n, "kind": "x"}, id=f"small-{n}"))
        until(lambda: len(case.entries(run_id, "waiting")) > n + 1)  # noqa: B023 - it is called here and now
    assert check_invariants(case.app.store) == []
    case.app.send([Event("item", {"n": n, "kind": "x"}, id=f"item-{n}") for n in (1, 7, 8)])
    run = case.ended(run_id)
    assert (run.result, case.ledger) == ("item-7", ["before"]), run.error
    assert [step.status for step in run.steps] == ["completed", "completed"]
    assert run.steps[1].wait is not None
    assert run.steps[1].wait.found == "item-7"
    assert check_invariants(case.app.store) == []


def test_when_nothing_will_do_the_wait_ends_at_the_time_that_it_had_from_the_start(case: Case) -> None:
    """BEHAVIOURS 57."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("big", "item", when=lambda _: False, timeout=0.6))

    run_id = waiting(case)
    (first,) = case.entries(run_id, "waiting")
    case.app.send(Event("item", 1))
    run = case.ended(run_id)
    waits = case.entries(run_id, "waiting")
    assert (run.status, run.result, len(waits)) == ("completed", None, 2), run.error
    assert waits[1].detail["until"] == pytest.approx(first.detail["until"], abs=0.01)
    assert run.ended is not None
    assert run.ended.timestamp() >= first.detail["until"] / 1000
    assert run.steps[0].wait is not None
    assert run.steps[0].wait.timed_out
    assert check_invariants(case.app.store) == []


def test_when_is_asked_of_earlier_events_too_with_since(case: Case) -> None:
    """BEHAVIOURS 66. One that is not of the type is none to ask about."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        by_ada = yield step.wait_for_event(
            "by Ada", approved, when=lambda e: e.data.by is not None, timeout=60, since=event.ts - timedelta(minutes=1)
        )
        return by_ada.id

    case.start()
    case.app.send(
        [approved(Approval("a")), Event("import.approved", {"by": 7}), approved(Approval("b", User(1)), id="it")]
    )
    assert case.run().result == "it"


@in_place
def test_an_error_in_when_is_tried_again_and_misses_nothing(case: Case) -> None:
    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("it", "item", when=picky, timeout=60)).id

    def picky(event: Event[Any]) -> bool:
        case.ledger.append(event.id)
        if len(case.ledger) < 3:
            raise ValueError("not now")
        return True

    run_id = waiting(case)
    case.app.send(Event("item", 1, id="first"))
    run = case.ended(run_id)
    assert (run.result, case.ledger) == ("first", ["first"] * 3), run.error
    assert check_invariants(case.app.store) == []


def test_an_error_in_when_is_one_of_the_function_also_while_it_looks_back(case: Case) -> None:
    """Its worker is not lost at that, and does not wait for its lease to run out."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        step.log.info("looks back")
        return (yield step.wait_for_event("it", "test", since=event.ts, when=picky, timeout=60)).id

    def picky(event: Event[Any]) -> bool:
        case.ledger.append(event.id)
        if len(case.ledger) < 4:
            raise ValueError("not now")
        return True

    run = case.run(event=Event("test", {}, id="itself"))
    assert (run.result, case.ledger) == ("itself", ["before", *["itself"] * 3]), run.error
    assert [text for text, *_ in case.lines(run.id)] == ["looks back"] * 3
    assert [entry.detail["error"]["message"] for entry in case.entries(run.id, "failed")] == ["not now"] * 2
    assert case.entries(run.id, "lost") == []
    assert check_invariants(case.app.store) == []
