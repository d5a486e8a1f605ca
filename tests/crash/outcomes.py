"""Runs for the storm that end in every way, and what is called when they do. What becomes of whom, `fates.py` knows."""

from __future__ import annotations

from typing import Any

from flowlib import App, AsyncStep, Ending, Event, NonRetriable, Step, StepFailed, matching, run_finished, trigger

from .kinship import FOREVER, dwelling, growing
from .mixture import ASIDE, PATIENT, keep, work, work_async, work_promptly
from .people import answer_to, is_mended, write_letter

app = App("mixture", retries=3, backoff=0.05)

KINDS = (
    "failing",
    "succeeding",
    "late",
    "hasty",
    "stopped",
    "endless",
    "petitioning",
    "petitioning-async",
    "calling",
    "mending",
    "repeating",
    "revising",
    "undoing",
    "undoing-async",
    "undoing-midway",
    "choosy",
    "later",
)
OVERHEARD = ("failing", "succeeding", "late", "stopped")  # whose ends `overhearing` is on, whatever they are
UNDO = "undo give_back"


def handle(event: Event[Ending], step: Step) -> str:
    return step.run("handle", keep, step, "handle", event.data.run)


async def handle_async(event: Event[Ending], step: AsyncStep) -> str:
    return await step.run("handle", keep, step, "handle", event.data.run)


@app.function(on=trigger(run_finished, when=lambda event: event.data.function in OVERHEARD), limits=PATIENT)
def overhearing(event: Event[Ending], step: Step) -> str:
    return step.run("handle", keep, step, "handle", event.data.run)


@app.function(on="failing", limits=PATIENT, on_failure=handle, on_success=handle)
def failing(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("a", work, step, "a", 0)
    step.run("b", work_promptly, step, "b", 0)
    raise NonRetriable("that is how it ends")


@app.function(on="succeeding", limits=PATIENT, on_success=handle_async, on_failure=handle_async)
async def succeeding(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    await step.run("a", work_async, step, "a", 0)
    return await step.run("b", work_promptly, step, "b", 3)


@app.function(on="late", limits=PATIENT, run_timeout=0.5, on_cancel=handle)
def late(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("a", work, step, "a", 0)
    step.submit("b", work, step, "b", 0)
    step.timer("c", FOREVER).result()


@app.function(on="hasty", limits=PATIENT, queue=ASIDE, start_timeout=0.1)
def hasty(event: Event[dict[str, Any]], step: Step) -> int:
    """To begin at once, or not at all."""
    return step.run("a", work_promptly, step, "a", 3)


@app.function(on="stopped", limits=PATIENT, cancel_on=matching("stop", "order"), on_cancel=handle)
def stopped(event: Event[dict[str, Any]], step: Step) -> None:
    """By an event that comes with its own, or that it sends itself."""
    step.run("a", work_promptly, step, "a", 0)
    if event.data["itself"]:
        step.send_event("stop", Event("stop", {"order": event.data["order"]}))
    step.run("b", work_promptly, step, "b", 0)
    step.wait_for_event("nothing", "nothing", match={"order": event.data["order"]}, timeout=FOREVER)


@app.function(on="endless", limits=PATIENT, on_cancel=handle_async)
def endless(event: Event[dict[str, Any]], step: Step) -> None:
    """Cancelled by hand, with its child, but without the one that depends on nobody."""
    step.start("own", growing, {"nap": 0.1}, detached=True)
    step.submit("a", work, step, "a", 0)
    step.run("write", write_letter, "cancel", step.run_id, event.id)
    step.run("b", work, step, "b", 0)
    step.invoke("child", dwelling, {"depth": 1})


@app.function(on="petitioning", limits=PATIENT)
def petitioning(event: Event[dict[str, Any]], step: Step) -> int:
    """4, if it is answered as its promise was settled, which may be before it asks."""
    promise = step.promise("answer", as_=str, timeout=600)
    step.run("write", write_letter, "settle", promise.token, event.id)
    number = step.run("a", work, step, "a", 2)
    try:
        heard = (True, promise.result())
    except StepFailed as failed:
        heard = (False, failed.message)
    return step.run("b", work_promptly, step, "b", number) if heard == answer_to(promise.token) else 0


@app.function(on="petitioning-async", name="petitioning-async", limits=PATIENT)
async def petitioning_async(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    promise = step.promise("answer", as_=str, timeout=600)
    await step.run("write", write_letter, "settle", promise.token, event.id)
    number = await step.run("a", work_async, step, "a", 2)
    try:
        heard = (True, await promise.result())
    except StepFailed as failed:
        heard = (False, failed.message)
    return await step.run("b", work_promptly, step, "b", number) if heard == answer_to(promise.token) else 0


@app.function(on="calling", limits=PATIENT)
def calling(event: Event[dict[str, Any]], step: Step) -> int:
    """Has somebody outside call a function, and wait for what it returns."""
    step.run("write", write_letter, "call", step.run_id, event.id)
    return step.run("a", work_promptly, step, "a", 3)


def charge(step: Step, run: str, event: str, what: Any) -> int:
    """Fails until somebody has done something about it."""
    if not is_mended(event):
        write_letter(what, run, event)
        keep(step, "charge", "failed")
        raise NonRetriable("no money")
    return work_promptly(step, "charge", 2)


@app.function(on="mending", limits=PATIENT, on_failure=handle, cancel_on=matching("stop", "order"))
def mending(event: Event[dict[str, Any]], step: Step) -> int:
    step.run("a", work, step, "a", 0)
    number = step.run("charge", charge, step, step.run_id, event.id, "retry")
    return step.run("b", work_promptly, step, "b", number)


@app.function(on="repeating", limits=PATIENT)
def repeating(event: Event[dict[str, Any]], step: Step) -> int:
    step.run("a", work, step, "a", 0)
    number = step.run("charge", charge, step, step.run_id, event.id, "replay")
    return step.run("b", work_promptly, step, "b", number)


@app.function(on="revising", limits=PATIENT)
def revising(event: Event[dict[str, Any]], step: Step) -> int:
    step.run("a", work, step, "a", 0)
    number = step.run("charge", charge, step, step.run_id, event.id, "revise")
    return step.run("b", work_promptly, step, "b", number)


def give_back(step: Step | AsyncStep, nth: int) -> None:
    name = UNDO if nth == 1 else f"{UNDO} #{nth}"
    work_promptly(step, name, 0)


@app.function(on="undoing", limits=PATIENT, on_failure=handle)
def undoing(event: Event[dict[str, Any]], step: Step) -> None:
    for nth, name in enumerate("abc", 1):
        step.run(name, work_promptly, step, name, 0)
        step.on_rollback(give_back, step, nth)
    raise NonRetriable("all of it is undone")


@app.function(on="undoing-async", name="undoing-async", limits=PATIENT, on_failure=handle)
async def undoing_async(event: Event[dict[str, Any]], step: AsyncStep) -> None:
    for nth, name in enumerate("abc", 1):
        await step.run(name, work_async, step, name, 0)
        step.on_rollback(give_back, step, nth)
    raise NonRetriable("all of it is undone")


@app.function(on="undoing-midway", name="undoing-midway", limits=PATIENT, run_timeout=0.5, on_cancel=handle)
def undoing_midway(event: Event[dict[str, Any]], step: Step) -> int:
    """4, or cancelled wherever it is."""
    number = 0
    for nth, name in enumerate("abcd", 1):
        number = step.run(name, work, step, name, number)
        step.on_rollback(give_back, step, nth)
        step.sleep(f"nap-{name}", 0.12)
    return number


@app.function(on=trigger("choosy", when=lambda event: event.data["number"] % 2 == 0), limits=PATIENT)
def even(event: Event[dict[str, Any]], step: Step) -> int:
    return step.run("a", work_promptly, step, "a", 3 + event.data["number"] % 2)


@app.function(on=trigger("choosy", when=lambda event: event.data["number"] % 2 == 1), limits=PATIENT)
def odd(event: Event[dict[str, Any]], step: Step) -> int:
    return step.run("a", work_promptly, step, "a", 2 + event.data["number"] % 2)


@app.function(on="later", limits=PATIENT)
def later(event: Event[dict[str, Any]], step: Step) -> int:
    """4, if it was not begun before the time of its event, and goes the new way each time."""
    number = step.run("a", work_promptly, step, "a", 1)
    if step.patched("new"):
        number = step.run("b", work, step, "b", number)
    if step.patched("new") and step.now() >= event.ts:
        number = step.run("c", work_promptly, step, "c", number)
    return number
