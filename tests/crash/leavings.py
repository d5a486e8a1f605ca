"""Runs of every kind of ending, for what they leave behind."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from flowlib import App, AsyncStep, Event, NonRetriable, Step, StepFailed

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
