"""Runs of every kind of ending, for what they leave behind."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from flowlib import App, AsyncStep, Ending, Event, NonRetriable, Step, StepFailed, matching

app = App("leavings", retries=1, backoff=0.02, queue="leavings")


@app.function(on="leavings/short")
def short(event: Event[dict[str, Any]], step: Step) -> int:
    return sum(step.run("add", add, number) for number in range(3))


@app.function(on="leavings/apart")
async def apart(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    """Each step is told by the run, and in another queue."""
    return await step.options(queue="other").run(f"add {event.id}", add, 1)


@app.function(on="leavings/flaky")
def flaky(event: Event[dict[str, Any]], step: Step) -> int:
    step.sleep("nap", 0.01)
    try:
        step.run("refuse", refuse)
    except StepFailed:
        return step.run("fail", fail_once, step)
    return 0


@app.function(on="leavings/doomed")
def doomed(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("add", add, 1)
    step.run("refuse", refuse)


@app.function(on="leavings/asleep")
def asleep(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("add", add, 1)
    step.sleep("night", timedelta(hours=8))


@app.function(on="leavings/long")
def long(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("wait", wait)


@app.function(on="leavings/forked")
def forked(event: Event[dict[str, Any]], step: Step) -> int:
    """Side by side, and one that nobody asks for."""
    first, second = step.submit("first", add, 1), step.options(queue="other").submit("second", add, 2)
    step.submit("unasked", add, 3)
    late, news = step.timer("late", 0.01), step.expect_event("news", "leavings/news", match={"of": event.id})
    return (step.first(late, news) is late) + sum(step.map("each", add, [first.result(), second.result()]))


@app.function(on="leavings/gathered")
async def gathered(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    return sum(await asyncio.gather(*(step.run(f"add {number}", add_async, number) for number in range(3))))


@app.function(on="leavings/waiting")
def waiting(event: Event[dict[str, Any]], step: Step) -> str:
    """For what comes, for what does not, and for what somebody promises."""
    step.send_event("tell", Event("leavings/news", {"of": event.id}))
    came = step.wait_for_event("came", "leavings/news", match={"of": event.id}, since=event.ts)
    missed = step.wait_for_any("missed", "leavings/news", "leavings/never", match={"of": "nobody"}, timeout=0.01)
    try:
        return f"{came and came.name} {missed} {step.promise('broken', timeout=0.01).result()}"
    except StepFailed as late:
        return late.type


@app.function(on="leavings/invoking")
def invoking(event: Event[dict[str, Any]], step: Step) -> int:
    begun = step.start("begun", "leavings/apart", {})
    step.start("left", "leavings/asleep", {})  # which is cancelled with it
    number = step.invoke("asked", short, {"of": step.run_id})
    if number + begun.result() != 8:
        return 0
    raise NonRetriable("so that the child that sleeps is cancelled")


def handle(event: Event[Ending], step: Step) -> str:
    return step.run("handle", str, event.data.status)


@app.function(on="leavings/undoing", on_failure=handle, run_timeout=3600)
def undoing(event: Event[dict[str, Any]], step: Step) -> None:
    step.on_rollback(add, step.run("add", add, 1))
    step.run("refuse", refuse)


@app.function(on="leavings/stopped", cancel_on=matching("leavings/stop", "of"), on_cancel=handle, on_success=handle)
def stopped(event: Event[dict[str, Any]], step: Step) -> None:
    """Or ended before that."""
    step.on_rollback(add, step.run("add", add, 1))
    step.send_event("stop", Event("leavings/stop", {"of": event.data["of"]}))
    step.sleep("moment", 0.01)


@app.function(on="leavings/many")
def many(event: Event[dict[str, Any]], step: Step) -> int:
    return sum(step.run(f"add {event.id} {number}", add, number) for number in range(event.data["steps"]))


@app.function(on="leavings/many-async")
async def many_async(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    return sum([await step.run(f"add {event.id} {number}", add_async, number) for number in range(event.data["steps"])])


@app.function(on="leavings/many-failing")
def many_failing(event: Event[dict[str, Any]], step: Step) -> int:
    failures = 0
    for number in range(event.data["steps"]):
        try:
            step.run(f"refuse {event.id} {number}", refuse)
        except StepFailed:
            failures += 1
    return failures


def add(number: int) -> int:
    return number + 1


async def add_async(number: int) -> int:
    return number + 1


def refuse() -> None:
    raise NonRetriable("no")


def fail_once(step: Step) -> int:
    if step.attempt == 1:
        raise ConnectionError("the first try fails")
    return 1


def wait() -> None:
    """Until it is interrupted."""
    while True:
        time.sleep(0.01)
