"""An app that cron starts each second, and a process that dies around its first tick."""

from __future__ import annotations

import os
import signal
from typing import Any

from flowlib import App, Event, Step, cron
from flowlib.store import Store
from flowlib.testing import BEFORE
from flowlib.ticks import Ticks
from flowlib.wire import Wire, script

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

    class Doomed(Wire):
        def _send(self, data: bytes, mute: bool = False) -> None:
            starts = script("start_ticks").sha in data
            if starts and when == BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._send(data, mute)
            if starts:
                os.kill(os.getpid(), signal.SIGKILL)

    ticks(Store(url, wire=Doomed), "doomed").run(lambda: False)
