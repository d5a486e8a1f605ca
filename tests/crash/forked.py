"""Runs that go on side by side, that workers are killed in: submitted steps, a map, a race, and coroutines."""

from __future__ import annotations

import asyncio
from typing import Any

from flowlib import App, AsyncStep, Event, Step, StepFailed

from .bodies import refuse, say, say_at_second_try
from .ledger import noted

app = App("forked", retries=3, backoff=0.05)

STEPS = ["a", "flaky", "doomed", "nap", "told", "each[0]", "each[1]", "each[2]", "quick", "last"]
TOLD = ["a", "flaky", "doomed failed", True, ["0", "1", "2"], "quick", "last"]
TRIES = {"a": 1, "flaky": 2, "doomed": 1, "each[0]": 1, "each[1]": 1, "each[2]": 1, "quick": 1, "last": 1}

COROUTINES = ["x1", "x2", "y1", "y2", "nap", "body", "last"]
TOLD_BY_COROUTINES = [["x1", "x2"], ["y1", "y2"], "body", "last"]
TRIES_OF_COROUTINES = {"x1": 1, "x2": 1, "y1": 1, "y2": 1, "body": 1, "last": 1}


@app.function(on="crash.forked")
def forked(event: Event[dict[str, Any]], step: Step) -> list[Any]:
    def each(number: int) -> str:
        with noted(step, f"each[{number}]"):
            return str(number)

    told: list[Any] = []
    a, flaky = step.submit("a", say, step, "a"), step.submit("flaky", say_at_second_try, step, "flaky")
    doomed, nap = step.submit("doomed", refuse, step, "doomed"), step.timer("nap", 0.05)
    heard = step.expect_event("told", "crash.forked", since=event.ts, timeout=60)
    told += step.gather(a, flaky)
    try:
        doomed.result()
    except StepFailed as failed:
        told.append(failed.message)
    nap.result()
    told += [heard.result() is not None, step.map("each", each, range(3), limit=2)]
    quick = step.submit("quick", say, step, "quick")
    won = step.first(quick, step.timer("late", 3600))
    return [*told, won.result(), step.run("last", say, step, "last")]


@app.function(on="crash.coroutines")
async def coroutines(event: Event[dict[str, Any]], step: AsyncStep) -> list[Any]:
    async def branch(name: str) -> list[str]:
        one = await step.run(f"{name}1", say, step, f"{name}1")
        if name == "x":
            await step.sleep("nap", 0.05)
        return [one, await step.run(f"{name}2", say, step, f"{name}2")]

    told: list[Any] = list(await asyncio.gather(branch("x"), branch("y")))
    body = await asyncio.wait_for(step.run("body", say, step, "body"), timeout=3600)
    return [*told, body, await step.run("last", say, step, "last")]
