"""Side by side in either face: each once, joined once; what fails, what is shown, what hooks see."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowlib import Event, Middleware, StepFailed
from flowlib.middleware import StepInfo
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import ASYNC, SYNC, Case
from tests.cases.test_handlers import handled, told
from tests.cases.test_parallel import Meeting, crew
from tests.engine.test_metrics import Twice
from tests.patience import until

pytestmark = pytest.mark.parametrize("case", [SYNC, ASYNC], indirect=True, ids=str)


def test_a_child_two_steps_and_an_event_side_by_side_are_each_done_once_and_give_their_own_results(case: Case) -> None:
    """BEHAVIOURS 83."""

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        return (yield step.run("work", case.body("child", event.data["n"] + 1)))

    @case.function(on="told", name="heard")
    def heard(event: Event[Any], step: Any) -> Any:
        case.ledger.append(f"heard {event.data['n']}")

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.invoke("child", "child", {"n": 1}), beside.run("one", case.body("one", 10))]
        begun += [beside.run("two", case.body("two", 20)), beside.send("tell", Event("told", {"n": 5}, "told-1"))]
        found = yield beside.all(*begun)
        yield step.run("after", case.body("after"))
        return found

    crew(case)
    run = case.run()
    assert run.result == [2, 10, 20, "told-1"], run.error
    until(lambda: "heard 5" in case.ledger)
    assert Counter(case.ledger) == dict.fromkeys(["child", "one", "two", "after", "heard 5"], 1)
    assert {step.id: step.status for step in run.steps} == dict.fromkeys(
        ["child", "one", "two", "tell", "after"], "completed"
    )
    assert check_invariants(case.app.store) == []


def test_all_kinds_of_steps_in_one_group_join(case: Case) -> None:
    """BEHAVIOURS 90, 64."""

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.02)
        return "child"

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside, promise = Beside(case, step), step.promise("approval")
        found = yield beside.all(
            beside.run("body", case.body("body", "body")), beside.sleep("nap", 0.05), beside.invoke("child", "child", {}),
            beside.wait("answer", "answered", timeout=20, since=event.ts), beside.wait("never", "nothing", timeout=0.05),
            beside.run("settle", case.app.promises.resolve, promise.token, "yes"), beside.promised(promise),
            beside.send("tell", Event("answered", {"n": 3}, "it")),
        )  # fmt: skip
        found[3] = found[3].data["n"]
        return [found, (yield step.map("each", abs, [-1, -2], limit=1))]

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [["body", None, "child", 3, None, None, "yes", "it"], [1, 2]]
    assert case.ledger == ["body"]
    assert {step.kind for step in run.steps} == {"run", "sleep", "invoke", "wait", "promise", "send"}
    assert {step.status for step in run.steps} == {"completed"}
    assert check_invariants(case.app.store) == []


def test_children_side_by_side_with_a_step_that_fails_all_come_back_and_what_follows_runs_once(case: Case) -> None:
    """BEHAVIOURS 75, 76."""
    meeting = Meeting(4)

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        return (yield step.run("meet", meeting.body, event.data["n"]))

    def bad() -> None:
        case.ledger.append("bad")
        raise ValueError("no")

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.invoke(f"child-{n}", "child", {"n": n}) for n in range(4)]
        *found, failed = yield beside.join(*begun, beside.run("bad", bad))
        yield step.run("after", case.body("after"))
        return [found, isinstance(failed, StepFailed) and failed.step]

    crew(case, 5)
    run = case.run()
    assert run.result == [[0, 1, 2, 3], "bad"], run.error
    assert Counter(case.ledger) == {"bad": 2, "after": 1}
    assert len(case.app.runs.list(function="child")) == 4
    assert check_invariants(case.app.store) == []


def test_two_that_fail_side_by_side_fail_their_run_once_and_call_its_handler_once(case: Case) -> None:
    """BEHAVIOURS 44."""
    meeting = Meeting(2)

    def bad(name: str) -> None:
        meeting.body(None)
        raise ValueError(name)

    def handler(event: Event[Any], step: Any) -> Any:
        yield step.run("note", case.body(event.data.error.step))

    @case.function(retries=0, on_failure=case.faced(handler))
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        yield beside.all(beside.run("a", bad, "a"), beside.run("b", bad, "b"))

    crew(case, 3)
    run = case.run()
    assert run.error is not None
    assert (run.status, run.error.type) == ("failed", "StepFailed" if run.error.step is None else "ValueError")
    handled(case)
    assert [line for line in case.ledger if line in ("a", "b")] == case.ledger
    assert len(case.ledger) == 1
    assert told(case) == ["flow/run.failed"]
    until(lambda: check_invariants(case.app.store) == [])
    assert [run.function for run in case.app.runs.list()].count("f.on-failure") == 1


def test_a_wait_beside_a_failing_step_is_shown_as_waiting_and_the_step_with_its_attempts(case: Case) -> None:
    """BEHAVIOURS 65."""

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        answer, bad = yield beside.join(
            beside.wait("answer", "answered", match={"n": 1}, timeout=3600),
            beside.run("bad", case.body("bad", fails=9, error=ValueError("no"))),
        )
        return [answer.data["n"], bad.message]

    crew(case, 2)
    run_id = case.send()
    until(lambda: {step.id: step.status for step in case.app.runs.get(run_id).steps}.get("bad") == "failed")
    answer, bad = sorted(case.app.runs.get(run_id).steps, key=lambda step: step.id)
    assert (answer.kind, answer.status, answer.wait and answer.wait.match) == ("wait", "waiting", '{"n": 1}')
    assert [(attempt.number, attempt.outcome) for attempt in bad.attempts] == [
        (1, "retry"),
        (2, "retry"),
        (3, "failed"),
    ]
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    case.app.send(Event("answered", {"n": 1}, "it"))
    run = case.ended(run_id)
    assert run.result == [1, "no"], run.error
    answer, bad = sorted(run.steps, key=lambda step: step.id)
    assert (answer.status, answer.wait and answer.wait.found, len(answer.attempts)) == ("completed", "it", 0)
    assert (bad.status, len(bad.attempts)) == ("failed", 3)
    assert check_invariants(case.app.store) == []


def test_a_map_of_four_with_a_limit_of_two_goes_in_two_waves(case: Case) -> None:
    """BEHAVIOURS 84, by `map`: two at a time, and never more."""
    lock, at_once, pairs = threading.Lock(), Counter[str](), threading.Barrier(2)

    def work(item: int) -> int:
        with lock:
            at_once["now"] += 1
            at_once["most"] = max(at_once["most"], at_once["now"])
        pairs.wait(20)
        with lock:
            at_once["now"] -= 1
        return item * item

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.map("square", work, range(4), limit=2))

    crew(case, 4)
    run = case.run()
    assert run.result == [0, 1, 4, 9], run.error
    assert at_once["most"] == 2
    assert check_invariants(case.app.store) == []


def test_groups_one_after_the_other_take_a_pass_for_each_group_and_worker_at_most(case: Case) -> None:
    """BEHAVIOURS 86: one worker alone plays the function once for what it does in place, and once for each branch."""
    calls: list[int] = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        calls.append(step.attempt)
        beside = Beside(case, step)
        for group in range(3):
            yield beside.all(*(beside.run(f"{group}-{n}", case.body((group, n))) for n in range(4)))

    crew(case, 1)
    assert case.run().status == "completed"
    assert Counter(case.ledger) == dict.fromkeys([(group, n) for group in range(3) for n in range(4)], 1)
    print(f"{len(calls)} passes")
    assert len(calls) <= 1 + 3 * 3


@pytest.mark.parametrize("before", ["old", "wait", "sleep"])
def test_what_was_begun_and_is_not_asked_for_any_more_fails_the_run_by_name_with_the_remedy(
    case: Case, before: str
) -> None:
    """BEHAVIOURS 91."""
    changed: list[bool] = []

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.run("a", lambda: changed.append(True))]
        if not changed:
            begun.append({
                "old": lambda: beside.run("old", case.body("old")),
                "wait": lambda: beside.wait("old", "nothing", timeout=0.1),
                "sleep": lambda: beside.sleep("old", 0.1),
            }[before]())  # fmt: skip
        yield beside.all(*begun)

    crew(case, 1)
    run = case.run()
    assert run.error is not None
    assert (run.status, run.error.type) == ("failed", "NondeterminismError")
    assert "step 'old' was submitted, and the function does not ask for it any more" in run.error.message
    assert "let it submit that step as before" in run.error.message
    assert "old" not in case.ledger
    assert check_invariants(case.app.store) == []


def test_a_step_that_appears_beside_others_is_simply_run(case: Case) -> None:
    """BEHAVIOURS 91."""
    changed: list[bool] = []

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.run("a", lambda: changed.append(True)), beside.run("b", case.body("b", 2))]
        if changed:
            begun.append(beside.run("new", case.body("new", 3)))
        return (yield beside.all(*begun))

    crew(case, 1)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [None, 2, 3]
    assert sorted(case.ledger) == ["b", "new"]
    assert check_invariants(case.app.store) == []


class Noting(Middleware):
    def __init__(self, ledger: list[Any]) -> None:
        self._ledger = ledger

    @contextmanager
    def step(self, step: StepInfo) -> Iterator[None]:
        self._ledger.append(("in", step.id, step.attempt))
        yield
        self._ledger.append(("out", step.id, step.attempt))


def test_hooks_are_called_once_for_each_real_execution_on_however_many_workers(case: Case) -> None:
    """BEHAVIOURS 93."""
    case.use_middleware([Noting(case.ledger)])
    meeting = Meeting(3)

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        yield beside.all(*(beside.run(f"s{n}", meeting.body, n) for n in range(3)))
        case.body("between", fails=1)()
        yield beside.all(*(beside.run(f"t{n}", case.body(f"t{n}", fails=int(n == 0))) for n in range(3)))

    crew(case)
    assert case.run().status == "completed"
    hooks = Counter(each for each in case.ledger if isinstance(each, tuple))
    expected = {(way, name, 1) for way in ("in", "out") for name in ("s0", "s1", "s2", "t1", "t2")}
    assert hooks == dict.fromkeys([*expected, ("in", "t0", 1), ("in", "t0", 2), ("out", "t0", 2)], 1)
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_between_steps_while_others_are_open_is_tried_again_and_repeats_none_of_them(
    case: Case, workers: int
) -> None:
    over = threading.Event()

    def slow(n: int) -> int:
        case.ledger.append(n)
        assert workers == 1 or over.wait(20)
        return n

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.run(f"slow-{n}", slow, n) for n in range(2)]
        if case.way.is_async:
            begun = [asyncio.ensure_future(each) for each in begun]
        yield step.run("a", case.body("a"))
        case.body("between", fails=2)()
        over.set()
        return (yield beside.all(*begun))

    crew(case, workers)
    run = case.run()
    assert (run.status, run.result) == ("completed", [0, 1]), run.error
    bodies = Counter(each for each in case.ledger if each != "between")
    assert bodies == {0: 1, 1: 1, "a": 1}
    assert check_invariants(case.app.store) == []


def test_a_plan_that_is_told_twice_is_done_once(case: Case) -> None:
    """BEHAVIOURS 89, 85: each transition comes twice, as when the reply to the first is lost; the end, too."""

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        return (yield step.run("work", case.body(("child", event.data["n"]))))

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        for group in range(2):
            begun = [beside.run(f"{group}-{n}", case.body((group, n))) for n in range(3)]
            yield beside.all(
                *begun, beside.sleep(f"nap-{group}", 0.02), beside.invoke(f"c{group}", "child", {"n": group})
            )
            if group == 0:
                yield step.run("after", case.body("after"))
        return "done"

    for _ in range(3):
        case.start(store=Store(case.app.store.url, patience=20, wire=Twice))
    assert case.run().result == "done"
    expected = [(group, n) for group in range(2) for n in range(3)]
    assert Counter(case.ledger) == dict.fromkeys([*expected, "after", ("child", 0), ("child", 1)], 1)
    assert check_invariants(case.app.store) == []


def test_of_two_waits_the_first_to_be_told_wins_for_good_and_the_other_is_dropped(case: Case) -> None:
    """BEHAVIOURS 92."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        won = yield beside.first(beside.wait("a", "a", timeout=3600), beside.wait("b", "b", timeout=3600))
        yield step.run("after", case.body("after", fails=2))
        return won

    crew(case, 2)
    run_id = case.send()
    until(lambda: [step.status for step in case.app.runs.get(run_id).steps] == ["waiting"] * 2)
    case.app.send(Event("b", {}))
    run = case.ended(run_id)
    assert run.result == 1, run.error
    assert {step.id: step.status for step in run.steps} == {"a": "cancelled", "b": "completed", "after": "completed"}
    keys = [key.decode() for key in case.app.store.client.scan_iter("flow:*")]
    assert [key for key in keys if any(part in key for part in ("waits", "waiters", "fields"))] == []
    assert check_invariants(case.app.store) == []


def test_lines_of_steps_side_by_side_are_kept_once_each_with_its_own_step_and_attempt(case: Case) -> None:
    """BEHAVIOURS 126."""
    meeting = Meeting(2)

    def speak(step: Any, name: str) -> None:
        step.log.info("log in %s", name)
        if step.attempt == 2 or name == "b":
            meeting.body(None)
        print(f"print in {name}")
        if step.attempt == 1 and name == "a":
            raise ValueError("once")

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        step.log.info("begins")
        yield beside.all(*(beside.run(name, speak, step, name) for name in "ab"))
        step.log.info("ends")

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    lines = Counter((text, step, attempt) for text, step, attempt in case.lines(run.id) if step in ("a", "b"))
    said = [(f"{how} in {name}", name, n) for name, n in (("a", 1), ("a", 2), ("b", 1)) for how in ("log", "print")]
    assert {line: n for line, n in lines.items() if line[0] != "ends"} == dict.fromkeys(said, 1)
    assert [text for text, _, _ in case.lines(run.id)].count("begins") == 1
    assert [text for text, _, _ in case.lines(run.id)].count("ends") == 1


def test_branches_that_are_sequences_run_ahead_of_each_other(case: Case) -> None:
    """BEHAVIOURS 87, 88: in either face as children; of coroutines see `test_coroutines`."""
    fast_is_done = threading.Event()

    def slow() -> str:
        assert fast_is_done.wait(20)
        return "slow"

    @case.function(on="branch", name="branch")
    def branch(event: Event[Any], step: Any) -> Any:
        name = event.data["name"]
        one = yield step.run("one", slow if name == "slow" else case.body(f"{name}-1", 1))
        two = yield step.run("two", case.body(f"{name}-2", 2))
        if name == "fast":
            yield step.run("done", fast_is_done.set)
        return [one, two]

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        return (yield beside.all(*(beside.invoke(name, "branch", {"name": name}) for name in ("slow", "fast"))))

    crew(case, 2)
    run = case.run()
    assert run.result == [["slow", 2], [1, 2]], run.error
    assert sorted(case.ledger) == ["fast-1", "fast-2", "slow-2"]
    assert check_invariants(case.app.store) == []
