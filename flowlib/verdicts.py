"""What a worker has told Redis of the job that it holds, and what Redis has said to it.

Owns when a verdict has to be awaited, what is sent again when it was lost on the way, and what a refusal means. Which
transitions there are is not its business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .errors import Interrupt
from .records import Lease, text
from .store import RedisError, Store
from .wire import Packed

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")

# The verdict on a step is awaited before its function goes on, but for some short ones in a row: Redis is told of them one
# after the other, and one verdict is on all, because each is recorded only after the one before.
MOST_TOLD = 16  # memos
LONGEST_TOLD = 0.002  # seconds, that a body takes, and that the verdict is put off
LARGEST_TOLD = 16 * 1024  # bytes


class Verdicts:
    """Of one lease. A transition that is refused because the lease was lost raises `Interrupt`."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store = store
        self.lease = lease
        self.lost = False
        self.suspended = False  # RQ's workers are to take nothing more
        self._sent: list[Packed] = []  # the last memos; Redis may need them again
        self._sure = True  # it has said that it has them
        self._last = ""  # the key of the last
        self._since = 0.0  # when the first was sent of those of which we are not sure

    @property
    def id(self) -> str:
        """The job that the run is at."""
        raise NotImplementedError

    def assure(self, lease_ms: int) -> None:
        """The lease stands, and will for so long; that is no verdict on what was told, which is asked for first."""
        self.settle()
        if self._reach(lambda: self.store.confirm_lease(self.lease, lease_ms)) == "fenced":
            self._fenced()

    def settle(self) -> None:
        """All that was committed is recorded, as Redis says itself."""
        if not self._sure:
            self._report(lambda: self._verdict(self.store.wire.call(self._sent[-1]))[0])

    def _send(self, command: Packed, key: str, seconds: float | None) -> None:
        """A memo, of what has taken so long; None: its verdict is awaited in any case."""
        short, now = seconds is not None and seconds <= LONGEST_TOLD, time.monotonic()
        if self._sure:
            self._sent.clear()
            self._since, self._sure = now, False
        self._sent.append(command)
        self._last = key
        may_wait = len(self._sent) < MOST_TOLD and now - self._since <= LONGEST_TOLD and len(command[0]) <= LARGEST_TOLD
        if not (short and may_wait and self.store.wire.tell(command)):
            self.settle()

    def _verdict(self, reply: Any) -> tuple[str, bytes]:
        """And the memo that is kept, where that is another's."""
        verdict, first = reply if isinstance(reply, list) else (reply, b"")
        return text(verdict), first

    def _reach(self, speak: Callable[[], T]) -> T:
        """Redis stays away and this worker may not wait any longer: nothing more can be said for this job."""
        try:
            return speak()
        except RedisError as error:
            self.lost = True
            log.error("run %s: job %s could not be reported: %s", self.lease.run, self.id, error)
            raise Interrupt from error

    def _report(self, transition: Callable[[], str]) -> str:
        verdict = self._reach(transition)
        if verdict == "unrecorded" and self._sent:  # lost on the way, or a replica took over that has not got them
            self._reach(lambda: self.store.wire.call_all(self._sent))
            verdict = self._reach(transition)
        if verdict in ("fenced", "unrecorded"):
            self._fenced()
        self.suspended |= verdict == "suspended"
        self._sure |= verdict != ""
        return verdict

    def _fenced(self) -> NoReturn:
        self.lost = True
        log.warning("run %s: the lease of job %s was lost: what it did here is dropped", self.lease.run, self.id)
        raise Interrupt
