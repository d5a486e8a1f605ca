"""flowlib: multi-step background work on the Redis and RQ that you already run, with nothing ever lost.

A run is an ordinary function replayed over its memos; each step is one RQ job whose outcome is recorded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import App
    from .async_step import AsyncStep
    from .errors import (
        ConfigError,
        FlowError,
        NondeterminismError,
        NonRetriable,
        NotFound,
        PayloadError,
        PromiseSettled,
        RetryAfter,
        RunCancelled,
        RunEnded,
        RunFailed,
        RunNotFailed,
        RunTimeout,
        ServerError,
        StepFailed,
        StepTimeout,
        WaitTimeout,
        WorkerLost,
    )
    from .face import AsyncPromise, Future, Promise
    from .function import Limits
    from .middleware import Middleware
    from .model import Ending, Event, EventType, Run, run_cancelled, run_completed, run_failed, run_finished
    from .retry import Backoff, step_options
    from .runs import Called
    from .schedule import cron
    from .step import Step
    from .triggers import matching, trigger

__version__ = "0.1.0"

# Imported at first use: `flow --help` and a producer's start pay for nothing that they do not need.
_HOMES = {
    "app": ("App",),
    "async_step": ("AsyncStep",),
    "face": ("AsyncPromise", "Future", "Promise"),
    "function": ("Limits",),
    "middleware": ("Middleware",),
    "model": ("Ending", "Event", "EventType", "Run", "run_cancelled", "run_completed", "run_failed", "run_finished"),
    "retry": ("Backoff", "step_options"),
    "runs": ("Called",),
    "schedule": ("cron",),
    "step": ("Step",),
    "triggers": ("matching", "trigger"),
    "errors": (
        "ConfigError", "FlowError", "NondeterminismError", "NonRetriable", "NotFound", "PayloadError", "PromiseSettled",
        "RetryAfter", "RunCancelled", "RunEnded", "RunFailed", "RunNotFailed", "RunTimeout", "ServerError", "StepFailed",
        "StepTimeout", "WaitTimeout", "WorkerLost",
    ),
}  # fmt: skip

__all__ = [
    "App",
    "AsyncPromise",
    "AsyncStep",
    "Backoff",
    "Called",
    "ConfigError",
    "Ending",
    "Event",
    "EventType",
    "FlowError",
    "Future",
    "Limits",
    "Middleware",
    "NonRetriable",
    "NondeterminismError",
    "NotFound",
    "PayloadError",
    "Promise",
    "PromiseSettled",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunNotFailed",
    "RunTimeout",
    "ServerError",
    "Step",
    "StepFailed",
    "StepTimeout",
    "WaitTimeout",
    "WorkerLost",
    "cron",
    "matching",
    "run_cancelled",
    "run_completed",
    "run_failed",
    "run_finished",
    "step_options",
    "trigger",
]


if not TYPE_CHECKING:  # which would take any name for one that is here

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
