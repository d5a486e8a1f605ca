"""When to try again: options, back-off, and the verdict on a failed attempt.

Pure: the random number arrives as an argument, and nothing here waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from types import FunctionType
from typing import Any, TypeVar

from .errors import (
    LONGEST_WAIT,
    ConfigError,
    NondeterminismError,
    NonRetriable,
    PayloadError,
    RetryAfter,
    StepFailed,
    WorkerLost,
)

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "__flow_options__"
MOST_FACTOR = 1e6
QUEUE = re.compile(r"[^|\n\r ,]{1,100}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: `first` seconds, times `factor` after each failure, at most `cap`.

    With `jitter` (the default) the wait is drawn evenly from 0 to that figure, so that a crowd of failures spreads out.

    >>> @app.function(on="order.placed", backoff=Backoff(first=1, cap=60))
    """

    first: float = 10.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        waits = _within(0, self.first, LONGEST_WAIT) and _within(0, self.cap, LONGEST_WAIT)
        if not (waits and _within(1, self.factor, MOST_FACTOR)):
            raise ConfigError(f"{self}: first and cap must be seconds from 0 to 366 days, factor from 1 to a million")

    def delay(self, failures: int, roll: float) -> float:
        """Seconds to wait after the `failures`-th failed attempt; `roll` is a random number from [0, 1)."""
        try:
            full = min(self.cap, self.first * self.factor ** (failures - 1))
        except OverflowError:
            full = self.cap if self.first else 0.0
        return full * roll if self.jitter else full


def _within(least: float, value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a step. `None` means: as the step function says, else as the function says, else the default."""

    retries: int | None = None
    backoff: Backoff | None = None
    timeout: float | None = None
    queue: str | None = None

    def over(self, lower: Options) -> Options:
        """These settings, completed by those of `lower`."""
        missing = {f.name: getattr(lower, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **missing) if missing else self


NO_OPTIONS = Options()
DEFAULTS = Options(retries=4, backoff=Backoff())


def make_options(
    where: str,
    *,
    retries: int | None = None,
    backoff: Backoff | float | timedelta | None = None,
    timeout: float | timedelta | None = None,
    queue: str | None = None,
) -> Options:
    """Options from what a user wrote; a bare number as back-off means the same wait each time. Raises ConfigError."""
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
        raise ConfigError(f"{where}: retries must be a whole number >= 0, got {retries!r}")
    if isinstance(backoff, timedelta):
        backoff = backoff.total_seconds()
    if backoff is not None and not isinstance(backoff, Backoff):
        if not _within(0, backoff, LONGEST_WAIT):
            raise ConfigError(f"{where}: backoff must be a Backoff, or seconds from 0 to 366 days, got {backoff!r}")
        backoff = Backoff(first=backoff, factor=1.0, cap=backoff, jitter=False)
    if queue is not None and not (isinstance(queue, str) and QUEUE.fullmatch(queue)):
        raise ConfigError(
            f"{where}: queue {queue!r:.120}: its name must have 1 to 100 characters, no blank, comma, bar or line end"
        )
    return Options(retries, backoff, time_limit(where, "timeout", timeout), queue)


def time_limit(where: str, name: str, limit: float | timedelta | None) -> float | None:
    """In seconds. Raises ConfigError for one that nobody can keep."""
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    if seconds is None:
        return None
    if not (_within(0, seconds, LONGEST_WAIT) and seconds > 0):
        raise ConfigError(f"{where}: {name} must be more than 0 seconds and at most 366 days, got {seconds!r}")
    return float(seconds)


def step_options(
    *,
    retries: int | None = None,
    backoff: Backoff | float | timedelta | None = None,
    timeout: float | timedelta | None = None,
    queue: str | None = None,
) -> Callable[[F], F]:
    """Attach default options to a step function; `step.options(...)` overrides them for one call.

    `retries` after the first attempt; `backoff` a `Backoff`, or seconds; `timeout` of one attempt in seconds, or a
    timedelta; `queue` a queue's name. Raises ConfigError.

    >>> @step_options(retries=8, timeout=30)
    ... def enrich(key: str) -> str: ...
    """

    def attach(fn: F) -> F:
        options = make_options(
            f"step_options of {getattr(fn, '__name__', fn)!r}",
            retries=retries, backoff=backoff, timeout=timeout, queue=queue,
        )  # fmt: skip
        setattr(fn, ATTRIBUTE, options)
        return fn

    return attach


def options_of(fn: object) -> Options:
    """The options that `step_options` attached to a step function, to what functools.partial has of it, or to the `__call__`
    of an object.
    """
    found = getattr(fn, ATTRIBUTE, None)
    if found is None and type(fn) is not FunctionType:
        found = getattr(getattr(fn, "func", vars(type(fn)).get("__call__")), ATTRIBUTE, None)
    return found if isinstance(found, Options) else NO_OPTIONS


FINAL = (NonRetriable, PayloadError, ConfigError, NondeterminismError, StepFailed, WorkerLost)


def retry_delay(error: BaseException, attempt: int, options: Options, roll: float) -> float | None:
    """Seconds until the next attempt after `attempt` failed with `error`; None when there is to be none.

    What says that it cannot get better is not tried again: NonRetriable, a value that cannot be stored, and a
    StepFailed, whose step has had all its attempts already.
    """
    if isinstance(error, FINAL) or (isinstance(error, BaseExceptionGroup) and error.split(FINAL)[1] is None):
        return None
    assert options.retries is not None and options.backoff is not None
    if attempt > options.retries:
        return None
    if isinstance(error, RetryAfter):
        return error.delay
    return options.backoff.delay(attempt, roll)
