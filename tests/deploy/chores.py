"""A run with one step of each temper: for what a worker may need a permission for."""

from __future__ import annotations

import logging
import threading
from typing import Any

from flowlib import App, AsyncStep, Event, Step, StepFailed

app = App("chores", retries=1, backoff=0.01)
log = logging.getLogger("chores")
gate = threading.Event()


def flaky(step: Step) -> int:
    if step.attempt == 1:
        raise ConnectionError("the first try fails")
    return step.attempt


def hopeless() -> None:
    raise ValueError("never")


def wait() -> None:
    log.warning("the gate is closed")
    gate.wait(30)


async def double(number: int) -> int:
    return 2 * number


@app.function(on="chores.all")
def every(event: Event[dict[str, Any]], step: Step) -> int:
    number = step.run("flaky", flaky, step)
    step.sleep("nap", 0.01)
    step.wait_for_event("news", "chores.news", timeout=0.01, since=event.ts)
    try:
        step.run("hopeless", hopeless)
    except StepFailed:
        number += 1
    return number + step.options(queue="other").run("elsewhere", int, "4")


@app.function(on="chores.async")
async def coroutine(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    return await step.run("double", double, 2)


@app.function(on="chores.failing")
def failing(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("hopeless", hopeless)


@app.function(on="chores.doomed", retries=0)
def doomed(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("hopeless", hopeless)


@app.function(on="chores.waiting")
def waiting(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("wait", wait)
