"""What is told of a run's end: system events, and the handlers of a function; once, and only where somebody listens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flowlib import ConfigError, Ending, Event, NonRetriable, PayloadError, Run, run_failed, run_finished, step_options
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place, only_sync
from tests.cases.test_parallel import crew
from tests.patience import until


def told(case: Case) -> list[str]:
    """The names of the system events in the stream."""
    entries: Any = case.app.store.client.xrange(case.app.store.keys.events)
    names = [fields[b"name"].decode() for _, fields in entries]
    return sorted(name for name in names if name.startswith("flow/"))


def handled(case: Case, count: int = 1) -> list[Run]:
    """The handlers' runs, once so many have ended."""

    def ended() -> list[Run]:
        runs = [case.app.runs.get(run.id) for run in case.app.runs.list() if ".on-" in run.function and run.finished]
        return runs if len(runs) >= count else []

    found: list[Run] = until(ended)
    return found


def listening(case: Case, **settings: Any) -> None:
    """A function with all three handlers, which note what they are given; it ends as its event says."""

    def note(what: str) -> Any:
        def handler(event: Event[Ending], step: Any) -> Any:
            yield step.run("note", case.body(what))
            case.ledger.append(event.data)

        return case.faced(handler)

    @case.function(
        retries=0, on_success=note("success"), on_failure=note("failure"), on_cancel=note("cancel"), **settings
    )
    def f(event: Event[Any], step: Any) -> Any:
        if event.data.get("fail"):
            yield step.run("charge", case.body("charge", fails=9))
        if event.data.get("nap"):
            yield step.sleep("nap", 3600)
        return {"total": 7}


@in_place
def test_on_failure_is_called_once_as_a_run_of_its_own_with_all_that_is_known(case: Case) -> None:
    """BEHAVIOURS 42, 43."""
    listening(case)
    failed = case.run({"fail": 1}, event=Event("test", {"fail": 1}, id="order-7"))
    (handler,) = handled(case)
    assert (handler.function, handler.status) == ("f.on-failure", "completed")
    assert case.ledger[:2] == ["charge", "failure"]
    (ending,) = case.ledger[2:]
    assert (ending.app, ending.function, ending.run, ending.status) == ("case", "f", failed.id, "failed")
    assert (ending.event.name, ending.event.id, ending.event.data) == ("test", "order-7", {"fail": 1})
    assert ending.event.ts == failed.event.ts
    assert (ending.error, ending.result, ending.reason) == (failed.error, None, "")
    assert ending.error.step == "charge"
    assert told(case) == ["flow/run.failed"]


@in_place
def test_on_success_is_given_the_result(case: Case) -> None:
    listening(case)
    assert case.run().status == "completed"
    handled(case)
    assert (case.ledger[0], case.ledger[1].status, case.ledger[1].result) == ("success", "completed", {"total": 7})
    assert told(case) == ["flow/run.completed"]


@pytest.mark.parametrize("how", ["by hand", "by timeout"])
@in_place
def test_a_cancelled_run_calls_on_cancel_and_not_on_failure(case: Case, how: str) -> None:
    """BEHAVIOURS 49."""
    listening(case, run_timeout=None if how == "by hand" else 0.3)
    run = case.send({"nap": 1})
    if how == "by hand":
        until(lambda: case.app.runs.get(run).state == "sleeping")
        case.app.runs.cancel(run, "not wanted")
    handled(case)
    assert (case.ledger[0], case.ledger[1].status) == ("cancel", "cancelled")
    assert case.ledger[1].reason == case.app.runs.get(run).reason != ""
    assert told(case) == ["flow/run.cancelled"]


@in_place
def test_a_handler_has_steps_and_retries_of_its_own_and_one_that_fails_calls_no_other(case: Case) -> None:
    """BEHAVIOURS 42: also where functions are on the failures of all."""

    def handler(event: Event[Ending], step: Any) -> Any:
        yield step.run("note", case.body("handler", fails=9))

    @case.function(retries=0, on_failure=step_options(retries=2, backoff=0)(case.faced(handler)))
    def f(event: Event[Any], step: Any) -> Any:
        raise ValueError("no")

    @case.function(on=run_failed, retries=0)
    def watch(event: Event[Ending], step: Any) -> Any:
        case.ledger.append(event.data.function)
        raise ValueError("nor this")

    case.run()
    (run,) = handled(case)
    assert (run.status, case.ledger.count("handler")) == ("failed", 3)
    until(lambda: all(each.finished for each in case.app.runs.list()) and len(case.app.runs.list()) == 3)
    assert case.ledger.count("f") == 1
    assert told(case) == ["flow/run.failed"]


@in_place
def test_other_functions_are_on_system_events_and_runs_wait_for_them(case: Case) -> None:
    """BEHAVIOURS 43; each is told once to all that listen."""

    @case.function(on=[run_finished, run_failed])
    def watch(event: Event[Ending], step: Any) -> Any:
        error = event.data.error
        case.ledger.append((event.name, event.data.function, event.data.run, error and (error.type, error.message)))

    @case.function(on="work", retries=0)
    def work(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("go", "go")
        raise NonRetriable("no")

    @case.function()
    def waiting(event: Event[Any], step: Any) -> Any:
        found = yield step.wait_for_event("ended", "flow/run.failed", match={"run": event.data["run"]})
        return found.data["error"]["message"]

    working = case.send(event=Event("work", {}))
    waits = case.send({"run": working})
    until(lambda: {case.app.runs.get(run).state for run in (working, waits)} == {"waiting"})
    case.app.send(Event("go", {}))
    assert case.ended(waits).result == "no"
    until(lambda: len(case.ledger) == 3)
    failed = ("work", working, ("NonRetriable", "no"))
    assert set(case.ledger) == {
        ("flow/run.failed", *failed), ("flow/run.finished", *failed), ("flow/run.finished", "waiting", waits, None),
    }  # fmt: skip


@only_sync
def test_where_nobody_listens_nothing_is_told(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        raise ValueError("no")

    case.run()
    assert told(case) == []
    assert not case.app.store.client.exists(case.app.store.keys.listeners)


@only_sync
def test_a_result_that_is_too_large_for_an_event_is_left_out(case: Case) -> None:
    def handler(event: Event[Ending], step: Any) -> None:
        case.ledger.append(event.data.result)

    @case.function(on_success=handler)
    def f(event: Event[Any], step: Any) -> Any:
        return "x" * event.data["size"]

    case.run({"size": 600_000})
    handled(case)
    case.run({"size": 300_000})
    handled(case, 2)
    assert case.ledger == [None, "x" * 300_000]


@pytest.mark.parametrize("name", ["flow/run.failed", "flow/anything"])
@only_sync
def test_nobody_else_sends_events_of_that_name(case: Case, name: str) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", Event(name, {}))

    with pytest.raises(PayloadError, match=f"event name '{name}': what begins with 'flow/' only flowlib sends"):
        case.app.send(Event(name, {}))
    run = case.run()
    assert run.error is not None
    assert "only flowlib sends" in run.error.message


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (7, "function 'f.on-failure': on_failure takes a function of (event, step), got 7"),
        (lambda event: None, "function 'f.on-failure': a function takes two arguments, (event, step)"),
    ],
)
@only_sync
def test_a_handler_that_is_none_is_refused(case: Case, handler: Callable[..., Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        case.app.function(on="test", name="f", on_failure=handler)(lambda event, step: None)
    assert str(refused.value) == said
    assert case.app.functions == {}


def ended_told(case: Case) -> int:
    return told(case).count("flow/run.finished")


@only_sync
def test_nothing_is_told_of_the_children_of_a_handler_so_that_nothing_goes_round(case: Case) -> None:
    """BEHAVIOURS 42, 43."""

    @case.function(on="note", name="note")
    def note(event: Event[Any], step: Any) -> Any:
        yield step.invoke("deeper", "write", {})

    @case.function(on="write", name="write")
    def write(event: Event[Any], step: Any) -> Any:
        yield step.run("write", case.body("written"))

    @case.function(on=run_finished)
    def watch(event: Event[Ending], step: Any) -> Any:
        yield step.invoke("note", "note", {})

    @case.function()
    def f(event: Event[Any], step: Any) -> Any: ...

    ended = case.run()
    until(lambda: len(case.app.runs.list()) == 4 and all(run.finished for run in case.app.runs.list()))
    assert ended_told(case) == 1
    (written,) = case.app.runs.list(function="write")
    again = case.ended(case.app.runs.replay(written.id))
    assert (again.status, ended_told(case)) == ("completed", 1)
    case.ended(case.app.runs.replay(ended.id))
    assert ended_told(case) == 2


@in_place
def test_what_a_cancelled_run_is_at_is_interrupted_its_children_are_cancelled_and_on_cancel_runs(case: Case) -> None:
    """BEHAVIOURS 97, 49: all of it at once."""
    on, off = threading.Event(), threading.Event()

    def work() -> str:
        on.set()
        try:
            until(lambda: False)
        finally:
            off.set()
        return "too late"

    def handler(event: Event[Ending], step: Any) -> Any:
        yield step.run("note", case.body(("cancelled", event.data.reason)))

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)
        case.ledger.append("child")

    @case.function(on_cancel=case.faced(handler), on_failure=case.faced(handler), retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        yield beside.all(
            beside.run("work", work), beside.invoke("attached", "child", {}),
            beside.invoke("detached", "child", {}, detached=True),
        )  # fmt: skip
        yield step.run("never", case.body("never"))

    crew(case, 2)
    run_id = case.send()
    assert on.wait(20)
    until(lambda: [run.state for run in case.app.runs.list(function="child")] == ["sleeping"] * 2)
    children = {step.id: step.child for step in case.app.runs.get(run_id).steps if step.child}
    case.app.runs.cancel(run_id, reason="enough")
    assert off.wait(20)
    (handler_run,) = handled(case)
    assert (handler_run.function, handler_run.status) == ("f.on-cancel", "completed")
    assert case.app.runs.get(run_id).status == "cancelled"
    assert {name: case.app.runs.get(each).status for name, each in children.items()} == {
        "attached": "cancelled", "detached": "running",
    }  # fmt: skip
    assert case.ledger == [("cancelled", "enough")]
    assert "work" not in case.app.runs.outputs(run_id)
    until(lambda: check_invariants(case.app.store) == [])
