"""`AsyncStep`: what an `async def` function is given: the calls of `Step`, with `await`.

Pure: no Redis, no RQ, no clock, no randomness. The `Frame` behind a face is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, overload

from .errors import StepFailed
from .face import (
    AsyncPromise,
    Call,
    Each,
    Face,
    answer,
    due_after,
    due_at,
    found,
    ids_of,
    invocation,
    kinds_of,
    nothing,
    pass_over,
    run_body,
    send_in,
)  # fmt: skip
from .journal import INVOKE, RUN, SEND, SLEEP, WAIT
from .model import Event, EventType
from .retry import Backoff, make_options
from .wait import Due, make_wait

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
D = TypeVar("D")
E = TypeVar("E")


class AsyncStep(Face):
    """The same for `async def` functions: the same calls with `await`.

    `asyncio.gather`, `TaskGroup`, `wait_for` and `wait` over them work, and have steps done side by side. All else that
    would wait for the world outside is for steps: it is refused with an error that says so.

    >>> @app.function(on=uploaded)
    ... async def import_contacts(event: Event[Upload], step: AsyncStep) -> int:
    ...     return await step.run("store", store, event.data.key)
    """

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
        return AsyncStep(self._frame, made.over(self._options))

    @overload
    async def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `Step.run`; `fn` may be sync or async.

        >>> rows = await step.run("enrich", enrich, key)
        """
        return (await self._ask(RUN, id, fn, None, run_body(self._frame, fn, args, kwargs))).value()

    @overload
    async def map(
        self, id: str, fn: Callable[[A], Awaitable[T]], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[False] = ...,
    ) -> list[T]: ...  # fmt: skip
    @overload
    async def map(
        self, id: str, fn: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[False] = ...,
    ) -> list[T]: ...  # fmt: skip
    @overload
    async def map(
        self, id: str, fn: Callable[[A], Awaitable[T]], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[True],
    ) -> list[T | StepFailed]: ...  # fmt: skip
    @overload
    async def map(
        self, id: str, fn: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[True],
    ) -> list[T | StepFailed]: ...  # fmt: skip
    async def map(
        self,
        id: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        /,
        *,
        limit: int | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """As `Step.map`.

        >>> totals = await step.map("bill", bill, customers, limit=20)
        """
        each = Each(self._frame, id, fn, items, self._options, limit)
        for calls in each.held_up():
            await self._frame.turn(*calls)
        return each.values(return_errors)

    async def sleep(self, id: str, duration: timedelta | float) -> None:
        """As `Step.sleep`.

        >>> await step.sleep("cooling-off", 30)
        """
        if (due := due_after(id, duration)) is not None:
            await self._ask(SLEEP, id, None, due, pass_over)

    async def sleep_until(self, id: str, when: datetime) -> None:
        """As `Step.sleep_until`.

        >>> await step.sleep_until("opening", when)
        """
        await self._ask(SLEEP, id, None, due_at(id, when), pass_over)

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
        wait = make_wait(id, event, match, timeout, since, when)
        return found(await self._ask(WAIT, id, nothing, wait, pass_over), id, wait)

    @overload
    async def wait_for_any(
        self, id: str, event: EventType[D], other: EventType[E], /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[D] | Event[E]], bool] | None = ...,
    ) -> Event[D] | Event[E] | None: ...  # fmt: skip
    @overload
    async def wait_for_any(
        self, id: str, /, *events: str | EventType[Any], match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[Any]], bool] | None = ...,
    ) -> Event[Any] | None: ...  # fmt: skip
    async def wait_for_any(
        self,
        id: str,
        /,
        *events: str | EventType[Any],
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        since: datetime | None = None,
        when: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any] | None:
        """As `Step.wait_for_any`.

        >>> verdict = await step.wait_for_any("verdict", approved, declined, match={"key": key}, timeout=3600)
        """
        waits: list[asyncio.Future[Event[Any] | None]] = [
            asyncio.ensure_future(
                self.wait_for_event(each, event, match=match, timeout=timeout, since=since, when=when)
            )
            for each, event in kinds_of(id, events)
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when this one is given up itself
            for wait in waits:
                wait.cancel()
        return next(wait for wait in waits if wait in done).result()

    @overload
    async def invoke(
        self, id: str, function: Callable[[Event[D], Any], Coroutine[Any, Any, T]], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> T: ...  # fmt: skip
    @overload
    async def invoke(
        self, id: str, function: Callable[[Event[D], Any], T], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> T: ...  # fmt: skip
    @overload
    async def invoke(
        self, id: str, function: str, data: Any = ..., /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> Any: ...  # fmt: skip
    async def invoke(
        self,
        id: str,
        function: str | Callable[..., Any],
        data: Any = None,
        /,
        *,
        timeout: timedelta | float | None = None,
        detached: bool = False,
    ) -> Any:
        """As `Step.invoke`; several of them side by side by `asyncio.gather`.

        >>> invoice = await step.invoke("bill", bill, order)
        """
        target, child, body = invocation(self._frame, id, function, data, timeout, detached)
        return (await self._ask(INVOKE, id, target, child, body)).value()

    @overload
    def promise(self, id: str, /, *, as_: type[T], timeout: timedelta | float | None = ...) -> AsyncPromise[T]: ...
    @overload
    def promise(self, id: str, /, *, timeout: timedelta | float | None = ...) -> AsyncPromise[Any]: ...
    def promise(self, id: str, /, *, as_: Any = Any, timeout: timedelta | float | None = None) -> AsyncPromise[Any]:
        """As `Step.promise`; not awaited, but its `result()` is.

        >>> ok = await approval.result()
        """
        return AsyncPromise(self._frame, id, as_, timeout, self._options)

    @overload
    async def send_event(self, id: str, events: Event[Any], /) -> str: ...
    @overload
    async def send_event(self, id: str, events: Sequence[Event[Any]], /) -> list[str]: ...
    async def send_event(self, id: str, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """As `Step.send_event`.

        >>> await step.send_event("tell-billing", paid(payment))
        """
        body = partial(send_in, self._frame, events)
        return answer(await self._ask(SEND, id, ids_of, None, body), events)

    async def _ask(
        self, kind: str, id: str, target: Callable[..., Any] | None, due: Due | None, body: Callable[[Call], None]
    ) -> Call:
        """Coroutines side by side each have their own; what they wait for is done side by side."""
        call = self._frame.offer(kind, id, target, self._options, due, body)
        await self._frame.turn(call)
        return call
