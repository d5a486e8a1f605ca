"""Processes that die around a certain script: right before they send it for the first time, or right after, unheard; and a
reply that is lost, and missed late."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any

import redis

from flowlib.dispatch import Dispatcher
from flowlib.job import load
from flowlib.keys import Keys
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE, cut
from flowlib.wire import FOREVER, Wire, script
from flowlib.worker import FlowWorker
from tests.patience import until

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


def cut_late(wire: Wire) -> None:
    """The reply is lost, and is not missed before the other worker has done all that it can."""
    keys, reader, sock = Keys(), redis.Redis(connection_pool=wire._pool), wire._connection._sock

    def others_rest() -> bool:
        return not reader.llen(keys.rq_queue("flow")) and reader.zcard(keys.leases) <= 1

    select.select([sock], [], [], 0.1)  # there is none to what is told in a row
    until(others_rest)
    with suppress(BlockingIOError):
        sock.recv(65_536, socket.MSG_DONTWAIT)
    cut(wire)


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
