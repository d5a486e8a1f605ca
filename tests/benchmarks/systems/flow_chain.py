"""flowlib: the chain of ten as a function, sync; runs of any length or width, and runs that sleep first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flowlib import App, Event, Step
from tests.benchmarks.chain import STEPS, advance, start_of

CHAIN, LONG, WIDE, NAP = (f"bench/{kind}.requested" for kind in ("chain", "long", "wide", "nap"))

app = App("bench")


@app.function(on=CHAIN)
def chain_of_ten(event: Event[dict[str, Any]], step: Step) -> int:
    value = event.data
    for number in range(1, STEPS + 1):
        value = step.run(f"step-{number}", advance, value)
    return len(value)


@app.function(on=LONG)
def chain_of_many(event: Event[dict[str, Any]], step: Step) -> int:
    value = event.data["start"]
    for number in range(1, event.data["steps"] + 1):
        value = step.run(f"step-{number}", advance, value)
    return len(value)


@app.function(on=WIDE)
def map_of_many(event: Event[dict[str, Any]], step: Step) -> int:
    start = event.data["start"]
    return len(step.map("step", advance, [{**start, "step": number} for number in range(event.data["steps"])]))


@app.function(on=NAP)
def nap_first(event: Event[dict[str, Any]], step: Step) -> None:
    step.sleep_until("nap", datetime.fromtimestamp(event.data["until"], UTC))
    step.run("awake", advance, event.data["start"])


def submit(runs: Sequence[int], name: str = CHAIN) -> None:
    for run in runs:
        app.send(Event(name, start_of(run)))


def submit_together(runs: Sequence[int], name: str = CHAIN) -> None:
    app.send([Event(name, start_of(run)) for run in runs])


def submit_long(runs: Sequence[int], steps: int) -> None:
    app.send([Event(LONG, {"steps": steps, "start": start_of(run)}) for run in runs])


def submit_wide(runs: Sequence[int], steps: int) -> None:
    app.send([Event(WIDE, {"steps": steps, "start": start_of(run)}) for run in runs])


def nap(naps: Sequence[tuple[int, float]]) -> None:
    app.send([Event(NAP, {"until": until, "start": start_of(run)}) for run, until in naps])
