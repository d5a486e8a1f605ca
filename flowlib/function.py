"""What `@app.function` declares: the user's callable, its triggers, its settings and its limits.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from .errors import ConfigError, PayloadError
from .model import EventType
from .retry import DEFAULTS, Options
from .schedule import Cron

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

DEFAULT_QUEUE = "flow"
MAX_EVENT_NAME = 256
MAX_EVENT_BYTES = 512 * 1024

Trigger = str | EventType[Any] | Cron


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run: the bytes of one step's output, of all memos together, and the number of steps."""

    output_bytes: int = 4 * 1024 * 1024
    state_bytes: int = 32 * 1024 * 1024
    steps: int = 10_000
    losses: int = 5

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"Limits: {bound.name} must be a whole number >= 1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Function:
    """A declared function. `options` are complete: its own settings over the app's over the defaults."""

    app: str
    name: str
    body: Callable[..., Any]
    triggers: tuple[EventType[Any], ...]
    options: Options = DEFAULTS
    limits: Limits = field(default_factory=Limits)
    idempotency: timedelta = timedelta(hours=24)
    retention: timedelta = timedelta(days=7)
    crons: tuple[Cron, ...] = ()
    start_timeout: float | None = None  # seconds in which a run has to begin,
    run_timeout: float | None = None  # and to end; from when its event has started it

    def __post_init__(self) -> None:
        if not isinstance(self.limits, Limits):
            raise ConfigError(f"function {self.name!r}: limits must be a Limits, got {self.limits!r}")
        for what, kept in (("idempotency", self.idempotency), ("retention", self.retention)):
            if not isinstance(kept, timedelta) or kept < timedelta(seconds=1):
                raise ConfigError(
                    f"function {self.name!r}: {what} must be a timedelta of at least a second, got {kept!r}"
                )

    @property
    def queue(self) -> str:
        return self.options.queue or DEFAULT_QUEUE

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.body)

    def trigger_for(self, event_name: str) -> EventType[Any] | None:
        return next((t for t in self.triggers if t.name == event_name), None)

    def describe(self) -> dict[str, Any]:
        """The function as JSON-able data, for `flow functions` and for tools that do not import the app."""
        backoff = self.options.backoff
        return {
            "app": self.app,
            "name": self.name,
            "on": [t.name for t in self.triggers],
            "cron": [cron.describe() for cron in self.crons],
            "queue": self.queue,
            "retries": self.options.retries,
            "backoff": None if backoff is None else [backoff.first, backoff.factor, backoff.cap],
            "timeout": self.options.timeout,
            "start_timeout": self.start_timeout,
            "run_timeout": self.run_timeout,
            "async": self.is_async,
            "code": f"{self.body.__module__}:{self.body.__qualname__}",
        }


def check_name(what: str, name: str) -> str:
    """A name of an app or a function. Raises ConfigError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r:.120}: a name has 1 to 100 letters, digits, '-', '_' or '.', and begins with a letter or digit"
        )
    return name


def function_name(body: Callable[..., Any]) -> str:
    return getattr(body, "__name__", type(body).__name__).strip("_").replace("_", "-")


def make_triggers(where: str, on: Trigger | Sequence[Trigger]) -> tuple[tuple[EventType[Any], ...], tuple[Cron, ...]]:
    """Triggers from what a user wrote, events and crons; a plain string takes any dict. Raises ConfigError."""
    given = on if isinstance(on, Sequence) and not isinstance(on, str) else [on]
    crons = tuple(t.check(where) for t in given if isinstance(t, Cron))
    triggers = tuple(EventType(t, dict) if isinstance(t, str) else t for t in given if not isinstance(t, Cron))
    if not given or not all(isinstance(t, EventType) for t in triggers):
        raise ConfigError(f"{where}: on= takes an event name, an EventType, a cron, or several of them, got {on!r}")
    if len({cron.name for cron in crons}) < len(crons):
        raise ConfigError(f"{where}: on= has the same cron twice")
    for trigger in triggers:
        try:
            check_event_name(trigger.name)
        except PayloadError as error:
            raise ConfigError(f"{where}: {error}") from None
    return triggers, crons


def check_body(where: str, body: Callable[..., Any]) -> None:
    """The user's function takes (event, step). Raises ConfigError."""
    try:
        inspect.signature(body).bind("event", "step")
    except TypeError:
        raise ConfigError(f"{where}: a function takes two arguments, (event, step)") from None


def check_event_name(name: object) -> str:
    """Raises PayloadError for a name that no event may have."""
    if not isinstance(name, str) or not name or len(name) > MAX_EVENT_NAME or any(ord(c) < 32 for c in name):
        shown = f"{name[:40]!r}… ({len(name)} characters)" if isinstance(name, str) and len(name) > 40 else repr(name)
        raise PayloadError(
            f"event name {shown}: must be a string of 1 to {MAX_EVENT_NAME} characters, no control characters"
        )
    return name
