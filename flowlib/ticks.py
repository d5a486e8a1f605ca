"""Ticks to runs: starts what cron schedules are due, in every worker process, and each tick once.

Every worker sleeps to the next tick and comes to the same decisions, of the server's time and of what was decided last,
which one script gives; another carries them out for the first that asks. So nobody has to be the one who does it, and a
worker that dies around a tick is not missed. Knows no clock but the server's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .codec import decode, encode
from .function import Function
from .journal import ENTRY, RUN
from .outcome import make_job
from .records import Start, text
from .schedule import CRON_EVENT, SKIP, Cron, Decision, event_data, event_id
from .store import Store
from .subscriptions import cancels_of
from .ulid import ulid_of

log = logging.getLogger("flowlib.cron")

LOOK_EVERY = 10.0  # seconds at most: who resumes a function, or sets the server's clock, tells nobody
AT_ONCE = 10  # in one script, which holds up everybody else for about a millisecond


class Ticks:
    """One per worker process. `location` is MODULE:APP, which a stock RQ worker needs to find the functions."""

    def __init__(self, app: str, functions: Mapping[str, Function], location: str, store: Store, worker: str) -> None:
        self._app = app
        self._location = location
        self._store = store
        self._worker = worker
        self._over = threading.Event()
        self.schedules = {
            f"{function.name}|{cron.name}": (function, cron)
            for function in functions.values()
            for cron in function.crons
        }

    def declare(self) -> None:
        """From now on these are the app's schedules, and no other."""
        self._store.plan_ticks(self._app, self._worker, self.schedules, starting=True)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping`, or `end`; Redis trouble is waited out."""
        trouble = 0.1
        while not stopping() and not self._over.is_set():
            try:
                wait = self.look()
                trouble = 0.1
            except Exception as error:
                if stopping():
                    break
                log.warning("cron: %s: again in %.1f s", error, trouble)
                wait, trouble = trouble, min(2 * trouble, 2.0)
            self._over.wait(wait)

    def end(self) -> None:
        """Now, from any thread."""
        self._over.set()

    def look(self) -> float:
        """Start what is due; returns the seconds until the next look."""
        now_ms, known = self._store.plan_ticks(self._app, self._worker, self.schedules, starting=False)
        asked, now = time.monotonic(), _at(now_ms)
        nexts: list[datetime] = []
        decided: list[tuple[Any, ...]] = []
        for schedule, (function, cron) in self.schedules.items():
            upto = known.get(f"upto|{schedule}")
            if upto is None:
                continue  # a worker that has started later knows no such schedule
            since = _at(float(upto))
            if f"paused|{function.name}" in known and cron.missed != SKIP:
                since = now  # what is held back is caught up later
            elif decisions := cron.decide(function.name, since, now):
                decided += self._decided(schedule, function, cron, upto, decisions)
                since = decisions[-1].tick
            if (due := cron.next_due(function.name, since)) is not None:
                nexts.append(due)
        self._carry_out(decided)
        wait = min((due - now).total_seconds() for due in nexts) if nexts else LOOK_EVERY
        return max(0.0, min(wait, LOOK_EVERY) - (time.monotonic() - asked))

    def _carry_out(self, decided: list[tuple[Any, ...]]) -> None:
        batches = [decided[i : i + AT_ONCE] for i in range(0, len(decided), AT_ONCE)]
        if not batches:
            return
        replies = self._store.send_all([self._store.start_ticks(self._app, batch) for batch in batches])
        for run in (text(run) for batch in replies for run in batch if run):
            log.info("run %s started", run)

    def _decided(
        self, schedule: str, function: Function, cron: Cron, upto: str, decisions: list[Decision]
    ) -> Iterator[tuple[Any, ...]]:
        """The decisions as the script takes them, each upon the one before."""
        minds = 2 if cron.overlap == SKIP else int(any(each.overlap == SKIP for each in function.crons))
        for tick, starts, missed in decisions:
            run = self._run_of(function, cron, tick) if starts else None
            yield schedule, function.name, upto, _ms(tick), missed, int(cron.missed == SKIP), minds, run
            upto = str(_ms(tick))

    def _run_of(self, function: Function, cron: Cron, tick: datetime) -> Start:
        """Its id follows from function and tick, like that of the event."""
        id = event_id(function.name, tick)
        data = event_data(self._app, function.name, cron.expression, cron.tz, tick)
        run = ulid_of(_ms(tick), self._app, function.name, id)
        job = make_job(
            self._app, function.name, run, self._location, ENTRY, RUN, function.options.timeout, function.queue
        )
        encoded = encode(data, where="data")
        cancels = ["", "", "", *cancels_of(function, decode(encoded))] if function.cancel_on else None
        return self._store.start(function, run, (id, CRON_EVENT, encoded, _ms(tick)), self._location, job, "", cancels)


def _at(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
