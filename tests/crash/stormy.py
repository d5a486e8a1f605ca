"""The functions of `mixture.py`, and one that cron starts each second: for storms only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flowlib import App, Event, Step, cron
from flowlib.schedule import event_id
from flowlib.ulid import ulid_of

from . import mixture
from .mixture import PATIENT, work_promptly

TICKING, STEP = "ticking", "tick"
SCHEDULE = f"{TICKING}|* * * * * * UTC"

app = App("mixture", retries=3, backoff=0.05)
app.functions.update(mixture.app.functions)


@app.function(on=cron("* * * * * *", missed="all"), limits=PATIENT)
def ticking(event: Event[dict[str, Any]], step: Step) -> int:
    return step.run(STEP, work_promptly, step, STEP, 3)


def run_of(tick: datetime) -> str:
    """The id of the run that the tick starts."""
    return ulid_of(round(tick.timestamp() * 1000), app.name, TICKING, event_id(TICKING, tick))
