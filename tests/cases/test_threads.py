"""A worker with several threads: runs side by side, each stopped by itself, coroutines on one loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from flowlib import Event, RunCancelled
from flowlib.testing import check_invariants
from flowlib.worker import FlowWorker
from tests.cases.case import Case, in_place, only_async
from tests.patience import until

THREADS = 4


def meet(parties: threading.Barrier) -> int:
    """Returns only if so many are here at the same time. Says on which thread."""
    parties.wait(20)
    return threading.get_ident()


@in_place
def test_as_many_runs_as_threads_are_played_at_a_time(case: Case) -> None:
    """BEHAVIOURS 13; also blocking bodies of async functions: each on its slot's own thread. BEHAVIOURS 12."""
    parties = threading.Barrier(THREADS)

    @case.function()
    def f(event: Any, step: Any) -> Any:
        return (yield step.run("meet", meet, parties))

    case.start(threads=THREADS)
    runs = [case.send({"n": n}) for n in range(THREADS)]
    assert len({case.ended(run).result for run in runs}) == THREADS
    assert check_invariants(case.app.store) == []


@only_async
def test_coroutines_of_all_runs_share_one_loop(case: Case) -> None:
    """BEHAVIOURS 12: a blocking body holds up no coroutine of another run."""
    gate, blocking, loops, turns = threading.Event(), threading.Event(), set[int](), Counter[str]()

    def block() -> str:
        blocking.set()
        return "blocking" if gate.wait(20) else "in vain"

    async def swing(name: str) -> str:
        loops.add(id(asyncio.get_running_loop()))
        while not gate.is_set():
            await asyncio.sleep(0.001)
            turns[name] += 1
        return "coroutine"

    @case.function()
    async def f(event: Event[Any], step: Any) -> Any:
        if event.data["name"] == "block":
            return await step.run("block", block)
        return await step.run("swing", swing, event.data["name"])

    case.start(threads=THREADS)
    runs = [case.send({"name": name}) for name in ("a", "block", "b")]
    assert blocking.wait(20)
    before = turns.copy()
    until(lambda: all(turns[name] > before[name] for name in "ab"))
    gate.set()
    assert [case.ended(run).result for run in runs] == ["coroutine", "blocking", "coroutine"]
    assert len(loops) == 1


@in_place
@pytest.mark.parametrize("blocking", [True, False])
def test_a_timeout_ends_its_own_body_only(case: Case, blocking: bool) -> None:
    gate = threading.Event()

    def block() -> str:
        while not gate.is_set():
            time.sleep(0.001)
        return "in time"

    async def swing() -> str:
        while not gate.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return "in time"

    @case.function(retries=0)
    def f(event: Any, step: Any) -> Any:
        return (yield step.options(timeout=event.data["timeout"]).run("work", block if blocking else swing))

    case.start(threads=THREADS)
    patient = case.send({"timeout": 60})
    until(lambda: case.app.runs.get(patient).step == "work")
    hasty = case.ended(case.send({"timeout": 0.05}))
    assert hasty.error is not None
    assert hasty.error.type == "StepTimeout"
    gate.set()
    assert case.ended(patient).result == "in time"


@in_place
def test_the_right_step_is_cancelled_by_command_and_by_name(case: Case) -> None:
    """BEHAVIOURS 97: the others go on."""
    gate = threading.Event()

    def work(number: int) -> int:
        while not gate.is_set():
            time.sleep(0.001)
        return number

    @case.function()
    def f(event: Any, step: Any) -> Any:
        return (yield step.run("work", work, event.data["n"]))

    case.start(threads=THREADS)
    runs = [case.send({"n": n}) for n in range(3)]
    until(lambda: all(case.app.runs.get(run).step == "work" for run in runs))
    send_stop_job_command(case.app.store.client, f"{runs[0]}-work", serializer=JSONSerializer)
    with pytest.raises(RunCancelled):
        case.app.runs.result(runs[0], 20)
    case.app.runs.cancel(runs[1], "by name")
    until(lambda: sum(slot.frame is not None for slot in case._workers[0][0].slots) == 1)
    gate.set()
    assert case.ended(runs[2]).result == 2
    assert [case.app.runs.get(run).status for run in runs] == ["cancelled", "cancelled", "completed"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_worker_that_is_to_stop_finishes_all_that_runs_and_takes_nothing_more(case: Case) -> None:
    """BEHAVIOURS 130."""
    parties, gate = threading.Barrier(THREADS + 1), threading.Event()

    def work() -> str:
        parties.wait(20)
        gate.wait(20)
        return "done"

    @case.function()
    def f(event: Any, step: Any) -> Any:
        yield step.run("work", work)
        return (yield step.run("later", case.body("later", "later")))

    worker = case.start(threads=THREADS)
    runs = [case.send({"n": n}) for n in range(THREADS)]
    parties.wait(20)
    waiting = case.send({"n": "too late"})
    worker.stop()
    gate.set()
    case.join()
    assert [case.app.runs.outputs(run) for run in runs] == [{"work": "done"}] * THREADS
    assert case.app.runs.outputs(waiting) == {}
    assert case.ledger == []
    assert {case.app.runs.get(run).state for run in [*runs, waiting]} == {"queued"}
    assert check_invariants(case.app.store) == []


@only_async
def test_what_a_body_leaves_on_the_loop_is_ended_with_it_and_nobody_elses(case: Case) -> None:
    gate = threading.Event()

    async def linger(name: str) -> None:
        try:
            while not gate.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            case.ledger.append(f"{name} let go")
        except asyncio.CancelledError:
            case.ledger.append(f"{name} ended")
            raise

    async def begin(name: str, stays: bool) -> None:
        task = asyncio.create_task(linger(name))
        await asyncio.sleep(0.01)
        case.ledger.append(f"{name} began")
        if stays:
            await task

    @case.function()
    async def f(event: Any, step: Any) -> Any:
        await step.run("begin", begin, event.data["name"], event.data["stays"])

    case.start(threads=THREADS)
    stays = case.send({"name": "a", "stays": True})
    until(lambda: case.ledger == ["a began"])
    assert case.run({"name": "b", "stays": False}).status == "completed"
    assert case.ledger == ["a began", "b began", "b ended"]
    gate.set()
    assert case.ended(stays).status == "completed"
    assert case.ledger[3:] == ["a let go"]


@in_place
def test_many_short_runs_on_many_threads_are_all_right(case: Case) -> None:
    @case.function(on="many")
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for n in range(3):
            total += yield step.run(f"add-{n}", case.body(f"{event.data['n']}-{n}", n))
        return total

    case.start(threads=THREADS)
    events = case.app.send([Event("many", {"n": n}) for n in range(60)])
    until(lambda: all(case.app.runs.of_event(event) for event in events))
    runs = [case.app.runs.of_event(event)[0] for event in events]
    assert {case.ended(run).result for run in runs} == {3}
    assert sorted(case.ledger) == sorted(f"{n}-{m}" for n in range(60) for m in range(3))
    assert check_invariants(case.app.store) == []


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What is left to Python's garbage collector stays there."""
    gc.disable()
    yield
    gc.enable()


@in_place
@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("threads", [1, THREADS])
@pytest.mark.parametrize("burst", [False, True], ids=["stays", "burst"])
def test_a_worker_that_has_ended_leaves_no_connection_open(
    case: Case, redis: redis_py.Redis, threads: int, burst: bool
) -> None:
    """Its process may go on; so may the trouble that a connection has seen."""

    def connected() -> set[str]:
        return {each["id"] for each in redis.client_list()}

    @case.function()
    def f(event: Any, step: Any) -> Any:
        return (yield step.run("one", lambda: 1))

    before = connected()
    worker = case.start(threads=threads)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert case.run().result == 1
    worker.stop()
    case.join()
    if burst:
        case.app.send(Event("test", {}))
        one = FlowWorker(app=case.app, threads=threads)
        thread = threading.Thread(target=one.work, kwargs={"burst": True})
        thread.start()
        thread.join()
        assert [run.status for run in case.app.runs.list()] == ["completed"] * 2
    case.app.store.close()
    until(lambda: connected() <= before)
