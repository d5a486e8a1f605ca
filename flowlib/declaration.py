"""What `@app.function` takes, checked and made into a `Function`.

Pure: no Redis, no RQ, no clock, no randomness. Which names are taken is the app's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from .async_step import AsyncStep
from .errors import ConfigError
from .function import Function, Limits, check_body, check_name, function_name
from .model import Ending, Event, EventType, run_cancelled, run_completed, run_failed
from .retry import DEFAULTS, Backoff, Options, make_options, options_of, time_limit
from .step import Step
from .triggers import Cancels, Matching, On, Trigger, make_cancels, make_triggers, trigger
from .wait import check_field

Handler = Callable[[Event[Ending], Step], object] | Callable[[Event[Ending], AsyncStep], Coroutine[Any, Any, object]]


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
    cancel_on: Cancels | Sequence[Cancels]
    on_success: Handler | None
    on_failure: Handler | None
    on_cancel: Handler | None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an app says for all of its functions."""

    app: str
    options: Options
    idempotency: timedelta
    retention: timedelta


def declare(
    body: Callable[..., Any],
    on: On | Sequence[On],
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
    cancel_on: Cancels | Sequence[Cancels] = (),
    on_success: Handler | None = None,
    on_failure: Handler | None = None,
    on_cancel: Handler | None = None,
) -> list[Function]:
    """The function that is meant, and those that handle its ends. Raises ConfigError."""
    named = check_name("function", name or function_name(body))
    where = f"function {named!r}"
    check_body(where, body)
    _check_face(where, body)
    own = make_options(where, retries=retries, backoff=backoff, timeout=timeout, queue=queue)
    triggers, crons = make_triggers(where, on)
    function = Function(
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
        cancel_on=_checked(where, make_cancels(where, cancel_on), triggers),
    )
    handlers = [
        _handler(function, what, handler, of, ended)
        for what, handler, ended in (
            ("on-success", on_success, run_completed),
            ("on-failure", on_failure, run_failed),
            ("on-cancel", on_cancel, run_cancelled),
        )
        if handler is not None
    ]
    return [function, *handlers]


def _checked(where: str, cancels: tuple[Matching, ...], triggers: tuple[Trigger[Any], ...]) -> tuple[Matching, ...]:
    """As far as the types of both events say which fields they have. Raises ConfigError."""
    for each in cancels:
        for theirs, own in each.fields:
            check_field(f"{where}: cancel_on", each.type, theirs)
            for own_event in triggers:
                check_field(f"{where}: cancel_on", own_event.type, own)
    return cancels


def _handler(
    function: Function, what: str, body: Callable[..., Any], of: Defaults, ended: EventType[Ending]
) -> Function:
    """A function of its own, on the ends of that one; its settings are the app's, or those of `step_options`."""
    name = f"{function.name}.{what}"
    where = f"function {name!r}"
    if not callable(body):
        raise ConfigError(f"{where}: {what.replace('-', '_')} takes a function of (event, step), got {body!r}")
    check_body(where, body)
    _check_face(where, body)

    def is_its(event: Event[Ending]) -> bool:
        return (event.data.app, event.data.function) == (function.app, function.name)

    return Function(
        app=of.app,
        name=check_name("function", name),
        body=body,
        triggers=(trigger(ended, when=is_its),),
        options=options_of(body).over(Options(queue=function.options.queue)).over(of.options).over(DEFAULTS),
        idempotency=function.idempotency,
        retention=function.retention,
        handles=function.name,
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
