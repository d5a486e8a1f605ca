"""What RQ's tools tell a worker while it works: to shut down, or to stop a job. Stopping a step's job cancels its run.

Knows the slots and what they hold; how a worker shuts down is its own business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from rq.command import parse_payload

from flowlib.frame import CANCELLED
from flowlib.store import Store

from .channel import Channel
from .ordinary import OrdinaryJobs
from .slot import Slot

log = logging.getLogger("flowlib.worker")


class Commands:
    """`run` is the thread's body; `take` obeys one command."""

    def __init__(
        self, store: Store, channel: str, slots: Sequence[Slot], ordinary: OrdinaryJobs, shut_down: Callable[[], None]
    ) -> None:
        self._store = store
        self._channel = Channel(store.client, channel)
        self._slots = slots
        self._ordinary = ordinary
        self._shut_down = shut_down

    def subscribe(self) -> None:
        self._channel.subscribe()

    def run(self, stopping: Callable[[], bool]) -> None:
        while not stopping():
            try:
                said = self._channel.hear(60.0)
                if said is not None:
                    self.take({"data": said})
            except redis.RedisError as error:
                log.debug("commands: %s", error)
                time.sleep(0.5)
            except Exception:
                log.exception("commands")
        self._channel.close()

    def wake(self) -> None:
        """Let `run` look at once whether it is to stop."""
        self._channel.hang_up()

    def take(self, message: dict[Any, Any]) -> None:
        """RQ's commands: shutdown, stop-job and stop-execution."""
        payload = parse_payload(message)
        match payload.get("command"):
            case "shutdown":
                self._shut_down()
            case "stop-job" | "stop-execution":
                for slot in self._slots:
                    if "lease" in payload:  # a script has cancelled it
                        slot.stop_lease(payload["lease"])
                    else:
                        self._cancel(slot, payload.get("job_id"))
                self._ordinary.stop(payload.get("job_id"))
            case other:
                log.info("command %r is not for this kind of worker", other)

    def _cancel(self, slot: Slot, job: Any) -> None:
        """Cancel the run that is at this job, unless it has gone on meanwhile."""
        frame = slot.frame
        if frame is not None and frame.job.id == job:
            self._store.cancel_run(frame.run_id, f"job {job} was stopped by a command")
            slot.stop(CANCELLED, frame)
