"""What a worker is told when it is made: refused when it makes no sense, and completed from its app. Knows no Redis."""

from __future__ import annotations

import math
from typing import Any

from flowlib.app import App
from flowlib.errors import ConfigError
from flowlib.function import DEFAULT_QUEUE

SHORTEST_LEASE_MS = 100  # it is renewed every third of it


def check_settings(*, lease_ms: Any, threads: Any, **seconds: Any) -> None:
    """Raises ConfigError."""
    for name, value, least in (("lease_ms", lease_ms, SHORTEST_LEASE_MS), ("threads", threads, 1)):
        if type(value) is not int or value < least:
            raise ConfigError(f"FlowWorker: {name} must be a whole number >= {least}, got {value!r}")
    for name, value in seconds.items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ConfigError(f"FlowWorker: {name} must be seconds >= 0, got {value!r}")


def queues_of(app: App) -> list[str]:
    """The queues that an app's functions use, its default one last."""
    named = dict.fromkeys(fn.queue for fn in app.functions.values())
    named.pop(DEFAULT_QUEUE, None)
    return [*named, DEFAULT_QUEUE]
