"""flowlib: multi-step background work on the Redis and RQ that you already run, with nothing ever lost.

A run is an ordinary function replayed over its memos; each step is one RQ job whose outcome is recorded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import App as App
    from .errors import (
        ConfigError as ConfigError,
    )
    from .errors import (
        FlowError as FlowError,
    )
    from .errors import (
        NondeterminismError as NondeterminismError,
    )
    from .errors import (
        NonRetriable as NonRetriable,
    )
    from .errors import (
        NotFound as NotFound,
    )
    from .errors import (
        PayloadError as PayloadError,
    )
    from .errors import (
        RetryAfter as RetryAfter,
    )
    from .errors import (
        RunCancelled as RunCancelled,
    )
    from .errors import (
        RunEnded as RunEnded,
    )
    from .errors import (
        RunFailed as RunFailed,
    )
    from .errors import (
        RunTimeout as RunTimeout,
    )
    from .errors import (
        ServerError as ServerError,
    )
    from .errors import (
        StepFailed as StepFailed,
    )
    from .errors import (
        StepTimeout as StepTimeout,
    )
    from .errors import (
        WorkerLost as WorkerLost,
    )
    from .function import Limits as Limits
    from .model import Event as Event
    from .model import EventType as EventType
    from .model import Run as Run
    from .retry import Backoff as Backoff
    from .retry import step_options as step_options
    from .step import AsyncStep as AsyncStep
    from .step import Step as Step

__version__ = "0.1.0"

# Imported at first use: `flow --help` and a producer's start pay for nothing that they do not need.
_HOMES = {
    "app": ("App",),
    "function": ("Limits",),
    "model": ("Event", "EventType", "Run"),
    "retry": ("Backoff", "step_options"),
    "step": ("AsyncStep", "Step"),
    "errors": (
        "ConfigError", "FlowError", "NondeterminismError", "NonRetriable", "NotFound", "PayloadError", "RetryAfter",
        "RunCancelled", "RunEnded", "RunFailed", "RunTimeout", "ServerError", "StepFailed", "StepTimeout", "WorkerLost",
    ),
}  # fmt: skip

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
