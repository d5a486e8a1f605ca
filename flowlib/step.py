"""`Step`: what an ordinary function is given. A thin face; that of `async def` functions differs by `await`.

Pure: no Redis, no RQ, no clock, no randomness. The `Frame` behind a face is the engine's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar, cast, overload

from .errors import ConfigError, StepFailed
from .face import (
    Each,
    Face,
    Future,
    Promise,
    answer,
    due_after,
    due_at,
    found,
    ids_of,
    invocation,
    kinds_of,
    nothing,
    nothing_of,
    pass_over,
    run_body,
    send_in,
    value_of,
)
from .journal import INVOKE, RUN, SEND, SLEEP, UNKNOWN, WAIT
from .model import Event, EventType
from .retry import Backoff, make_options
from .wait import Due, make_wait

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
D = TypeVar("D")
E = TypeVar("E")


class Step(Face):
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
        frame = self._frame
        known = frame.recall(RUN, id, fn)
        if known is not UNKNOWN:
            return known
        call = frame.begin(RUN, id, fn, self._options, None)
        if call.open:
            with call.attempt():
                result = fn(*args, **kwargs)
                call.set(frame.drive(result) if inspect.isawaitable(result) else result)
        return call.value()

    @overload
    def submit(
        self, id: str, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def submit(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def submit(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `run`, side by side with what comes after it: the function goes on, and asks for the result where it needs it.

        Each such step is a job of its own, on any worker. A failed one leaves the others running. A function that returns
        waits for those that it has not asked for the result of.

        >>> a = step.submit("create-contacts", create_contacts, rows)
        >>> b = step.submit("index-contacts", index_contacts, rows)
        >>> total = a.result() + b.result()
        """
        body = run_body(self._frame, fn, args, kwargs)
        return Future(self._frame, self._frame.offer(RUN, id, fn, self._options, None, body), value_of)

    @overload
    def map(
        self, id: str, fn: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[False] = ...,
    ) -> list[T]: ...  # fmt: skip
    @overload
    def map(
        self, id: str, fn: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[False] = ...,
    ) -> list[T]: ...  # fmt: skip
    @overload
    def map(
        self, id: str, fn: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[True],
    ) -> list[T | StepFailed]: ...  # fmt: skip
    @overload
    def map(
        self, id: str, fn: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = ...,
        return_errors: Literal[True],
    ) -> list[T | StepFailed]: ...  # fmt: skip
    def map(
        self,
        id: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        /,
        *,
        limit: int | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """`fn` of each item, each a step of its own: `id[0]`, `id[1]`, …; the results in the order of the items.

        At most `limit` of them are open at a time, 100 if that is left out or more. All are done before it returns; then
        the first StepFailed in order is raised, or with `return_errors` each is in the place of its result.

        >>> totals = step.map("bill", bill, customers, limit=20)
        """
        each = Each(self._frame, id, fn, items, self._options, limit)
        for calls in each.held_up():
            self._frame.join(calls, any=True)
        return each.values(return_errors)

    def gather(self, *futures: Future[T]) -> list[T]:
        """The results of all, once all are there; raises the first StepFailed in order.

        >>> created, indexed = step.gather(a, b)
        """
        self._frame.join([future.asked() for future in futures])
        return [future.result() for future in futures]

    def first(self, *futures: Future[Any]) -> Future[Any]:
        """Whichever of them comes first, for good; the others are dropped: their jobs end, and bodies are interrupted.

        >>> paid = step.expect_event("paid", payment, match={"order": order.id})
        >>> if step.first(paid, step.timer("too-late", timedelta(days=3))) is not paid:
        ...     step.run("remind", remind, order.id)
        """
        if not futures:
            raise ConfigError("step.first takes at least one future")
        return futures[self._frame.race([future.asked() for future in futures])]

    def timer(self, id: str, duration: timedelta | float) -> Future[None]:
        """As `sleep`, side by side with what comes after it.

        >>> step.first(answer, step.timer("too-late", 60))
        """
        due = due_after(id, duration) or Due(delay_ms=0.0)
        return Future(self._frame, self._frame.offer(SLEEP, id, None, self._options, due, pass_over), nothing_of)

    @overload
    def expect_event(
        self, id: str, event: EventType[D], /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[D]], bool] | None = ...,
    ) -> Future[Event[D] | None]: ...  # fmt: skip
    @overload
    def expect_event(
        self, id: str, event: str, /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[Any]], bool] | None = ...,
    ) -> Future[Event[Any] | None]: ...  # fmt: skip
    def expect_event(
        self,
        id: str,
        event: str | EventType[Any],
        /,
        *,
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        since: datetime | None = None,
        when: Callable[[Event[Any]], bool] | None = None,
    ) -> Future[Event[Any] | None]:
        """As `wait_for_event`, side by side with what comes after it. The wait begins when a worker has registered it, so
        say `since` when what the function does next may make the event come.

        >>> answer = step.expect_event("answer", approved, match={"key": key}, since=step.now())
        """
        wait = make_wait(id, event, match, timeout, since, when)
        call = self._frame.offer(WAIT, id, nothing, self._options, wait, pass_over)
        return Future(self._frame, call, lambda call: found(call, id, wait))

    def sleep(self, id: str, duration: timedelta | float) -> None:
        """Go on after `duration` (a timedelta, or seconds; at most 366 days). No worker is held meanwhile.

        The time counts from the moment the sleep is recorded, once, by the server's clock; zero or less returns at once.

        >>> step.sleep("cooling-off", timedelta(hours=1))
        """
        if (due := due_after(id, duration)) is not None:
            pass_over(self._frame.begin(SLEEP, id, None, self._options, due))

    def sleep_until(self, id: str, when: datetime) -> None:
        """Go on at `when`, an aware datetime at most 366 days ahead; a time that is past returns at once.

        >>> step.sleep_until("opening", datetime(2027, 1, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")))
        """
        pass_over(self._frame.begin(SLEEP, id, None, self._options, due_at(id, when)))

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
        return found(self._frame.begin(WAIT, id, nothing, self._options, wait), id, wait)

    @overload
    def wait_for_any(
        self, id: str, event: EventType[D], other: EventType[E], /, *, match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[D] | Event[E]], bool] | None = ...,
    ) -> Event[D] | Event[E] | None: ...  # fmt: skip
    @overload
    def wait_for_any(
        self, id: str, /, *events: str | EventType[Any], match: Mapping[str, Any] | None = ...,
        timeout: timedelta | float | None = ..., since: datetime | None = ...,
        when: Callable[[Event[Any]], bool] | None = ...,
    ) -> Event[Any] | None: ...  # fmt: skip
    def wait_for_any(
        self,
        id: str,
        /,
        *events: str | EventType[Any],
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        since: datetime | None = None,
        when: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any] | None:
        """As `wait_for_event`, of several kinds: the first event of any of them, or None after `timeout`.

        Each kind is a wait of its own beside the others, `id[its name]`; the first that ends drops them. So `since` matters
        where the function has just done what may make the event come.

        >>> verdict = step.wait_for_any("verdict", approved, declined, match={"key": key}, since=step.now())
        """
        waits: list[Future[Event[Any] | None]] = [
            self.expect_event(each, event, match=match, timeout=timeout, since=since, when=when)
            for each, event in kinds_of(id, events)
        ]
        return cast("Event[Any] | None", self.first(*waits).result())

    @overload
    def invoke(
        self, id: str, function: Callable[[Event[D], Any], Coroutine[Any, Any, T]], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> T: ...  # fmt: skip
    @overload
    def invoke(
        self, id: str, function: Callable[[Event[D], Any], T], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> T: ...  # fmt: skip
    @overload
    def invoke(
        self, id: str, function: str, data: Any = ..., /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> Any: ...  # fmt: skip
    def invoke(
        self,
        id: str,
        function: str | Callable[..., Any],
        data: Any = None,
        /,
        *,
        timeout: timedelta | float | None = None,
        detached: bool = False,
    ) -> Any:
        """Run another function as a child of this run, and return what it returns; no worker is held meanwhile.

        `function` is one that is declared, or its name, as "function" or, of another app, "app/function"; `data` are those
        of its event. It is started once. Raises StepFailed when it fails, with its type, message and traceback, when it is
        cancelled, when there is no such function, and after `timeout`. It is cancelled with this run, and when that
        does not wait for it any more, unless it is `detached`.

        >>> invoice = step.invoke("bill", bill, order, timeout=timedelta(hours=1))
        """
        return self.start(id, cast(Any, function), data, timeout=timeout, detached=detached).result()

    @overload
    def start(
        self, id: str, function: Callable[[Event[D], Any], Coroutine[Any, Any, T]], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> Future[T]: ...  # fmt: skip
    @overload
    def start(
        self, id: str, function: Callable[[Event[D], Any], T], data: D, /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> Future[T]: ...  # fmt: skip
    @overload
    def start(
        self, id: str, function: str, data: Any = ..., /, *,
        timeout: timedelta | float | None = ..., detached: bool = ...,
    ) -> Future[Any]: ...  # fmt: skip
    def start(
        self,
        id: str,
        function: str | Callable[..., Any],
        data: Any = None,
        /,
        *,
        timeout: timedelta | float | None = None,
        detached: bool = False,
    ) -> Future[Any]:
        """As `invoke`, side by side with what comes after it.

        >>> invoice = step.start("bill", bill, order)
        >>> parcel = step.start("pack", "warehouse/pack", order)
        >>> step.gather(invoice, parcel)
        """
        target, child, body = invocation(self._frame, id, function, data, timeout, detached)
        return Future(self._frame, self._frame.offer(INVOKE, id, target, self._options, child, body), value_of)

    @overload
    def promise(self, id: str, /, *, as_: type[T], timeout: timedelta | float | None = ...) -> Promise[T]: ...
    @overload
    def promise(self, id: str, /, *, timeout: timedelta | float | None = ...) -> Promise[Any]: ...
    def promise(self, id: str, /, *, as_: Any = Any, timeout: timedelta | float | None = None) -> Promise[Any]:
        """What somebody outside resolves or rejects, once, by its token: `app.promises`, `flow promise`.

        It may be settled before its `result()` is asked for; from then on the run waits, and `timeout` counts. The value
        is rebuilt to `as_`. `result` raises StepFailed when it is rejected, and after `timeout`.

        >>> approval = step.promise("approval", as_=bool, timeout=timedelta(days=2))
        >>> step.run("ask", send_mail, approval.token)
        >>> ok = approval.result()
        """
        return Promise(self._frame, id, as_, timeout, self._options)

    @overload
    def send_event(self, id: str, events: Event[Any], /) -> str: ...
    @overload
    def send_event(self, id: str, events: Sequence[Event[Any]], /) -> list[str]: ...
    def send_event(self, id: str, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """Send one event, or several, as a step: exactly once, whatever is killed, in the stroke that records it.

        Returns the id, or the ids, in order. A bad event fails the step without retries, and nothing is sent.

        >>> step.send_event("tell-billing", paid(Payment(order.id, 42)))
        """
        call = self._frame.begin(SEND, id, ids_of, self._options, None)
        send_in(self._frame, events, call)
        return answer(call, events)
