"""An app whose deployment comes and goes: here with its function, in `unknown` without."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step

from .ledger import noted

app = App("deployed", retries=0)


def note(step: Step, name: str) -> str:
    with noted(step, name):
        return name


@app.function(on="crash.deployed")
def deployed(event: Event[dict[str, Any]], step: Step) -> list[str]:
    first = step.run("first", note, step, "first")
    step.sleep("nap", event.data["seconds"])
    return [first, step.run("last", note, step, "last")]
