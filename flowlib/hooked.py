"""What an app's middleware does around one run in this process: its calls, its attempts, and what is stored of it.

Knows nothing of how a run goes on; that is the frame's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property

from .journal import BODILESS, Op
from .middleware import Hooks, RunInfo, StepInfo, entered, left, within
from .records import Lease, text


class Hooked:
    def __init__(self, hooks: Hooks, lease: Lease, record: Mapping[str, bytes]) -> None:
        self._hooks = hooks
        self._lease = lease
        self._record = record
        self._around: ExitStack | None = None  # the attempt

    @cached_property
    def _run(self) -> RunInfo:
        lease, record = self._lease, self._record
        name, event_id = text(record["event_name"]), text(record["event_id"])
        meta = json.loads(record.get("meta") or b"{}")
        return RunInfo(lease.app, lease.function, lease.run, name, event_id, meta)

    def call(self, begins: bool) -> AbstractContextManager[None]:
        """Around a call of the function; `begins`: it is the first."""
        return within([*(self._hooks.starts if begins else ()), *self._hooks.calls], self._run)

    def enter(self, op: Op, attempt: int) -> None:
        """An attempt of the step's body begins."""
        if self._hooks.steps and op.kind not in BODILESS:
            self._around = entered(self._hooks.steps, StepInfo(self._run, op.id, op.kind, attempt))

    def leave(self, error: BaseException | None) -> BaseException | None:
        """It is over; returns the error to go on with."""
        around, self._around = self._around, None
        return error if around is None else left(around, error)
