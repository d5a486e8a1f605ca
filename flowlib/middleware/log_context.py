"""Which run, step and attempt a line of structlog's is of. Needs structlog."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from flowlib.errors import ConfigError

from . import Middleware, RunInfo, StepInfo

try:
    from structlog.contextvars import bound_contextvars
except ImportError as missing:
    raise ConfigError("LogContext needs the package structlog: pip install structlog") from missing


class LogContext(Middleware):
    """Binds app, function, run and event while a run's code runs, and step and attempt while a body does; for structlog's
    `merge_contextvars`.

    >>> app = App("orders", middleware=[LogContext()])
    """

    def call(self, run: RunInfo) -> AbstractContextManager[Any]:
        return bound_contextvars(app=run.app, function=run.function, run=run.run_id, event=run.event_id)

    def step(self, step: StepInfo) -> AbstractContextManager[Any]:
        return bound_contextvars(step=step.id, attempt=step.attempt)
