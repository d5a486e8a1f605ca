"""The app that the command line is tried on. `gate` holds a step up until a test lets it go."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass

from flowlib import App, Backoff, Event, EventType, NonRetriable, Step, StepFailed

log = logging.getLogger("shop")
app = App("shop", backoff=Backoff(first=0.15, jitter=False), retries=3)
gate = threading.Event()
tries: Counter[str] = Counter()


@dataclass(frozen=True)
class Order:
    id: str
    items: int = 0
    failures: int = 0
    valid: bool = True


placed = EventType("shop/order.placed", Order)


@app.function(on=placed)
def fulfil(event: Event[Order], step: Step) -> dict[str, int]:
    order = event.data
    step.run("charge", charge, order)
    packed = [step.run("pack", pack, n) for n in range(order.items)]
    step.sleep("rest", 0.1)
    try:
        step.run("check", check, order)
    except StepFailed as failed:
        step.log.warning("no good: %s", failed.message)
        raise
    return {"packed": len(packed)}


@app.function(on="shop/opened", name="hold-the-door")
def hold(event: Event[dict[str, str]], step: Step) -> None:
    step.run("hold", wait_at_gate)


@app.function(on="shop/bill.sent", name="collect")
def collect(event: Event[dict[str, str]], step: Step) -> bool:
    paid = step.wait_for_event("payment", "shop/bill.paid", match={"bill": event.id}, timeout=60, since=event.ts)
    step.wait_for_event("thanks", "shop/thanks", timeout=0)
    return paid is not None


def charge(order: Order) -> str:
    tries[order.id] += 1
    log.info("charging %s", order.id)
    if tries[order.id] <= order.failures:
        raise ConnectionError("the bank is closed")
    print("paid \N{SNOWMAN}")
    return "paid"


def pack(number: int) -> int:
    return number


def check(order: Order) -> None:
    if not order.valid:
        raise NonRetriable("this order\nis not valid")


def wait_at_gate() -> None:
    log.info("the gate is closed")
    gate.wait(30)
    log.info("the gate is open")


@app.function(on="shop/booked", name="book")
def book(event: Event[dict[str, str]], step: Step) -> None:
    step.run("reserve", reserve)
    step.on_rollback(release)
    step.wait_for_event("payment", "shop/booking.paid")


def reserve() -> None: ...


def release() -> None:
    print("released")
