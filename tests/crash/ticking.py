"""An app that cron starts each second, and a process that dies around its first tick."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step, cron
from flowlib.store import Store
from flowlib.ticks import Ticks

from .doom import deadly_wire
from .ledger import noted

app = App("ticking", retries=0)
SCHEDULE = "tick|* * * * * * UTC"


def work(step: Step) -> None:
    with noted(step, "work"):
        pass


@app.function(on=cron("* * * * * *", missed="all"))
def tick(event: Event[dict[str, Any]], step: Step) -> None:
    step.run("work", work, step)


def ticks(store: Store, worker: str) -> Ticks:
    return Ticks(app.name, app.functions, app.location, store, worker)


def tick_and_die(url: str, when: str) -> None:
    """Right before the command that starts a tick's run is sent, or right after, before the reply."""

    ticks(Store(url, wire=deadly_wire("start_ticks", when)), "doomed").run(lambda: False)
