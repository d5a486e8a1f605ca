"""Aids for tests of what must survive: faults at an exact place, and a check of all that is stored.

    python -m flowlib.testing worker tests.crash.story:app --kill-at 7 --when after

runs a worker whose process ends by SIGKILL right after its main thread has sent its seventh command to Redis, before
the reply is read. `check_invariants(store)` reads every key at one instant and says what is wrong, in words.

For tests only: the check holds up all writers while it reads.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from .app import DEFAULT_URL
from .invariants import Stored, check_invariants, faults_in
from .job import load
from .store import Store
from .wire import FOREVER, Wire
from .worker import FlowWorker

__all__ = ["Stored", "check_invariants", "cut", "faults_in", "faulty_wire", "kill", "run_worker"]

BEFORE, AFTER = "before", "after"


# -- faults at an exact place -----------------------------------------------------------------------------------------


def kill(_wire: Wire) -> None:
    """This process ends at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut(wire: Wire) -> None:
    """The connection breaks: what was sent arrives, no reply does."""
    if wire._connection is not None:
        wire._connection._sock.shutdown(socket.SHUT_RDWR)


def faulty_wire(fault: Callable[[Wire], None], at: int, when: str, any_thread: bool = False) -> type[Wire]:
    """A Wire to which `fault` happens at the `at`-th command, or pipeline, that the main thread, or any, sends.

    `when` is "before" (Redis never sees the command) or "after" (Redis has it, the reply is not read). 0: never.

    >>> Store(url, wire=faulty_wire(cut, 3, "after"))
    """
    numbers = count(1)

    class FaultyWire(Wire):
        def _send(self, data: bytes, mute: bool = False) -> None:
            counts = any_thread or threading.current_thread() is threading.main_thread()
            faulty = counts and next(numbers) == at
            if faulty and when == BEFORE:
                fault(self)
            super()._send(data, mute)
            if faulty and when == AFTER:
                fault(self)

    return FaultyWire


def run_worker(
    location: str,
    url: str,
    *,
    fault: Callable[[Wire], None] = kill,
    at: int = 0,
    when: str = BEFORE,
    any_thread: bool = False,
    **settings: Any,
) -> None:
    """A worker of the app at MODULE:APP in this process's main thread; `settings` are those of FlowWorker."""
    wire = faulty_wire(fault, at, when, any_thread)
    store = Store(url, patience=FOREVER, give_up=lambda: worker._may_give_up(), wire=wire)  # noqa: PLW0108 - comes later
    worker = FlowWorker(app=load(location).connect(url), store=store, **settings)
    worker.work()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flowlib.testing")
    worker = parser.add_subparsers(required=True).add_parser("worker", help="a worker that dies where it is told")
    worker.add_argument("app", metavar="MODULE:APP")
    worker.add_argument("--kill-at", type=int, default=0, metavar="N", help="the command to die at; 0: never")
    worker.add_argument("--when", choices=(BEFORE, AFTER), default=BEFORE, help="before it is sent, or right after")
    worker.add_argument("--any-thread", action="store_true", help="count what all threads send, not only the main one")
    worker.add_argument("--lease-ms", type=int, default=500)
    worker.add_argument("--redis-url", default=os.environ.get("FLOW_REDIS_URL") or DEFAULT_URL)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    place: dict[str, Any] = {"at": given.kill_at, "when": given.when, "any_thread": given.any_thread}
    run_worker(given.app, given.redis_url, lease_ms=given.lease_ms, **place)


if __name__ == "__main__":
    main()
