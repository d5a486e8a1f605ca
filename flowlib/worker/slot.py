"""A slot: one place in a worker process where a run is played, with a connection of its own.

It knows what it holds, keeps it visible while it runs, and can be told to end it. Which thread it is played on, and
where jobs are waited for, is the worker's business.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import redis

from flowlib.app import App
from flowlib.board import Line
from flowlib.engine import Engine, now
from flowlib.frame import CANCELLED, LOST, Frame
from flowlib.loop import Driver
from flowlib.records import Claim
from flowlib.store import Store

log = logging.getLogger("flowlib.worker")


class Slot:
    def __init__(
        self,
        store: Store,
        hasty: Store,
        worker: str,
        app: App,
        *,
        lease_ms: int,
        may_stay: Callable[[float], bool],
        driver: Driver | None = None,
        line: Line | None = None,
    ) -> None:
        self.store = store.alone()
        self._hasty = hasty  # for what must hold nothing up
        self._worker = worker
        self._app = app
        self.engine = Engine(
            self.store,
            worker,
            lease_ms=lease_ms,
            may_stay=may_stay,
            driver=driver,
            line=line,
            prepare=app.prepare_all,
            hooks=app.hooks,
        )
        self._seen = self._shown = ""  # jobs: the one at the last beat, the last that RQ's registries list

    @property
    def frame(self) -> Frame | None:
        """The run that is played now."""
        return self.engine.frame

    # -- on the slot's own thread ------------------------------------------------------------------------------------

    def claim(self, queues: Sequence[str], alone: bool, rq_jobs: bool) -> Claim | str:
        engine, app = self.engine, self._app.name
        return self.store.claim_job(
            self._worker, engine.next_exec(), engine.lease_ms, app, queues, alone=alone, rq_jobs=rq_jobs
        )

    def play(self, claim: Claim) -> None:
        lease = claim.lease
        function = self._app.functions.get(lease.function)
        if function is None:
            what = f"{lease.app}/{lease.function}"
            log.warning("run %s is of %s, which this worker does not know: parked", lease.run, what)
            self.store.park_job(lease)
            return
        log.info("run %s: %s claimed", lease.run, claim.step or "start")
        self.engine.play(function, claim)

    def close(self) -> None:
        self.engine.close()
        with contextlib.suppress(redis.RedisError):  # then its lease runs out, and another worker says it again
            self.store.wire.settle()
        self.store.wire.close()

    # -- from the worker's beat --------------------------------------------------------------------------------------

    def publish(self) -> None:
        """What should be seen of a step while it runs: its job, its place in RQ's registries, its log lines."""
        frame = self.frame
        if frame is None:
            return
        lease, job = frame.lease, frame.job.id
        if job == self._seen and job != self._shown and frame.deadline is not None:
            self._shown = job
            if frame.job.place(self._hasty) == "fenced":
                self.stop(LOST, frame)
            self._hasty.show_job(lease, job)
        self._seen = job
        frame.recorder.store_apart(lambda lines: self._hasty.add_lines(lease, lines))

    def stop_lease(self, lease: str) -> None:
        """End the body that runs under it, if it is here: its run has been cancelled."""
        frame = self.frame
        if frame is not None and frame.lease.name == lease:
            self.stop(CANCELLED, frame)

    def stop(self, reason: str, frame: Frame | None = None) -> None:
        """End the body that runs; only if it is in this frame, when one is given."""
        current = self.frame
        body = current.deadline if current is not None and frame in (None, current) else None
        if body is not None:
            body.stop(reason)


def renew(slots: Sequence[Slot], speak: Callable[[list[str], tuple[int, int, float]], tuple[bool, list[str]]]) -> bool:
    """Let the leases of all that is held be renewed, in one call; ends what has lost its own. Returns its first verdict."""
    held = [(slot, frame, frame.deadline) for slot in slots if (frame := slot.frame) is not None]
    done = [slot.engine.take_done() for slot in slots]
    asked = now()
    registered, lost = speak(
        [frame.lease.name for _, frame, _ in held],
        (sum(d[0] for d in done), sum(d[1] for d in done), sum(d[2] for d in done)),
    )
    for slot, frame, body in held:
        if frame.lease.name not in lost:
            slot.engine.confirmed = max(asked, slot.engine.confirmed)
        elif body is not None:
            body.stop(LOST)  # the body of back then: one that has ended by now does not hear it
    return registered
