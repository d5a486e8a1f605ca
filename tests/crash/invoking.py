"""An app whose runs invoke others and wait for promises, and processes that die as they bring that about."""

from __future__ import annotations

import asyncio
from typing import Any

from flowlib import App, AsyncStep, Event, Step
from flowlib.promises import Promises
from flowlib.store import Store

from .doom import deadly_wire
from .ledger import noted

app = App("invoking", retries=0)


def work(step: Step | AsyncStep, name: str) -> str:
    with noted(step, name):
        return name


@app.function(on="crash.bill")
def bill(event: Event[dict[str, Any]], step: Step) -> str:
    if event.data["slow"]:
        step.sleep("nap", 3600)
    return step.run("work", work, step, "work")


@app.function(on="crash.order")
def order(event: Event[dict[str, Any]], step: Step) -> str:
    if event.data["beside"]:
        return step.gather(step.start("bill", bill, event.data), step.submit("pack", work, step, "pack"))[0]
    return step.invoke("bill", bill, event.data, timeout=0.3 if event.data["slow"] else 60)


@app.function(on="crash.order-async")
async def order_async(event: Event[dict[str, Any]], step: AsyncStep) -> str:
    billed = step.invoke("bill", bill, event.data)
    if event.data["beside"]:
        return (await asyncio.gather(billed, step.run("pack", work, step, "pack")))[0]
    return await billed


@app.function(on="crash.ask")
def ask(event: Event[dict[str, Any]], step: Step) -> Any:
    promise = step.promise("answer", as_=str)
    step.run("mail", str, promise.token)
    if event.data["late"]:
        step.wait_for_event("go", "go", since=event.ts)
    return promise.result()


def die_settling(url: str, when: str, token: str) -> None:
    doomed = Store(url, wire=deadly_wire("settle_promise", when))
    Promises(lambda: doomed).resolve(token, "yes")
