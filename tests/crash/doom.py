"""Processes that die around a certain script: right before they send it for the first time, or right after, unheard."""

from __future__ import annotations

import os
import signal
from typing import Any

from flowlib.dispatch import Dispatcher
from flowlib.job import load
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE
from flowlib.wire import FOREVER, Wire, script
from flowlib.worker import FlowWorker

SETTINGS: dict[str, Any] = {"lease_ms": 500, "reconcile_every": 3600.0}  # nothing is to need the reconciler


def deadly_wire(name: str, when: str) -> type[Wire]:
    class Doomed(Wire):
        def _send(self, data: bytes, mute: bool = False) -> None:
            fatal = script(name).sha in data
            if fatal and when == BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._send(data, mute)
            if fatal and when == AFTER:
                os.kill(os.getpid(), signal.SIGKILL)

    return Doomed


def die_working(location: str, url: str, script: str, when: str) -> None:
    """A worker of the app at MODULE:APP, until the first time that one of its threads sends that script."""
    store = Store(url, patience=FOREVER, wire=deadly_wire(script, when))
    FlowWorker(app=load(location).connect(url), store=store, **SETTINGS).work()


def die_dispatching(location: str, url: str, when: str) -> None:
    """Nothing but a dispatcher, as it settles the first event that it reads."""
    app, store = load(location), Store(url, wire=deadly_wire("dispatch_events", when))
    dispatcher = Dispatcher(app.name, app.functions, app.location, store, "doomed", idle_ms=60_000)
    while True:
        dispatcher.dispatch(dispatcher.fresh(100))
