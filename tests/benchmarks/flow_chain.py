"""The chain of ten as a function of flowlib."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step
from tests.benchmarks.chain import STEPS, advance

EVENT = "bench/chain.requested"

app = App("bench")


@app.function(on=EVENT)
def chain_of_ten(event: Event[dict[str, Any]], step: Step) -> int:
    value = event.data
    for number in range(1, STEPS + 1):
        value = step.run(f"step-{number}", advance, value)
    return len(value)
