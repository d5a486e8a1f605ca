"""What `@app.function` declares: the user's callable, its triggers, its settings and its limits.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cached_property
from types import CellType, CodeType
from typing import Any

from .errors import ConfigError
from .model import RUN_EVENTS
from .retry import DEFAULTS, Options
from .schedule import CRON_EVENT, Cron
from .triggers import Matching, Trigger

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

DEFAULT_QUEUE = "flow"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run: the bytes of one step's output, of all memos together, the number of steps, and how many workers may
    die of one step."""

    output_bytes: int = 4 * 1024 * 1024
    state_bytes: int = 32 * 1024 * 1024
    steps: int = 10_000
    losses: int = 5

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"Limits: {bound.name} must be a whole number >= 1, got {value!r}")


@dataclass(frozen=True)
class Function:
    """A declared function. `options` are complete: its own settings over the app's over the defaults."""

    app: str
    name: str
    body: Callable[..., Any]
    triggers: tuple[Trigger[Any], ...]
    options: Options = DEFAULTS
    limits: Limits = field(default_factory=Limits)
    idempotency: timedelta = timedelta(hours=24)
    retention: timedelta = timedelta(days=7)
    crons: tuple[Cron, ...] = ()
    start_timeout: float | None = None  # seconds in which a run has to begin,
    run_timeout: float | None = None  # and to end; from when its event has started it
    cancel_on: tuple[Matching, ...] = ()
    handles: str = ""  # the function whose ends start this one

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

    @cached_property
    def undoes(self) -> bool:
        """Does it, or what it can reach of its own package, call `on_rollback`? Else that is known once it has."""
        return speaks_of("on_rollback", self.body)

    def trigger_for(self, event_name: str) -> Trigger[Any] | None:
        """Of one that is invoked, the data are as those of its first trigger."""
        if event_name == "flow/invoke" and self.triggers:
            return self.triggers[0]
        return next((trigger for trigger in self.triggers if trigger.takes(event_name)), None)

    def describe(self) -> dict[str, Any]:
        """The function as JSON-able data, for `flow functions` and for tools that do not import the app."""
        backoff = self.options.backoff
        return {
            "app": self.app,
            "name": self.name,
            "on": [trigger.name for trigger in self.triggers],
            "asks": any(trigger.when is not None for trigger in self.triggers),
            "cron": [cron.describe() for cron in self.crons],
            "queue": self.queue,
            "retries": self.options.retries,
            "backoff": None if backoff is None else [backoff.first, backoff.factor, backoff.cap],
            "timeout": self.options.timeout,
            "start_timeout": self.start_timeout,
            "run_timeout": self.run_timeout,
            "cancel_on": [each.name for each in self.cancel_on],
            "async": self.is_async,
            "code": f"{self.body.__module__}:{self.body.__qualname__}",
        }


def speaks_of(name: str, body: Any) -> bool:
    """Does its code, or that of functions and classes of its package that it can reach by their names?"""
    package = _package(body)
    left, seen = [body], set[int]()
    while left:
        one = left.pop()
        if id(one) in seen or _package(one) != package:
            continue
        seen.add(id(one))
        function = getattr(getattr(one, "func", one), "__func__", getattr(one, "func", one))
        code = getattr(function, "__code__", None)
        if code is None:  # a class, or an instance of one that can be called
            left += vars(one if isinstance(one, type) else type(one)).values()
            continue
        names = _names_in(code)
        if name in names:
            return True
        left += [function.__globals__[each] for each in names if each in function.__globals__]
        left += [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    return False


def _package(one: Any) -> str:
    return str(getattr(one, "__module__", None) or "").partition(".")[0]


_EMPTY = CellType()


def _names_in(code: CodeType | None) -> set[str]:
    """What a function's code, and that of the functions in it, speaks of."""
    if code is None:
        return set()
    return {*code.co_names}.union(*(_names_in(each) for each in code.co_consts if isinstance(each, CodeType)))


DECLARED = "__flow_functions__"


def declare_as(body: Callable[..., Any], functions: Iterable[Function]) -> None:
    """Have the user's function tell what it was declared as; those that take no attributes are told by name."""
    with contextlib.suppress(AttributeError):
        setattr(body, DECLARED, [*declared_as(body), *functions])


def declared_as(body: Callable[..., Any]) -> list[Function]:
    return list(getattr(body, DECLARED, ()))


def heard_by(functions: Iterable[Function]) -> str:
    """Which ends of runs these are on, or are cancelled by, a line each, as lib/tell.lua looks for them: `name`, or
    `name app/function`.
    """
    heard = {
        f"{event.name} {function.app}/{function.handles}" if function.handles else event.name
        for function in functions
        for event in RUN_EVENTS
        if function.trigger_for(event.name) is not None or event.name in {each.name for each in function.cancel_on}
    }
    return "\n".join(["", *sorted(heard), ""]) if heard else ""


def subscribed_by(functions: Iterable[Function]) -> dict[str, set[str]]:
    """By the names of events, and `noun/*`: functions that are started by these, or whose runs are cancelled by them."""
    found: dict[str, set[str]] = {}
    for function in functions:
        names = {each.name for each in function.triggers} | {each.name for each in function.cancel_on}
        for name in names | ({CRON_EVENT} if function.crons else set()):  # `flow cron trigger`
            found.setdefault(in_text(name), set()).add(function.name)
    return found


def in_text(name: str) -> str:
    """An event's name as RQ can read it in its record of a worker: a lone surrogate as what stands for it in Python."""
    return name.encode("utf-8", "backslashreplace").decode()


def check_name(what: str, name: str) -> str:
    """A name of an app or a function. Raises ConfigError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r:.120}: a name has 1 to 100 letters, digits, '-', '_' or '.', and begins with a letter or digit"
        )
    return name


def function_name(body: Callable[..., Any]) -> str:
    return getattr(body, "__name__", type(body).__name__).strip("_").replace("_", "-")


def check_body(where: str, body: Callable[..., Any]) -> None:
    """The user's function takes (event, step). Raises ConfigError."""
    try:
        inspect.signature(body).bind("event", "step")
    except TypeError:
        raise ConfigError(f"{where}: a function takes two arguments, (event, step)") from None
