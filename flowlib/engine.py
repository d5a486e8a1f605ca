"""One job at a time: an `Engine` per slot plays the runs that are claimed for it, and knows what it holds.

Knows nothing of queues, polling, signals or processes, which are the worker's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .board import Line
from .frame import Frame
from .function import Function
from .held import HeldJob
from .loop import Driver, OwnLoop
from .middleware import Hooks
from .model import Event
from .records import Claim
from .store import Sent, Store

# Seconds that also pass while the machine is asleep, unlike those of time.monotonic.
now = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class Engine:
    """What all frames of a process share. `may_stay` tells whether a chained job may be run here at once."""

    def __init__(
        self,
        store: Store,
        worker: str,
        *,
        lease_ms: int,
        may_stay: Callable[[float], bool] = lambda _: False,
        rng: random.Random | None = None,
        exec_prefix: str = "",
        driver: Driver | None = None,
        line: Line | None = None,
        prepare: Callable[[list[Event[Any]]], list[Sent]] = lambda _: [],
        hooks: Hooks | None = None,
    ) -> None:
        self.store = store
        self.worker = worker
        self.lease_ms = lease_ms
        self.may_stay = may_stay
        self.prepare = prepare
        self.hooks = hooks
        self.rng = rng or random.Random()
        self.frame: Frame | None = None
        self._done = (0, 0, 0.0)
        self._jobs = 0
        self._token = f"{exec_prefix}{self.rng.getrandbits(64):016x}"
        self._executions = 0
        self.confirmed = 0.0  # when Redis was last asked for the lease, and gave it or said that it stands
        self.driver: Driver = driver or OwnLoop()
        self.line = line or Line()

    def next_exec(self) -> str:
        """Of a job that is asked for now: of what becomes of its lease until the answer is here, nobody tells."""
        self.confirmed = now()
        self._executions += 1
        return f"{self._token}-{self._executions}"

    def play(self, fn: Function, claim: Claim, *, by_rq: bool = False) -> Frame:
        """Run the claimed job, and as many of its successors as may stay here."""
        frame = self.frame = Frame(self, fn, claim, by_rq)
        self.line.hold(claim.lease.name)
        try:
            frame.play()
        finally:
            self.frame = None
            self.line.free()
            ok, failed, seconds = frame.job.done
            self._jobs += ok + failed
            self._done = (self._done[0] + ok, self._done[1] + failed, self._done[2] + seconds)
        return frame

    def assure(self, job: HeldJob) -> None:
        """The lease stands for some time, by what was last heard; else this process has been paused, or cut off, and asks.

        Raises Interrupt if it was lost: a body that began now might be that of a step which is recorded (I3).
        """
        lease = self.lease_ms / 1000
        sure = now() - self.confirmed < lease / 2
        while not sure:
            asked = now()
            job.assure(self.lease_ms)
            self.confirmed = max(asked, self.confirmed)
            sure = now() - asked < lease  # else the answer itself came too late

    @property
    def jobs(self) -> int:
        """How many have ended here so far."""
        frame = self.frame
        return self._jobs + (0 if frame is None else sum(frame.job.done[:2]))

    def take_done(self) -> tuple[int, int, float]:
        """Jobs ended well, failed, and the seconds of their bodies, since the last time that this was asked."""
        done, self._done = self._done, (0, 0, 0.0)
        return done

    def close(self) -> None:
        self.driver.close()
