"""What a supervisor has to say to Redis, said by a thread of its own: a Redis that is away or slow holds up neither a
signal nor the news of a death.

Renews the leases of all living workers in one call, also for those that cannot do it themselves while a body hogs their
interpreter lock; and gives back what a dead worker had, at once. Knows nothing of processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowlib.store import RedisError, Store
from flowlib.wire import explain

log = logging.getLogger("flowlib.supervisor")

FIRST_WAIT, LONGEST_WAIT = 0.1, 1.0  # seconds before Redis is asked again
LAST_WORDS = 2.0  # seconds to wait at the end for what is still to be said


@dataclass(frozen=True, slots=True)
class Death:
    """`blameless`: it was ended on purpose, so nothing of what it had is to blame but the `overdue` leases."""

    worker: str
    blameless: bool = False
    overdue: Sequence[str] = ()


class Keeper:
    """`lost`: leases that their holders still hold, but Redis does not know any more, and since when that is known."""

    def __init__(self, lease: float, open_store: Callable[[str], Store] = lambda url: Store(url, patience=0)) -> None:
        """`lease` in seconds. The store has no patience, for this thread has its own."""
        self.lease = lease
        self.lost: dict[str, float] = {}
        self._open_store = open_store
        self._store: Store | None = None
        self._url = ""
        self._held: Callable[[], list[str]] = list
        self._deaths: deque[Death] = deque()
        self._nudged = threading.Event()
        self._over = False
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="flow-keeper", daemon=True)

    def start(self, held: Callable[[], list[str]]) -> None:
        """`held` tells the leases that are to be renewed; it is called in this thread."""
        self._held = held
        self._thread.start()

    def hear(self, url: str) -> None:
        """Which Redis it is: the workers know, who have the app. Until then there is nothing to be said to it."""
        if self._store is None and url:
            self._url, self._store = url, self._open_store(url)
            self._nudged.set()

    def bury(self, death: Death) -> None:
        self._deaths.append(death)
        self._nudged.set()

    def stop(self) -> None:
        self._over = True
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(LAST_WORDS)

    def _run(self) -> None:
        trouble = 0.0
        while True:
            over = self._over
            try:
                wait = self._attend()
                if trouble:
                    log.info("Redis is back: leases are renewed")
                trouble = 0.0
            except RedisError as error:
                if not trouble:
                    log.warning("%s: no lease is renewed from here until it answers", explain(error, self._url))
                wait = trouble = min(max(FIRST_WAIT, 2 * trouble), LONGEST_WAIT)
            except Exception:  # whatever it is, this thread must go on
                log.exception("what was to be said to Redis")
                wait = self.lease / 3
            if over:
                return
            self._nudged.wait(wait)
            self._nudged.clear()

    def _attend(self) -> float:
        """The seconds until there is something to do again."""
        if self._store is None:
            return self.lease / 3
        self._bury_all(self._store)
        if time.monotonic() >= self._due:
            self._renew(self._store)
        return max(0.0, self._due - time.monotonic())

    def _bury_all(self, store: Store) -> None:
        while self._deaths:
            death = self._deaths[0]
            for job, _ in store.reap(worker=death.worker, blameless=death.blameless, overdue=death.overdue):
                log.warning("job %s: put back: its worker %s is dead", job, death.worker)
            store.expire_ordinary(death.worker)
            self._deaths.popleft()

    def _renew(self, store: Store) -> None:
        now = time.monotonic()
        held, lost = self._held(), list[str]()
        if held:
            ttl = max(60, round(6 * self.lease))
            _, lost = store.renew_leases("", round(1000 * self.lease), ttl, held)
        self.lost = {lease: self.lost.get(lease, now) for lease in lost}
        self._due = now + self.lease / 3
