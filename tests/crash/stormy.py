"""The app of a storm: all functions that there are for it, one that cron starts each second, and what starts them.

`older` is what some workers still have: it lacks a function. Those of `sealed.py` are the same, with middleware.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flowlib import App, Event, Middleware, Step, cron
from flowlib.middleware import ClaimCheck, Encryption
from flowlib.schedule import event_id
from flowlib.ulid import ulid_of

from . import kinship, mixture, outcomes
from .mixture import PATIENT, work_promptly

TICKING, STEP = "ticking", "tick"
SCHEDULE = f"{TICKING}|* * * * * * UTC"
RARE = "rare"
KINDS = (*mixture.STORMY_KINDS, *kinship.KINDS, *outcomes.KINDS)

ticks = App("mixture", retries=3, backoff=0.05)


@ticks.function(on=cron("* * * * * *", missed="all"), limits=PATIENT)
def ticking(event: Event[dict[str, Any]], step: Step) -> int:
    return step.run(STEP, work_promptly, step, STEP, 3)


def make(*middleware: Middleware, without: str = "") -> App:
    made = App("mixture", retries=3, backoff=0.05, middleware=middleware)
    for each in (mixture.app, kinship.app, outcomes.app, ticks):
        made.functions.update({name: function for name, function in each.functions.items() if name != without})
    return made


app = make()
older = make(without=RARE)


def seal(notes: Path) -> tuple[Middleware, ...]:
    """Every value is written to a file, also by those who write the same, and its name is encrypted."""
    return ClaimCheck(f"{notes}.values", over=0), Encryption({"storm": bytes(range(16))})


def run_of(tick: datetime) -> str:
    """The id of the run that the tick starts."""
    return ulid_of(round(tick.timestamp() * 1000), app.name, TICKING, event_id(TICKING, tick))


def events_of(number: int) -> list[Event[Any]]:
    """What is sent at once; the first has started one run, sooner or later."""
    lap, place = divmod(number, len(KINDS))
    kind, id = KINDS[place], f"event-{number}"
    match kind:
        case "choosy":
            return [Event(kind, {"number": lap}, id=id)]
        case "later":
            return [Event(kind, {}, id=id, ts=datetime.now(UTC) + timedelta(seconds=0.2 * (lap % 4)))]
        case "mending":
            return [Event(kind, {"order": id}, id=id)]  # which nobody stops
        case "stopped":
            first = Event(kind, {"order": id, "itself": lap % 2 == 1}, id=id)
            return [first] if lap % 2 else [first, Event("stop", {"order": id}, id=f"stop-{number}")]
    return [Event(kind, {}, id=id)]
