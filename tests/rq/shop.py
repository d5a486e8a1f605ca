"""The app that both kinds of worker run in these tests. Its steps note what they do in `shop:diary`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from flowlib import App, Event, NonRetriable, Step, StepFailed

app = App("shop", retries=0)

DIARY, GATE = "shop:diary", "shop:gate"


def note(word: str) -> str:
    app.store.client.rpush(DIARY, word)
    return word


def reserve(amount: int) -> int:
    note("reserve")
    return amount + 1


def charge(amount: int) -> dict[str, int]:
    note("charge")
    return {"paid": amount}


def hold() -> str:
    """Until the test opens the gate."""
    note("hold")
    while app.store.client.blpop([GATE], timeout=1) is None:
        pass
    return "held"


def break_down() -> None:
    note("break")
    raise ValueError("it broke")


def refuse() -> None:
    note("refuse")
    raise NonRetriable("never")


def work_at_second_try(step: Step) -> str:
    note(f"try {step.attempt}")
    if step.attempt == 1:
        raise ConnectionError("the first try fails")
    return "worked"


@app.function(on="order")
def order(event: Event[dict[str, Any]], step: Step) -> int:
    reserved = step.run("reserve", reserve, event.data["amount"])
    return step.run("charge", charge, reserved)["paid"]


@app.function(on="order for later")
def order_for_later(event: Event[dict[str, Any]], step: Step) -> int:
    reserved = step.run("reserve", reserve, event.data["amount"])
    step.sleep("hour", 3600)
    return step.run("charge", charge, reserved)["paid"]


@app.function(on="hold")
def keep(event: Event[dict[str, Any]], step: Step) -> str:
    held = step.run("hold", hold)
    step.run("after", note, "after")
    return held


def hold_and_fail_once(step: Step) -> str:
    held = hold()
    if step.attempt == 1:
        app.store.client.rpush(GATE, "open")
        raise ConnectionError("the first try fails")
    return held


@app.function(on="hold and fail once", retries=1, backoff=0.1)
def fickle(event: Event[dict[str, Any]], step: Step) -> str:
    return step.run("fickle", hold_and_fail_once, step)


@app.function(on="break")
def broken(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("break", break_down)


@app.function(on="be slow")
def slow(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("slow", time.sleep, 0.05)


@app.function(on="block")
def blocked(event: Event[dict[str, Any]], step: Step) -> None:
    step.options(timeout=0.3).run("block", time.sleep, 100)


@app.function(on="nap")
def nap(event: Event[dict[str, Any]], step: Step) -> str:
    step.sleep("nap", event.data["seconds"])
    return step.run("awake", note, "awake")


@app.function(on="journey", retries=1, backoff=1)
def journey(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """A retry, a failure that is caught, a sleep."""
    told = [step.run("flaky", work_at_second_try, step)]
    try:
        step.run("doomed", refuse)
    except StepFailed as failed:
        told.append(failed.message)
    step.sleep("nap", 0.1)
    return [*told, step.run("last", note, "last")]


def first_time(what: str) -> bool:
    """Whether this has never happened before, in any process."""
    return app.store.client.hincrby("shop:times", what, 1) == 1


def die_at_first_try() -> str:
    note("side effect")
    if first_time("body"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.function(on="die in the body")
def die_in_body(event: Event[dict[str, Any]], step: Step) -> str:
    return step.run("deadly", die_at_first_try)


@app.function(on="die after the memo")
def die_after_memo(event: Event[dict[str, Any]], step: Step) -> str:
    said = step.run("said", note, "said")
    if first_time("between"):
        os.kill(os.getpid(), signal.SIGKILL)
    return step.run("last", note, f"{said} and done")
