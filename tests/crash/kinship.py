"""Runs for the storm that have others run for them. What becomes of whom, `fates.py` knows."""

from __future__ import annotations

import asyncio
from typing import Any

from flowlib import App, AsyncStep, Event, NonRetriable, Step, StepFailed

from .mixture import ASIDE, PATIENT, refuse, work, work_promptly

app = App("mixture", retries=3, backoff=0.05)

KINDS = ("raising", "gathering", "leaving", "meeting", "rare")
FOREVER = 3600.0  # seconds


@app.function(on="growing", limits=PATIENT)
def growing(event: Event[dict[str, Any]], step: Step) -> str:
    step.run("a", work_promptly, step, "a", 0)
    step.sleep("nap", event.data["nap"])
    step.options(queue=ASIDE).run("b", work, step, "b", 0)
    return step.run_id


@app.function(on="refusing", limits=PATIENT)
def refusing(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("refused", refuse, step, "refused")


@app.function(on="dwelling", limits=PATIENT)
def dwelling(event: Event[dict[str, Any]], step: Step) -> None:
    """Until it is cancelled, with one of its own."""
    step.run("a", work_promptly, step, "a", 0)
    if event.data["depth"]:
        step.invoke("deeper", dwelling, {"depth": event.data["depth"] - 1})
    step.sleep("stay", FOREVER)


@app.function(on="rare", limits=PATIENT)
async def rare(event: Event[dict[str, Any]], step: AsyncStep) -> str:
    """Some workers do not know it."""
    await step.run("a", work_promptly, step, "a", 0)
    return step.run_id


@app.function(on="raising", limits=PATIENT)
def raising(event: Event[dict[str, Any]], step: Step) -> list[str]:
    first = step.start("first", growing, {"nap": 0.05})
    number = step.run("a", work, step, "a", 0)
    second = step.invoke("second", "mixture/growing", {"nap": 0})
    try:
        step.invoke("third", "refusing", {})
    except StepFailed as failed:
        if "never" not in failed.message:
            raise NonRetriable(f"it failed for another reason: {failed}") from None
    step.run("b", work, step, "b", number)
    return [first.result(), second]


@app.function(on="gathering", limits=PATIENT)
async def gathering(event: Event[dict[str, Any]], step: AsyncStep) -> list[str]:
    async def child(name: str) -> str:
        await step.run(f"{name}1", work_promptly, step, f"{name}1", 0)
        found = await step.invoke(f"{name}2", growing, {"nap": 0})
        await step.run(f"{name}3", work_promptly, step, f"{name}3", 0)
        return found

    return list(await asyncio.gather(child("x"), child("y")))


@app.function(on="leaving", limits=PATIENT)
def leaving(event: Event[dict[str, Any]], step: Step) -> str:
    """One child goes on without it, one is not waited for in the end."""
    own = step.start("own", growing, {"nap": 0.2}, detached=True)
    stays = step.start("stays", dwelling, {"depth": 1})
    step.first(stays, step.timer("too-late", 0.1))
    step.run("a", work_promptly, step, "a", 0)
    return own.result()


@app.function(on="meeting", limits=PATIENT)
def meeting(event: Event[dict[str, Any]], step: Step) -> list[str]:
    step.run("a", work_promptly, step, "a", 0)
    return [step.invoke("rare", "mixture/rare", {})]
