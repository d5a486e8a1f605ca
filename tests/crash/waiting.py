"""A run whose first step lasts until the test lets it end: for what happens to a worker in the middle of a body."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from flowlib import App, Event, Step

from .ledger import PATH, noted

app = App("waiting", retries=0)


def gate(notes: Path) -> Path:
    """The file that ends all waiting."""
    return notes.with_suffix(".gate")


def wait(step: Step) -> int:
    """Returns the process that waited to the end."""
    with noted(step, "wait"):
        while not gate(Path(os.environ[PATH])).exists():
            time.sleep(0.005)
    return os.getpid()


def go_on(step: Step) -> None:
    with noted(step, "go-on"):
        pass


@app.function(on="crash.wait")
def waiting(event: Event[dict[str, Any]], step: Step) -> int:
    waited = step.run("wait", wait, step)
    step.run("go-on", go_on, step)
    return waited


def work_at_second_try(step: Step) -> None:
    if step.attempt == 1:
        raise ConnectionError("the first try fails")


@app.function(on="crash.nap", retries=1, backoff=0.05)
def napping(event: Event[dict[str, Any]], step: Step) -> None:
    step.sleep("nap", event.data["seconds"])
    step.run("flaky", work_at_second_try, step)
