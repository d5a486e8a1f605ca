"""What both faces of a run share: the operations behind them, and what is not awaited.

A call begins an operation, which raises `Interrupt` when the function must stop here because another job, later, goes on
from this place. What is *open* runs now, as an attempt; in any case the value is what was stored, so that the first pass
sees what every replay sees (I8).

Pure: no Redis, no RQ, no clock, no randomness. The `Frame` behind a face is the engine's.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeGuard, TypeVar, cast
from uuid import UUID

from .child import Child, make_child
from .errors import ConfigError, StepFailed
from .journal import RUN
from .model import Event, EventType
from .promise import Pending
from .retry import NO_OPTIONS, Options
from .shape import rebuild
from .wait import Due, Told, Wait, after

P = ParamSpec("P")
T = TypeVar("T")

MOST_OPEN = 100  # steps of a run that are open at a time, beside the one that holds the function up


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


class Future(Generic[T]):
    """What a step that was submitted, a wait or a timer comes to: ask for it where it is needed.

    >>> created = step.submit("create-contacts", create_contacts, rows)
    >>> total = created.result()
    """

    def __init__(self, frame: Frame, call: Call, read: Callable[[Call], T]) -> None:
        self._frame = frame
        self._read = read
        self.call = call

    def result(self) -> T:
        """Its value; as long as there is none, the function stops here and no worker is held.

        Raises StepFailed when the step has used up its attempts.
        """
        self._frame.join([self.asked()])
        return self._read(self.call)

    def asked(self) -> Call:
        """The call, which is waited for from now on."""
        return self.call


class Pledge(Generic[T]):
    """What both kinds of promises are made of; nothing waits for one before its result is asked for."""

    def __init__(self, frame: Frame, id: str, as_: Any, timeout: timedelta | float | None, options: Options) -> None:
        self._pending = Pending(id, timeout)
        self._frame = frame
        self.call, self.token = frame.promise(id, anything, options)
        self._id, self._as = id, as_

    def asked(self) -> Call:
        self._frame.want(self.call, self._pending, partial(give_up, self._id, self._pending))
        return self.call

    def _read(self, call: Call) -> T:
        return cast(T, rebuild(call.value(), self._as, f"step {self._id!r}: promise"))


class Promise(Pledge[T], Future[T]):
    """What somebody outside settles, by its `token`, before or after its result is asked for.

    >>> approval = step.promise("approval", as_=bool)
    >>> step.run("ask", send_mail, approval.token)
    >>> if approval.result(): ...
    """


class AsyncPromise(Pledge[T]):
    """The same in an `async def` function.

    >>> if await approval.result(): ...
    """

    async def result(self) -> T:
        """Its value, once it is resolved. Raises StepFailed when it is rejected, or its time is over."""
        call = self.asked()
        await self._frame.turn(call)
        return self._read(call)


class Frame(Protocol):
    """One run's function, alive in this process."""

    run_id: str

    @property
    def app(self) -> str: ...
    def guard(self, step_id: str) -> None: ...
    def recall(self, kind: str, step_id: str, target: Callable[..., Any]) -> Any: ...
    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> Call: ...
    def offer(
        self,
        kind: str,
        step_id: str,
        target: Callable[..., Any] | None,
        options: Options,
        due: Due | None,
        body: Callable[[Any], None],
    ) -> Call: ...
    def want(self, call: Any, due: Due | None, body: Callable[[Any], None]) -> None: ...
    def promise(self, step_id: str, target: Callable[..., Any], options: Options) -> tuple[Call, str]: ...
    def seal(self, encoded: bytes) -> bytes: ...
    def cancel_child(self, call: Any, reason: str) -> None: ...
    def join(self, calls: Sequence[Any], any: bool = False) -> None: ...
    async def turn(self, *calls: Any) -> None: ...
    def race(self, calls: Sequence[Any]) -> int: ...
    def value(self, name: str, as_: type[T]) -> T: ...
    def patched(self, patch: str) -> bool: ...
    def undo(self, fn: Callable[..., object], run: Callable[[str], Any]) -> None: ...
    def prepare(self, events: list[Event[Any]]) -> Sequence[Any]: ...
    def drive(self, awaitable: Awaitable[T]) -> T: ...
    @property
    def attempt(self) -> int: ...


class Face:
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

    def on_rollback(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """What undoes a step, should the run fail or be cancelled: then `fn` runs as a step of it, the newest first.

        Register it right after the step that it undoes; or before, if that step may have done half of it when it fails.
        It has the retries of any step (`step.options(...).on_rollback(...)`), and one that has used them up does not keep
        the others from being undone. Nothing is awaited, in `async` functions either.

        >>> payment = step.run("charge", charge, order)
        >>> step.on_rollback(refund, payment)
        """
        run: Any = self.run  # type: ignore[attr-defined]
        self._frame.undo(fn, lambda step_id: run(step_id, fn, *args, **kwargs))

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines are kept in the run's history. So are those of any other logger, and of `print`."""
        return logging.getLogger("flowlib.step")


def run_body(
    frame: Frame, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[Call], None]:
    """To be called when the step's job is there."""

    def body(call: Call) -> None:
        with call.attempt():
            result = fn(*args, **kwargs)
            call.set(frame.drive(result) if inspect.isawaitable(result) else result)

    return body


class Each:
    """A step for each item, offered one after the other, so that at most so many are open at a time."""

    def __init__(
        self, frame: Frame, id: str, fn: Callable[[Any], Any], items: Iterable[Any], options: Options, limit: int | None
    ) -> None:
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise ConfigError(f"step {id!r}: limit={limit!r} must be an int of at least 1, or None")
        self.calls: list[Call] = []
        self._frame, self._id, self._fn, self._options = frame, id, fn, options
        self._items = items
        self._most = MOST_OPEN if limit is None else min(limit, MOST_OPEN)

    def held_up(self) -> Iterator[list[Call]]:
        """Calls of which any has to be waited for, time and again, until all are there."""
        waiting: list[Call] = []
        for i, item in enumerate(self._items):
            while len(waiting) >= self._most:
                yield waiting
                waiting = [call for call in waiting if call.open]
            body = run_body(self._frame, self._fn, (item,), {})
            call = self._frame.offer(RUN, f"{self._id}[{i}]", self._fn, self._options, None, body)
            self.calls.append(call)
            if call.open:
                waiting.append(call)
        for call in waiting:
            yield [call]

    def values(self, return_errors: bool) -> list[Any]:
        """Raises the first StepFailed in order, if errors are not to be returned."""
        return [_value_or_error(call) if return_errors else call.value() for call in self.calls]


def ids_of() -> list[str]:
    """What is stored of a step that sends events."""
    return []


def send_in(frame: Frame, events: Event[Any] | Sequence[Event[Any]], call: Call) -> None:
    if call.open:
        with call.attempt():
            ready = frame.prepare(list(events) if several(events) else [cast(Event[Any], events)])
            call.set([event_id for event_id, *_ in ready], ready)


def answer(call: Call, events: Event[Any] | Sequence[Event[Any]]) -> str | list[str]:
    ids: list[str] = call.value()
    return ids if several(events) else ids[0]


def several(events: object) -> TypeGuard[Sequence[Event[Any]]]:
    return isinstance(events, Sequence) and not isinstance(events, str | bytes)


def nothing() -> Any:
    """What is stored of a wait that no event has ended."""
    return None


def found(call: Call, id: str, wait: Wait) -> Event[Any] | None:
    pass_over(call)
    return wait.event(id, call.value())


def kinds_of(id: str, events: Sequence[str | EventType[Any]]) -> list[tuple[str, str | EventType[Any]]]:
    """Each with the id of its own wait, by its name: they may be moved, and others put among them."""
    if not events:
        raise ConfigError(f"step {id!r}: wait_for_any takes at least one EventType or event's name")
    return [(f"{id}[{event.name if isinstance(event, EventType) else event}]", event) for event in events]


def anything() -> Any:
    """Stands for what nobody here knows the type of."""
    return None


def give_up(id: str, due: Told, call: Call) -> None:
    """Its job is there and nobody has told it anything: its time is over."""
    with call.attempt():
        raise due.timed_out(id)


def invocation(
    frame: Frame,
    id: str,
    function: str | Callable[..., Any],
    data: Any,
    timeout: timedelta | float | None,
    detached: bool,
) -> tuple[Callable[..., Any], Child, Callable[[Call], None]]:
    """What its value is typed by, what the step waits for, and what it does when its time is over."""
    child = make_child(id, function, data, timeout, detached, frame.app, frame.seal)

    def body(call: Call) -> None:
        if not detached:
            frame.cancel_child(call, f"run {frame.run_id}, which had invoked it, has waited for too long")
        give_up(id, child, call)

    return anything if isinstance(function, str) else function, child, body


def pass_over(call: Call) -> None:
    """A sleep, or a wait, whose job is due is over: there is no body to run."""
    if call.open:
        with call.attempt():
            call.set(None)


def due_after(id: str, duration: timedelta | float) -> Due | None:
    duration = after(id, "sleep", duration)
    return Due(delay_ms=duration.total_seconds() * 1000) if duration > timedelta(0) else None


def due_at(id: str, when: datetime) -> Due:
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise ConfigError(f"step {id!r}: sleep_until takes an aware datetime (with a tzinfo), got {when!r}")
    return Due(until_ms=when.timestamp() * 1000)


def value_of(call: Call) -> Any:
    return call.value()


def nothing_of(_: Call) -> None:
    return None


def _value_or_error(call: Call) -> Any:
    try:
        return call.value()
    except StepFailed as error:
        return error
