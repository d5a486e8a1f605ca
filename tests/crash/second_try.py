"""A run that fails at its second step until the test says that this is mended, and what asks for it to be retried."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flowlib import App, Event, NonRetriable, Step
from flowlib.store import Store
from flowlib.testing import faulty_wire, kill

from .ledger import PATH, noted

app = App("second-try", retries=0)
STEPS = ["first", "charge", "last"]


def mended(notes: Path) -> Path:
    """The file that lets the step succeed."""
    return notes.with_suffix(".mended")


def note(step: Step, name: str) -> str:
    with noted(step, name):
        if name == "charge" and not mended(Path(os.environ[PATH])).exists():
            raise NonRetriable("no money")
        return name


@app.function(on="crash.pay")
def pay(event: Event[dict[str, Any]], step: Step) -> list[str]:
    return [step.run(name, note, step, name) for name in STEPS]


def retry(url: str, run: str, when: str) -> None:
    """Dies when it sends the script, or right after."""
    App("second-try").connect(store=Store(url, wire=faulty_wire(kill, 1, when))).runs.retry(run)


def replay(url: str, run: str, when: str) -> None:
    """As retry."""
    App("second-try").connect(store=Store(url, wire=faulty_wire(kill, 1, when))).runs.replay(run, from_step="charge")
