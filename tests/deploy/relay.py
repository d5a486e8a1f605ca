"""The app of the tests of clusters and shards: runs that go on until they are let go, and note each step outside Redis."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from flowlib import App, Event, Step

NOTES = "RELAY_NOTES"
GATE = "RELAY_GATE"

app = App("relay")


@app.function(on="relay/start")
def relay(event: Event[dict[str, Any]], step: Step) -> int:
    """One leg after the other until the gate is open: their number."""
    legs = 1
    while step.run("leg", run_leg, f"{event.id}-{legs}"):
        legs += 1
    return legs


@app.function(on="relay/wait")
def wait(event: Event[dict[str, Any]], step: Step) -> str:
    """One step that lasts until the gate is open, a sleep, and another step."""
    step.run("hold", hold, event.id)
    step.sleep("rest", 0.05)
    step.run("leg", run_leg, f"{event.id}-leg")
    return "done"


def run_leg(baton: str) -> bool:
    note(baton)
    print("leg", baton)
    return not gate().exists()


def hold(baton: str) -> None:
    note(baton)
    while not gate().exists():
        time.sleep(0.005)


def gate() -> Path:
    return Path(os.environ[GATE])


def note(line: str) -> None:
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
