"""flowlib: the chain of ten as an `async def` function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowlib import App, AsyncStep, Event
from tests.benchmarks.chain import STEPS, advance, start_of

CHAIN = "bench/async_chain.requested"

app = App("bench-async")


async def advance_async(previous: dict[str, Any]) -> dict[str, Any]:
    return advance(previous)


@app.function(on=CHAIN)
async def chain_of_ten(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    value = event.data
    for number in range(1, STEPS + 1):
        value = await step.run(f"step-{number}", advance_async, value)
    return len(value)


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        app.send(Event(CHAIN, start_of(run)))


def submit_together(runs: Sequence[int]) -> None:
    app.send([Event(CHAIN, start_of(run)) for run in runs])
