"""An app whose runs fail, succeed, are cancelled and run out of time, and processes that die as they bring that about."""

from __future__ import annotations

import time
from typing import Any

from flowlib import App, Ending, Event, NonRetriable, Step, matching
from flowlib.store import Store

from .doom import deadly_wire
from .ledger import noted

app = App("endings", retries=0)


def work(step: Step, name: str, fail: bool = False) -> None:
    with noted(step, name):
        if fail:
            raise ValueError(name)


def handle(event: Event[Ending], step: Step) -> str:
    step.run("handle", work, step, "handle")
    return event.data.run


@app.function(on="crash.end", on_failure=handle, on_success=handle, on_cancel=handle)
def ending(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("work", work, step, "work", fail=event.data["how"] == "fail")
    if event.data["how"] == "sleep":
        step.sleep("nap", 3600)


@app.function(on="crash.order", cancel_on=matching("crash.stop", "order"), on_cancel=handle)
def order(event: Event[dict[str, Any]], step: Step) -> None:
    step.sleep("nap", 3600)


@app.function(on="crash.undo", on_cancel=handle, on_failure=handle, backoff=0)
def undoing(event: Event[dict[str, Any]], step: Step) -> None:
    for name in ("work", "more"):
        step.run(name, work, step, name)
        step.on_rollback(work, step, f"undo-{name}")
    if event.data["how"] == "fail":
        raise NonRetriable("no")
    step.sleep("nap", 3600)


@app.function(on="crash.late", run_timeout=0.5, on_cancel=handle)
def late(event: Event[dict[str, Any]], step: Step) -> None:
    step.sleep("nap", 3600)


def die_firing(url: str, when: str) -> None:
    """When something is due."""
    looking, doomed = Store(url), Store(url, wire=deadly_wire("fire_due", when))
    while not looking.client.zcount(looking.keys.timers, 0, time.time() * 1000):
        time.sleep(0.005)
    doomed.fire_due()


def die_cancelling(url: str, when: str, run: str) -> None:
    Store(url, wire=deadly_wire("cancel_run", when)).cancel_run(run, "enough")
