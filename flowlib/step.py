"""`Step` and `AsyncStep`: what the user's function is given. Thin faces; they differ by `await` and by nothing else.

A call begins an operation, which raises `Interrupt` when the function must stop here because another job, later, goes on
from this place. What is *open* runs now, as an attempt; in any case the value is what was stored, so that the first pass
sees what every replay sees (I8).

Pure: no Redis, no RQ, no clock, no randomness. The `Frame` behind a face is the engine's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeGuard, TypeVar, cast, overload
from uuid import UUID

from .errors import ConfigError
from .journal import RUN, SEND, SLEEP, WAIT
from .model import Event, EventType
from .retry import NO_OPTIONS, Backoff, Options, make_options
from .wait import Due, Wait, after, make_wait

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class Call(Protocol):
    """One operation that the function asked for."""

    @property
    def open(self) -> bool: ...
    def attempt(self) -> AbstractContextManager[None]:
        """Around the body: bounded by the timeout, its failure becomes Interrupt or StepFailed, its `result` the memo."""
        ...

    def set(self, result: Any, events: Sequence[Any] = ()) -> None:
        """What the body returned; `events` are sent in the stroke that records it."""
        ...

    def value(self) -> Any: ...


class Frame(Protocol):
    """One run's function, alive in this process."""

    run_id: str

    def guard(self, step_id: str) -> None: ...
    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> Call: ...
    def value(self, name: str, as_: type[T]) -> T: ...
    def patched(self, patch: str) -> bool: ...
    def prepare(self, events: list[Event[Any]]) -> Sequence[Any]: ...
    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    async def perform(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    @property
    def attempt(self) -> int: ...


class _Face:
    def __init__(self, frame: Frame, options: Options = NO_OPTIONS) -> None:
        self._frame = frame
        self._options = options

    @property
    def run_id(self) -> str:
        """The id of this run, a ULID."""
        return self._frame.run_id

    @property
    def attempt(self) -> int:
        """Which try this is, from 1: of the step inside a step's body, else of the function since its last new step."""
        return self._frame.attempt

    def now(self) -> datetime:
        """The time, by this machine's clock, in UTC, when the function first came to this place; remembered for replays.

        It has no job and costs less than the shortest step; nothing is awaited, in `async` functions either. Inside a
        step's body it is refused, as all of these are: any clock will do there.

        >>> deadline = step.now() + timedelta(days=3)
        """
        return self._frame.value("now", datetime)

    def uuid(self) -> UUID:
        """A random UUID (version 4), made once at this place of the function and remembered for replays.

        >>> token = step.uuid()
        """
        return self._frame.value("uuid", UUID)

    def random(self) -> float:
        """A random number from 0.0 up to, and without, 1.0, drawn once at this place and remembered for replays.

        >>> variant = "a" if step.random() < 0.5 else "b"
        """
        return self._frame.value("random", float)

    def patched(self, id: str) -> bool:
        """For a change that runs which are under way must not see: True for those that come here for the first time with
        it, False for those that were past this place before. Remembered without a job, as `step.now` is; while replaying,
        the same id has the same answer. Once no run is left that says False, ask no more.

        >>> if step.patched("ask-twice"):
        ...     step.run("confirm", confirm, order)
        """
        return self._frame.patched(id)

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines are kept in the run's history. So are those of any other logger, and of `print`."""
        return logging.getLogger("flowlib.step")


class Step(_Face):
    """Runs, remembers and spaces out the steps of an ordinary function.

    >>> @app.function(on=uploaded)
    ... def import_contacts(event: Event[Upload], step: Step) -> int:
    ...     rows = step.run("enrich", enrich, event.data.key)
    ...     step.sleep("cooling-off", timedelta(hours=1))
    ...     return step.run("store", store, rows)
    """

    def options(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        queue: str | None = None,
    ) -> Step:
        """The same face with other settings for the calls made on it; they override those of the step function.

        `retries` after the first attempt; `backoff` a Backoff, or seconds; `timeout` seconds or a timedelta of one
        attempt; `queue` where the step's job waits. Raises ConfigError.

        >>> step.options(retries=8, timeout=30).run("undo", undo_import, key)
        """
        made = make_options("step.options", retries=retries, backoff=backoff, timeout=timeout, queue=queue)
        return Step(self._frame, made.over(self._options))

    @overload
    def run(self, id: str, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn` as a step: tried until it succeeds, then remembered under `id` for the rest of this run.

        Returns what was stored: the value encoded and decoded again to `fn`'s return annotation. An async `fn` is run
        to its end. Raises StepFailed after the last attempt, and ConfigError for an id that is taken.

        >>> check = step.run("validate-contents", validate_contents, upload.key)
        """
        call = self._frame.begin(RUN, id, fn, self._options, None)
        if call.open:
            with call.attempt():
                result = fn(*args, **kwargs)
                call.set(self._frame.drive(result) if inspect.iscoroutine(result) else result)
        return call.value()

    def sleep(self, id: str, duration: timedelta | float) -> None:
        """Go on after `duration` (a timedelta, or seconds; at most 366 days). No worker is held meanwhile.

        The time counts from the moment the sleep is recorded, once, by the server's clock; zero or less returns at once.

        >>> step.sleep("cooling-off", timedelta(hours=1))
        """
        if (due := _after(id, duration)) is not None:
            _pass(self._frame.begin(SLEEP, id, None, self._options, due))

    def sleep_until(self, id: str, when: datetime) -> None:
        """Go on at `when`, an aware datetime at most 366 days ahead; a time that is past returns at once.

        >>> step.sleep_until("opening", datetime(2027, 1, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")))
        """
        _pass(self._frame.begin(SLEEP, id, None, self._options, _at(id, when)))

    @overload
    def wait_for_event(
        self, id: str, event: EventType[D], /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[D]], bool] | None = ...,
    ) -> Event[D] | None: ...  # fmt: skip
    @overload
    def wait_for_event(
        self, id: str, event: str, /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[Any]], bool] | None = ...,
    ) -> Event[Any] | None: ...  # fmt: skip
    def wait_for_event(
        self,
        id: str,
        event: str | EventType[Any],
        /,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        since: datetime | None = None,
        when: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any] | None:
        """The first event of this kind that comes from now on, or None after `timeout` (a timedelta, or seconds; left out,
        366 days, which is also the longest). No worker is held meanwhile.

        `match` are fields of the event's data and the values that they must have; "user.id" is a field of a field. With
        `since` also events are found that Redis took at that time or later and still has; the run's own event is taken
        at `event.ts`, if its sender did not say otherwise. An event may be what many runs have waited for. `when`, where
        equality is not enough, is asked for each that matches, in order, on a worker: `match` keeps them few. Raises
        ConfigError for a field that the EventType does not have.

        >>> ok = step.wait_for_event("approval", approved, match={"key": upload.key}, timeout=timedelta(days=2))
        """
        wait = make_wait(id, event, match, timeout, since, when)
        return _found(self._frame.begin(WAIT, id, _nothing, self._options, wait), id, wait)

    @overload
    def send_event(self, id: str, events: Event[Any], /) -> str: ...
    @overload
    def send_event(self, id: str, events: Sequence[Event[Any]], /) -> list[str]: ...
    def send_event(self, id: str, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """Send one event, or several, as a step: exactly once, whatever is killed, in the stroke that records it.

        Returns the id, or the ids, in order. A bad event fails the step without retries, and nothing is sent.

        >>> step.send_event("tell-billing", paid(Payment(order.id, 42)))
        """
        call = self._frame.begin(SEND, id, _ids, self._options, None)
        _send(self._frame, call, events)
        return _answer(call, events)


class AsyncStep(_Face):
    """The same for `async def` functions: the same calls with `await`.

    >>> @app.function(on=uploaded)
    ... async def import_contacts(event: Event[Upload], step: AsyncStep) -> int:
    ...     return await step.run("store", store, event.data.key)
    """

    def __init__(self, frame: Frame, options: Options = NO_OPTIONS, turn: asyncio.Lock | None = None) -> None:
        super().__init__(frame, options)
        self._turn = turn or asyncio.Lock()  # coroutines side by side take their steps one after the other

    def options(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        queue: str | None = None,
    ) -> AsyncStep:
        """As `Step.options`.

        >>> await step.options(retries=8).run("undo", undo_import, key)
        """
        made = make_options("step.options", retries=retries, backoff=backoff, timeout=timeout, queue=queue)
        return AsyncStep(self._frame, made.over(self._options), self._turn)

    @overload
    async def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `Step.run`; `fn` may be sync or async.

        >>> rows = await step.run("enrich", enrich, key)
        """
        self._frame.guard(id)
        async with self._turn:
            call = self._frame.begin(RUN, id, fn, self._options, None)
            if call.open:
                with call.attempt():
                    call.set(await self._frame.perform(fn, args, kwargs))
            return call.value()

    async def sleep(self, id: str, duration: timedelta | float) -> None:
        """As `Step.sleep`.

        >>> await step.sleep("cooling-off", 30)
        """
        if (due := _after(id, duration)) is not None:
            self._frame.guard(id)
            async with self._turn:
                _pass(self._frame.begin(SLEEP, id, None, self._options, due))

    async def sleep_until(self, id: str, when: datetime) -> None:
        """As `Step.sleep_until`.

        >>> await step.sleep_until("opening", when)
        """
        self._frame.guard(id)
        async with self._turn:
            _pass(self._frame.begin(SLEEP, id, None, self._options, _at(id, when)))

    @overload
    async def wait_for_event(
        self, id: str, event: EventType[D], /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[D]], bool] | None = ...,
    ) -> Event[D] | None: ...  # fmt: skip
    @overload
    async def wait_for_event(
        self, id: str, event: str, /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[Any]], bool] | None = ...,
    ) -> Event[Any] | None: ...  # fmt: skip
    async def wait_for_event(
        self,
        id: str,
        event: str | EventType[Any],
        /,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        since: datetime | None = None,
        when: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any] | None:
        """As `Step.wait_for_event`.

        >>> ok = await step.wait_for_event("approval", approved, match={"key": key}, timeout=3600)
        """
        self._frame.guard(id)
        async with self._turn:
            wait = make_wait(id, event, match, timeout, since, when)
            return _found(self._frame.begin(WAIT, id, _nothing, self._options, wait), id, wait)

    @overload
    async def send_event(self, id: str, events: Event[Any], /) -> str: ...
    @overload
    async def send_event(self, id: str, events: Sequence[Event[Any]], /) -> list[str]: ...
    async def send_event(self, id: str, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """As `Step.send_event`.

        >>> await step.send_event("tell-billing", paid(payment))
        """
        self._frame.guard(id)
        async with self._turn:
            call = self._frame.begin(SEND, id, _ids, self._options, None)
            _send(self._frame, call, events)
            return _answer(call, events)


def _ids() -> list[str]:
    """What is stored of a step that sends events."""
    return []


def _send(frame: Frame, call: Call, events: Event[Any] | Sequence[Event[Any]]) -> None:
    if call.open:
        with call.attempt():
            ready = frame.prepare(list(events) if _several(events) else [cast(Event[Any], events)])
            call.set([event_id for event_id, *_ in ready], ready)


def _answer(call: Call, events: Event[Any] | Sequence[Event[Any]]) -> str | list[str]:
    ids: list[str] = call.value()
    return ids if _several(events) else ids[0]


def _several(events: object) -> TypeGuard[Sequence[Event[Any]]]:
    return isinstance(events, Sequence) and not isinstance(events, str | bytes)


def _nothing() -> Any:
    """What is stored of a wait that no event has ended."""
    return None


def _found(call: Call, id: str, wait: Wait) -> Event[Any] | None:
    _pass(call)
    return wait.event(id, call.value())


def _pass(call: Call) -> None:
    """A sleep, or a wait, whose job is due is over: there is no body to run."""
    if call.open:
        with call.attempt():
            call.set(None)


def _after(id: str, duration: timedelta | float) -> Due | None:
    duration = after(id, "sleep", duration)
    return Due(delay_ms=duration.total_seconds() * 1000) if duration > timedelta(0) else None


def _at(id: str, when: datetime) -> Due:
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise ConfigError(f"step {id!r}: sleep_until takes an aware datetime (with a tzinfo), got {when!r}")
    return Due(until_ms=when.timestamp() * 1000)
