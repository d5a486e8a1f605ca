"""Middleware: hooks in order on the way in, in reverse on the way out, once per real execution, and never in a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowlib import App, ConfigError, Event, Middleware, StepFailed
from flowlib.middleware import RunInfo, StepInfo
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place, only_async, only_sync


class Noting(Middleware):
    """Notes each way in and out; `call` would note replays, too."""

    def __init__(self, label: str, ledger: list[Any]) -> None:
        self._label, self._ledger = label, ledger

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        self._ledger.append(f"{what} > {self._label}")
        try:
            yield
        except BaseException as error:
            self._ledger.append(f"{what} ! {self._label} {type(error).__name__}")
            raise
        else:
            self._ledger.append(f"{what} < {self._label}")

    def send(self, event: Event[Any], meta: dict[str, str]) -> Any:
        meta[self._label] = event.name
        return self._noted(f"send {event.name}")

    def start(self, run: RunInfo) -> Any:
        return self._noted(f"start {run.function}")

    def step(self, step: StepInfo) -> Any:
        return self._noted(f"{step.kind} {step.id} {step.attempt}")


def around(what: str, between: list[str]) -> list[str]:
    return [f"{what} > a", f"{what} > b", *between, f"{what} < b", f"{what} < a"]


def raised(what: str, between: list[str]) -> list[str]:
    return [f"{what} > a", f"{what} > b", *between, f"{what} ! b ValueError", f"{what} ! a ValueError"]


def noting(case: Case) -> None:
    case.use_middleware([Noting("a", case.ledger), Noting("b", case.ledger)])


def test_hooks_are_called_once_per_real_execution_in_order_and_in_reverse(case: Case) -> None:
    """BEHAVIOURS 127: not for replays, nor for what has no body."""
    noting(case)

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", case.body("flaky", fails=1))
        yield step.sleep("nap", 0.01)
        yield step.send_event("tell", Event("told", {}))
        yield step.wait_for_event("answer", "answer", timeout=0.01)
        case.body("between", fails=1)()
        yield step.run("last", case.body("last"))

    run = case.run()
    assert run.status == "completed", run.error
    expected = [
        *raised("run flaky 1", ["flaky"]),
        *around("run flaky 2", ["flaky"]),
        *around("send tell 1", around("send told", [])),
        *around("run last 1", ["last"]),
    ]  # fmt: skip
    assert [each for each in case.ledger if not each.startswith(("start", "between", "send test"))] == expected
    sent = [
        each for each in case.ledger if each.startswith("send test")
    ]  # the worker may be faster than the producer's exit
    assert sent == around("send test", [])
    starts = [each for each in case.ledger if each.startswith("start")]
    assert starts == around("start f", [])
    assert check_invariants(case.app.store) == []


@only_sync
def test_what_a_hook_puts_beside_an_event_comes_with_its_run_and_its_replay(case: Case) -> None:
    """Also from a step, and through waits."""
    told: list[Any] = []

    class Telling(Noting):
        def start(self, run: RunInfo) -> Any:
            told.append((run.function, run.meta, run.event_name, run.app))
            return super().start(run)

    case.use_middleware([Telling("a", case.ledger)])

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", Event("second", {}, id="second"))

    @case.function(on="second")
    def g(event: Event[Any], step: Any) -> Any: ...

    run = case.run()
    (second,) = case.app.runs.of_event("second") or [""]
    case.ended(second)
    case.ended(case.app.runs.replay(run.id, from_step="tell"))
    assert told == [
        ("f", {"a": "test"}, "test", "case"), ("g", {"a": "second"}, "second", "case"), ("f", {"a": "test"}, "test", "case"),
    ]  # fmt: skip


class Faulty(Middleware):
    """Raises at this place, so many times."""

    def __init__(self, at: str, times: int) -> None:
        self._at, self._left = at, times

    @contextmanager
    def step(self, step: StepInfo) -> Iterator[None]:
        self._fail("in")
        try:
            yield
        finally:
            self._fail("out")

    @contextmanager
    def start(self, run: RunInfo) -> Iterator[None]:
        self._fail("start")
        yield

    def _fail(self, place: str) -> None:
        if place == self._at and self._left:
            self._left -= 1
            raise OSError(f"{place} failed")


@pytest.mark.parametrize(("place", "bodies"), [("in", 1), ("out", 2), ("start", 1)])
@in_place
def test_an_error_of_a_hook_is_one_of_the_attempt_or_of_the_function_and_is_tried_again(
    case: Case, place: str, bodies: int
) -> None:
    case.use_middleware([Faulty(place, 1)])

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.run("work", case.body("work", 7)))

    run = case.run()
    assert (run.status, run.result, case.ledger) == ("completed", 7, ["work"] * bodies)
    assert [entry.detail["error"]["message"] for entry in case.entries(run.id, "failed")] == [f"{place} failed"]
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize("place", ["in", "out"])
@in_place
def test_a_hook_that_goes_on_failing_fails_the_step(case: Case, place: str) -> None:
    case.use_middleware([Faulty(place, 9)])

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("work", case.body("work", 7))

    run = case.run()
    assert (run.status, run.error and run.error.step, run.error and run.error.attempt) == ("failed", "work", 2)
    assert check_invariants(case.app.store) == []


@in_place
def test_a_step_that_a_hook_has_failed_is_raised_where_its_result_is_asked_for(case: Case) -> None:
    case.use_middleware([Faulty("in", 9)])

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        found = yield beside.join(beside.run("a", case.body("a")), beside.run("b", case.body("b")))
        return [each.step for each in found if isinstance(each, StepFailed)]

    run = case.run()
    assert (run.status, run.result) == ("completed", ["a", "b"]), run.error
    assert case.ledger == []
    assert check_invariants(case.app.store) == []


@only_async
def test_parallel_coroutines_have_each_their_own_hooks(case: Case) -> None:
    """One worker takes them one after the other. On several, and of sync functions: `test_beside`."""
    noting(case)

    @case.function()
    async def f(event: Event[Any], step: Any) -> Any:
        return await asyncio.gather(*(step.run(f"s{n}", case.body(n, n)) for n in range(3)))

    run = case.run()
    assert run.result == [0, 1, 2]
    assert sorted(each for each in case.ledger if "run s1" in str(each)) == sorted(around("run s1 1", []))


@pytest.mark.parametrize("wrong", [["a"], [Middleware], [object()]])
def test_what_is_no_middleware_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must be an instance of a subclass of"):
        App("x", middleware=wrong)


def test_two_that_encode_need_names_of_their_own() -> None:
    class Coder(Middleware):
        def encode(self, data: bytes) -> bytes:
            return data

    with pytest.raises(ConfigError, match="needs a name"):
        App("x", middleware=[Coder()])
    Coder.name = "coder"
    with pytest.raises(ConfigError, match="have one name"):
        App("x", middleware=[Coder(), Coder()])


@only_sync
def test_what_is_put_beside_an_event_comes_with_the_children_of_its_run_and_with_calls(case: Case) -> None:
    """So that all of it is one trace."""
    told: list[Any] = []

    class Telling(Middleware):
        def send(self, event: Event[Any], meta: dict[str, str]) -> Any:
            meta["of"] = f"{event.name} {event.data}"
            return super().send(event, meta)

        def start(self, run: RunInfo) -> Any:
            told.append((run.function, run.meta))
            return super().start(run)

    case.use_middleware([Telling()])

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.invoke("child", "child", {})

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        yield step.invoke("grandchild", "grandchild", {})

    @case.function(on="grandchild", name="grandchild")
    def grandchild(event: Event[Any], step: Any) -> Any: ...

    case.run({"n": 7})
    assert told == [(each, {"of": "test {'n': 7}"}) for each in ("f", "child", "grandchild")]
    told.clear()
    case.app.call("child", {"n": 8}).result(20)
    assert told == [(each, {"of": "flow/invoke {'n': 8}"}) for each in ("child", "grandchild")]
