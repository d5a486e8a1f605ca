"""Runs that outlive the code that they began with: what is safe goes on, what is not is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowlib import App, Event
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until

Asked = Callable[[Case, Any], Any]

KINDS: dict[str, Asked] = {
    "run": lambda case, step: step.run("x", case.body("x")),
    "sleep": lambda case, step: step.sleep("x", timedelta(milliseconds=1)),
    "send": lambda case, step: step.send_event("x", Event("told", {})),
    "wait": lambda case, step: step.wait_for_event("x", "answer", timeout=0.001),
}


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
@only_sync
def test_another_kind_of_operation_under_a_recorded_id_is_refused_by_name(case: Case, before: str, after: str) -> None:
    asked = [before]

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield KINDS[asked[0]](case, step)
        yield step.run("hold", case.body("hold", fails=1))

    failed = case.run()
    asked[0] = after
    case.app.runs.retry(failed.id)
    run = case.ended(failed.id)
    if before == after:
        assert run.status == "completed"
        return
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.type == "NondeterminismError"
    assert f"step 'x' began as '{before}' and is now '{after}'" in run.error.message
    assert "give the new step another id" in run.error.message


def test_steps_that_are_added_moved_or_taken_away_are_no_trouble(case: Case) -> None:
    """Memos are by id."""
    asked = ["a", "b", "c", "hold"]

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for name in asked:
            total += yield step.run(name, case.body(name, 1, fails=int(name == "hold")))
        return total

    failed = case.run()
    asked[:] = ["new", "c", "a", "hold"]
    case.app.runs.retry(failed.id)
    run = case.ended(failed.id)
    assert (run.status, run.result, case.ledger) == ("completed", 4, ["a", "b", "c", "hold", "new", "hold"])


# -- step.patched ------------------------------------------------------------------------------------------------------


def test_a_patch_is_for_runs_that_come_to_it_anew_and_not_for_those_that_are_past_it(case: Case) -> None:
    patched = [False]
    said: list[tuple[str, bool]] = []

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        if patched[0]:
            answer = step.patched("ask-twice")
            said.append((step.run_id, answer))
            if answer:
                yield step.run("new", case.body("new"))
        yield step.wait_for_event("go", "go")
        yield step.run("after", case.body("after", fails=1))

    old = case.send()
    until(lambda: case.app.runs.get(old).state == "waiting")
    patched[0] = True
    young = case.send()
    until(lambda: case.app.runs.get(young).state == "waiting")
    case.app.send(Event("go", {}))
    assert [case.ended(run).status for run in (old, young)] == ["completed"] * 2
    assert {run: {answer for each, answer in said if each == run} for run in (old, young)} == {
        old: {False},
        young: {True},
    }
    assert said.count((young, True)) > 1  # replays have asked, too
    assert case.ledger.count("new") == 1
    assert [step.id for step in case.app.runs.get(old).steps] == ["before", "go", "after"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_patch_between_a_recorded_step_and_the_next_is_for_the_run_too(case: Case) -> None:
    """Nothing behind that place was done, however often the function has come there."""
    calls: list[bool] = []

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        if calls:
            calls.append(step.patched("p"))
            assert step.patched("p") is calls[-1]
        else:
            calls.append(False)
            raise ValueError("between steps")
        yield step.run("after", case.body("after"))

    assert case.run().status == "completed"
    assert calls == [False, True]


@pytest.mark.parametrize("wrong", ["", "x" * 257, None, 7])
@only_sync
def test_a_patch_has_an_id(case: Case, wrong: Any) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        step.patched(wrong)

    run = case.run()
    assert (run.error and run.error.type) == "ConfigError"
    assert "an id must be a string of 1 to 256 characters" in (run.error.message if run.error else "")


@only_sync
def test_a_patch_inside_a_step_is_refused(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("outer", lambda: step.patched("p"))

    run = case.run()
    assert "nested" in (run.error.message if run.error else "")


# -- functions that no worker knows ------------------------------------------------------------------------------------


@in_place
def test_a_run_whose_function_nobody_knows_is_parked_and_goes_on_when_a_worker_knows_it(case: Case) -> None:
    """BEHAVIOURS 125, of new workers that have other code."""

    @case.function(name="old")
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("one", case.body("one"))
        yield step.sleep("nap", 0.05)
        yield step.run("two", case.body("two"))

    @case.function(on="other", name="new")
    def g(event: Event[Any], step: Any) -> Any:
        return "served"

    run_id = case.send()
    known = case.app.functions.pop("old")  # as if a deployment had dropped it, while the run sleeps
    until(lambda: case.app.runs.get(run_id).state == "parked")
    assert [run.id for run in case.app.runs.list(status="parked")] == [run_id]
    assert case.run(event=Event("other", {})).result == "served"  # and it holds nobody up
    until(lambda: len(case.entries(run_id, "parked")) == 2)
    assert check_invariants(case.app.store) == []
    case.app.functions["old"] = known
    case.start()
    assert case.ended(run_id).status == "completed"
    assert case.ledger == ["one", "two"]
    assert case.app.store.client.keys("flow:parked:*") == []
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_parked_run_is_cancelled_like_any_other(case: Case) -> None:
    @case.function(name="old")
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.05)

    run_id = case.send()
    del case.app.functions["old"]
    until(lambda: case.app.runs.get(run_id).state == "parked")
    case.app.runs.cancel(run_id)
    assert case.app.runs.get(run_id).status == "cancelled"
    assert case.app.store.client.keys("flow:parked:*") == []
    assert check_invariants(case.app.store) == []


@only_sync
def test_workers_that_know_a_parked_run_wait_no_longer_each_time_they_are_asked(case: Case) -> None:
    """Each time that nobody knows it, it is left alone for longer: it must not fill its history."""

    @case.function(name="old")
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.05)

    run_id = case.send()
    del case.app.functions["old"]
    first, second = until(lambda: len(found := case.entries(run_id, "parked")) >= 2 and found[:2])
    waits = [entry.detail["retry_at"] / 1000 - entry.at for entry in (first, second)]
    assert waits == pytest.approx([0.25, 0.5], abs=0.01)
    assert App("other").connect(store=case.app.store).store.resume_parked("other", ["old"]) == 0  # another app's
    assert case.app.store.resume_parked("case", ["new"]) == 0


@only_sync
def test_of_a_run_that_is_parked_in_several_places_nothing_is_left_when_it_is_cancelled(case: Case) -> None:
    @case.function(name="old")
    def f(event: Event[Any], step: Any) -> Any:
        step.gather(*(step.timer(f"nap[{n}]", 0.3) for n in range(3)))

    run_id = case.send()
    until(lambda: len(case.entries(run_id, "sleeping")) == 3)
    del case.app.functions["old"]
    until(lambda: case.app.store.client.zcard("flow:parked:case:old") == 3)
    assert check_invariants(case.app.store) == []
    case.app.runs.cancel(run_id)
    assert case.app.runs.get(run_id).status == "cancelled"
    assert case.app.store.client.keys("flow:parked:*") == []
    assert check_invariants(case.app.store) == []


# -- workers that are replaced -----------------------------------------------------------------------------------------


def sleeping(case: Case, step: Any) -> Any:
    return step.sleep("it", 0.3)


def waiting(case: Case, step: Any) -> Any:
    return step.wait_for_event("it", "go", timeout=60)


def retrying(case: Case, step: Any) -> Any:
    return step.options(backoff=0.3).run("it", case.body("it", fails=1))


def side_by_side(case: Case, step: Any) -> Any:
    beside = Beside(case, step)
    return beside.all(beside.wait("it", "go", timeout=60), beside.sleep("nap", 0.05), beside.run("a", case.body("it")))


@pytest.mark.parametrize("held_up", [sleeping, waiting, retrying, side_by_side])
@in_place
def test_runs_go_on_with_the_workers_that_have_come_in_place_of_theirs(case: Case, held_up: Asked) -> None:
    """BEHAVIOURS 125: whatever they are at meanwhile; also one that nobody has begun."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        yield held_up(case, step)
        yield step.run("after", case.body("after"))

    first = case.start()
    run_id = case.send()
    until(lambda: {step.id: step.status for step in case.app.runs.get(run_id).steps}.get("it") in IDLE)
    until(lambda: check_invariants(case.app.store) == [] and not case.app.store.client.zcard("flow:leases"))
    first.stop()
    case.join()
    untouched = case.app.send(Event("test", {}))
    second = case.start()
    case.app.send(Event("go", {}))
    assert case.ended(run_id).status == "completed"
    (other,) = until(lambda: case.app.runs.of_event(untouched))
    until(lambda: case.app.runs.get(other).state in ("waiting", "") and case.app.send(Event("go", {})))
    assert case.ended(other).status == "completed"
    workers = [entry.worker for entry in case.app.runs.history(run_id) if entry.kind == "recorded" and entry.worker]
    assert (workers[0], workers[-1]) == (first.name, second.name)
    assert Counter(case.ledger) == {"before": 2, "after": 2, **extra(held_up)}
    assert check_invariants(case.app.store) == []


IDLE = ("sleeping", "waiting", "retrying")


def extra(held_up: Asked) -> dict[str, int]:
    more: dict[Asked, dict[str, int]] = {retrying: {"it": 3}, side_by_side: {"it": 2}}
    return more.get(held_up, {})


@only_sync
def test_of_several_the_one_that_came_first_must_be_among_those_that_are_asked_for_later(case: Case) -> None:
    kinds = ["yes", "no"]

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_any("verdict", *kinds, timeout=60)
        yield step.run("hold", case.body("hold", fails=1))

    run_id = case.send()
    until(lambda: [each.status for each in case.app.runs.get(run_id).steps] == ["waiting"] * 2)
    case.app.send(Event("no", {}))
    assert case.ended(run_id).status == "failed"
    del kinds[1]
    case.app.runs.retry(run_id)
    run = case.ended(run_id)
    assert run.error is not None
    assert run.error.type == "NondeterminismError"
    assert "step.first: 'verdict[no]' has come first, and is not among what it is given any more" in run.error.message
    kinds.append("no")
    case.app.runs.retry(run_id)
    assert case.ended(run_id).status == "completed"
    assert check_invariants(case.app.store) == []


def test_what_has_come_first_stays_so_when_others_are_put_before_it_moved_and_added(case: Case) -> None:
    """BEHAVIOURS 92: memos are found by ids, that of the winner, too."""
    deployed: list[Any] = []

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        if deployed:
            yield step.wait_for_any("earlier", "x", "y", timeout=0.01)
        found = yield step.wait_for_any("verdict", *(["maybe", "yes", "no"] if deployed else ["no", "yes"]), timeout=60)
        yield step.run("hold", case.body("hold", fails=1))
        return found.id

    run_id = case.send()
    until(lambda: [each.status for each in case.app.runs.get(run_id).steps] == ["waiting"] * 2)
    case.app.send(Event("no", {}, id="no-1"))
    assert case.ended(run_id).status == "failed"
    deployed.append(True)
    case.app.runs.retry(run_id)
    assert case.ended(run_id).result == "no-1"
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_run_that_is_past_a_patch_in_one_of_its_places_does_not_see_it(case: Case) -> None:
    """What is open beside lies behind it, too, whichever of them is ours."""
    new: list[bool] = []

    @case.app.function(on="test")
    def f(event: Event[Any], step: Any) -> Any:
        answer = step.expect_event("answer", "go", timeout=3600)
        changed = step.patched("ask twice") if new else None
        if changed:
            step.run("extra", case.ledger.append, "extra")
        late = step.timer("late", 3600)
        return [changed, step.first(answer, late) is answer]

    older = case.send()
    until(lambda: {s.id: s.status for s in case.app.runs.get(older).steps}.get("answer") == "waiting")
    new.append(True)
    case.app.send(Event("go", {}))
    assert case.ended(older).result == [False, True]
    assert case.ledger == []
    newer = case.send()
    until(lambda: {s.id: s.status for s in case.app.runs.get(newer).steps}.get("answer") == "waiting")
    case.app.send(Event("go", {}))
    assert case.ended(newer).result == [True, True]
    assert case.ledger == ["extra"]
    assert check_invariants(case.app.store) == []
