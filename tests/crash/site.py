"""An app on a server of its own: its workers, processes that die as they serve it, and what came of its runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowlib.job import load
from flowlib.model import Run
from flowlib.runs import Runs
from flowlib.server import Server
from flowlib.store import Store
from flowlib.wire import script

from .doom import SETTINGS, die_dispatching, die_working
from .fleet import Forked, WorkerProcess

SCRIPTS = (
    "chain_job", "fork_run", "finish_run", "fire_due", "dispatch_events", "settle_promise", "cancel_run",
)  # fmt: skip


class Site:
    def __init__(self, location: str, server: Server, notes: Path) -> None:
        self.location, self.url, self.notes = location, server.url, notes
        self.store = Store(self.url)
        self.app = load(location).connect(store=self.store)
        for name in SCRIPTS:
            self.store.client.script_load(script(name).source)  # else it is asked for first, and not done
        self.runs = Runs(lambda: self.store, self.app.name, self.app.functions)

    def worker(self) -> WorkerProcess:
        self.store.client.delete(self.store.keys.housekeeper)  # as if the duty of a dead one had run out
        return WorkerProcess(self.location, self.url, self.notes, **SETTINGS)

    def dies(self, work: Callable[..., None], *args: Any) -> None:
        assert Forked(work, self.notes, *args).exit_code == -signal.SIGKILL

    def dies_working(self, script: str, when: str) -> None:
        self.dies(die_working, self.location, self.url, script, when)

    def dies_dispatching(self, when: str) -> None:
        self.dies(die_dispatching, self.location, self.url, when)

    def of(self, function: str) -> list[Run]:
        return self.runs.list(function=function)
