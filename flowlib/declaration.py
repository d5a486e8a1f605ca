"""What `@app.function` takes, checked and made into a `Function`.

Pure: no Redis, no RQ, no clock, no randomness. Which names are taken is the app's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from .errors import ConfigError
from .function import Function, Limits, Trigger, check_body, check_name, function_name, make_triggers
from .retry import DEFAULTS, Backoff, Options, make_options, time_limit


class Settings(TypedDict, total=False):
    """Of a function, beside what it is triggered by; `App.function` says what each means."""

    name: str | None
    retries: int | None
    backoff: Backoff | float | timedelta | None
    timeout: float | timedelta | None
    queue: str | None
    idempotency: timedelta | None
    retention: timedelta | None
    limits: Limits | None
    start_timeout: float | timedelta | None
    run_timeout: float | timedelta | None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an app says for all of its functions."""

    app: str
    options: Options
    idempotency: timedelta
    retention: timedelta


def declare(
    body: Callable[..., Any],
    on: Trigger | Sequence[Trigger],
    of: Defaults,
    *,
    name: str | None = None,
    retries: int | None = None,
    backoff: Backoff | float | timedelta | None = None,
    timeout: float | timedelta | None = None,
    queue: str | None = None,
    idempotency: timedelta | None = None,
    retention: timedelta | None = None,
    limits: Limits | None = None,
    start_timeout: float | timedelta | None = None,
    run_timeout: float | timedelta | None = None,
) -> Function:
    """The function that is meant. Raises ConfigError."""
    named = check_name("function", name or function_name(body))
    where = f"function {named!r}"
    check_body(where, body)
    _check_face(where, body)
    own = make_options(where, retries=retries, backoff=backoff, timeout=timeout, queue=queue)
    triggers, crons = make_triggers(where, on)
    return Function(
        app=of.app,
        name=named,
        body=body,
        triggers=triggers,
        crons=crons,
        options=own.over(of.options).over(DEFAULTS),
        limits=Limits() if limits is None else limits,
        idempotency=of.idempotency if idempotency is None else idempotency,
        retention=of.retention if retention is None else retention,
        start_timeout=time_limit(where, "start_timeout", start_timeout),
        run_timeout=time_limit(where, "run_timeout", run_timeout),
    )


def _check_face(where: str, body: Callable[..., Any]) -> None:
    """An async function awaits an AsyncStep, any other calls a Step. Raises ConfigError."""
    hints = list(getattr(body, "__annotations__", {}).items())
    named = next((hint for name, hint in hints[1:2] if name != "return"), None)
    named = getattr(named, "__name__", named)
    fitting = "AsyncStep" if inspect.iscoroutinefunction(body) else "Step"
    if named in ("Step", "AsyncStep") and named != fitting:
        kind = "an async" if fitting == "AsyncStep" else "a sync"
        raise ConfigError(f"{where}: {kind} function is given {fitting}, not {named}: annotate its second argument so")
