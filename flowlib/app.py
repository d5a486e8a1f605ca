"""`App`: the set of functions that a user declares, how events are sent to them, and their runs.

Opens its connection to Redis at first use, so that declaring an app at import costs and needs nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar, Unpack, cast, overload

from .async_step import AsyncStep
from .child import INVOKE_EVENT, Invocation, call_of
from .codec import decode, encode
from .declaration import Defaults, Settings, declare
from .errors import ConfigError, PayloadError
from .function import Function, check_name, declare_as
from .middleware import Hooks, Middleware, entered
from .model import UNSENT, Event, EventType
from .promises import Promises
from .retry import Backoff, make_options
from .runs import Called, Runs
from .schedule import Cron
from .sealed import Open
from .step import Step
from .store import Sent, Store
from .triggers import On, Trigger, check_event_data, check_event_name, check_own_event
from .ulid import ulid

D = TypeVar("D")
D_contra = TypeVar("D_contra", contravariant=True)
R = TypeVar("R")

DEFAULT_URL = "redis://127.0.0.1:6379/0"


class Declare(Protocol[D]):
    """What `@app.function` returns: it takes a function of this event's data, sync or async, and gives it back."""

    @overload
    def __call__(self, fn: Callable[[Event[D], Step], R], /) -> Callable[[Event[D], Step], R]: ...
    @overload
    def __call__(
        self, fn: Callable[[Event[D], AsyncStep], Coroutine[Any, Any, R]], /
    ) -> Callable[[Event[D], AsyncStep], Coroutine[Any, Any, R]]: ...


class App:
    """A named set of functions on one Redis.

    `redis_url` defaults to `FLOW_REDIS_URL`, then to redis://127.0.0.1:6379/0. `queue`, `retries`, `backoff`, `timeout`,
    `idempotency` (how long an event id is remembered) and `retention` (how long an ended run is kept) are the defaults
    of its functions. `middleware` is entered in this order around what it is for, and left in reverse. Raises ConfigError.

    >>> app = App("contacts")
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        queue: str | None = None,
        retries: int | None = None,
        backoff: Backoff | float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        idempotency: timedelta = timedelta(hours=24),
        retention: timedelta = timedelta(days=7),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.name = check_name("app", name)
        self.functions: dict[str, Function] = {}
        self._redis_url = redis_url
        options = make_options(f"app {name!r}", retries=retries, backoff=backoff, timeout=timeout, queue=queue)
        self._defaults = Defaults(name, options, idempotency, retention)
        self._store: Store | None = None
        self._module = sys._getframe(1).f_globals.get("__name__", "")
        self._found_at = ""
        self.hooks = Hooks(middleware) if middleware else None
        self.sealing = None if self.hooks is None else self.hooks.sealing
        self.runs = Runs(lambda: self.store, name, self.functions, self.sealing)
        self.promises = Promises(lambda: self.store, self._seal)

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    # -- declaring ---------------------------------------------------------------------------------------------------

    @overload
    def function(self, *, on: EventType[D] | Trigger[D], **settings: Unpack[Settings]) -> Declare[D]: ...
    @overload
    def function(self, *, on: str | Cron, **settings: Unpack[Settings]) -> Declare[dict[str, Any]]: ...
    @overload
    def function(self, *, on: Sequence[On], **settings: Unpack[Settings]) -> Declare[Any]: ...
    def function(self, *, on: On | Sequence[On], **settings: Unpack[Settings]) -> Any:
        """Declare a function: `on` is what starts it, an EventType, an event's name, all of a noun as `user/*`, a
        `trigger` with a condition, a `cron`, or several of them.

        The function takes `(event, step)`, is sync or async, and is given back unchanged. Its name is its own with `-`
        for `_`, or `name`. These hold for each of its steps, unless that says otherwise: `retries` after the first
        attempt (default 4), `backoff` a Backoff or seconds (default 10 s doubling to 1 h, full jitter), `timeout` of an
        attempt in seconds (default none), `queue` (default "flow").

        A run is cancelled when it has not begun `start_timeout` after its event has started it, or not ended
        `run_timeout` after that: seconds or a timedelta, whatever it is doing then; and when an event of `cancel_on` comes,
        a name, an EventType, `matching(...)`, or several of them. `on_success`, `on_failure` and
        `on_cancel` are functions of `(event, step)`, too, whose `event.data` is the `Ending` of such a run: each is called
        once, as a run of its own. `idempotency` and `retention` are as the app's; `limits` are bounds of steps and
        bytes. Raises ConfigError.

        >>> @app.function(on=uploaded, retries=4, run_timeout=timedelta(hours=6))
        ... def import_contacts(event: Event[Upload], step: Step) -> int: ...
        """

        def add(body: Callable[..., Any]) -> Callable[..., Any]:
            declared = {function.name: function for function in declare(body, on, self._defaults, **settings)}
            for name in declared.keys() & self.functions.keys():
                other = self.functions[name].body
                raise ConfigError(
                    f"duplicate function {name!r} in app {self.name!r}: {other.__module__}.{other.__qualname__} has that "
                    f"name: give one of them name=..."
                )
            self.functions.update(declared)
            declare_as(body, [next(iter(declared.values()))])
            return body

        return add

    @property
    def location(self) -> str:
        """MODULE:NAME, where this app can be imported from: where it was made, or where it was loaded from by that name.

        Raises ConfigError when it is in no module.
        """
        module = sys.modules.get(self._module)
        for attribute, value in vars(module).items() if module else ():
            if value is self:
                spec = getattr(module, "__spec__", None)
                return f"{spec.name if spec else self._module}:{attribute}"
        if self._found_at:
            return self._found_at
        raise ConfigError(f"app {self.name!r} cannot be imported: assign it to a name at the top of a module")

    @location.setter
    def location(self, location: str) -> None:
        """It can be imported from there, as one that a function in another module has made."""
        self._found_at = location

    # -- Redis -------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> Open | None:
        """For data that its middleware has sealed."""
        return None if self.sealing is None else self.sealing.open

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store(self._redis_url or os.environ.get("FLOW_REDIS_URL") or DEFAULT_URL)
        return self._store

    def connect(self, redis_url: str | None = None, store: Store | None = None) -> App:
        """Use this Redis from now on; returns the app itself.

        >>> app.connect("redis://10.0.0.5:6379/0")
        """
        if self._store is not None:
            self._store.close()
        self._redis_url, self._store = redis_url or self._redis_url, store
        return self

    # -- sending -----------------------------------------------------------------------------------------------------

    @overload
    def send(self, events: Event[Any], /) -> str: ...
    @overload
    def send(self, events: Sequence[Event[Any]], /) -> list[str]: ...
    def send(self, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """Send one event, or several: all of them or none, in one round trip. Returns the id, or the ids, in order.

        When it returns, Redis has them, and each function of each app starts at most once per id.
        Raises PayloadError (nothing was sent) and ServerError: send again with the same id. That starts nothing twice, and
        within ten minutes, from this process, it stores nothing twice.

        >>> app.send(uploaded(Upload("2026/list.csv", "ada@example.com"), id="upload-17"))
        'upload-17'
        """
        with ExitStack() as around:
            ready = self.prepare_all(list(events) if isinstance(events, Iterable) else [events], around)
            if ready:
                self.store.send_events(ready)
        ids = [event_id for event_id, *_ in ready]
        return ids if isinstance(events, Iterable) else ids[0]

    @overload
    async def send_async(self, events: Event[Any], /) -> str: ...
    @overload
    async def send_async(self, events: Sequence[Event[Any]], /) -> list[str]: ...
    async def send_async(self, events: Event[Any] | Sequence[Event[Any]], /) -> str | list[str]:
        """As `send`, without holding up the event loop.

        >>> await app.send_async(uploaded(upload))
        """
        return cast("str | list[str]", await asyncio.to_thread(cast(Any, self.send), events))

    @overload
    def call(self, function: Callable[[Event[D], Any], Coroutine[Any, Any, R]], data: D, /) -> Called[R]: ...
    @overload
    def call(self, function: Callable[[Event[D], Any], R], data: D, /) -> Called[R]: ...
    @overload
    def call(self, function: str, data: Any = ..., /) -> Called[Any]: ...
    def call(self, function: str | Callable[..., Any], data: Any = None, /) -> Called[Any]:
        """Have a function begin, one that is declared or by its name as "function" or "app/function", and be able to wait
        for what it returns. Raises ConfigError, PayloadError (nothing was sent) and ServerError.

        >>> total = app.call(bill, order).result(timeout=30)
        """
        app, name, encoded = call_of("app.call", function, data, self.name)
        encoded = check_event_data("app.call: data", self._seal(encoded))
        run = ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10))
        asked = Invocation(app, name, run, "", True, encoded).encode()
        with ExitStack() as around:
            meta = self._meta(Event(INVOKE_EVENT, data, run), around)
            self.store.send_events([(run, INVOKE_EVENT, asked, 0, meta)])
        return Called(
            Runs(lambda: self.store, app, self.functions if app == self.name else {}, self.sealing),
            run,
            f"{app}/{name}",
        )

    def prepare_all(self, events: list[Event[Any]], around: ExitStack | None = None) -> list[Sent]:
        """What goes into the stream, after all that can be said against any of them has been said here (I10).

        `around` is what lasts until they are sent.
        """
        if len(events) == 1:
            return [self.prepare(events[0], "", around)]
        ready, wrong = [], []
        for index, event in enumerate(events):
            try:
                ready.append(self.prepare(event, f"event {index}: ", around))
            except PayloadError as error:
                wrong.append(str(error))
        if wrong:
            raise PayloadError("nothing was sent: " + "; ".join(wrong))
        return ready

    def prepare(self, event: Event[Any], where: str, around: ExitStack | None = None) -> Sent:
        if not isinstance(event, Event):
            raise PayloadError(f"{where}{event!r} is no Event: send(Event(name, data)), or send(event_type(data))")
        try:
            check_own_event(check_event_name(event.name))
        except PayloadError as error:
            raise PayloadError(f"{where}{error}") from None
        if not isinstance(event.id, str) or len(event.id) > 256:
            raise PayloadError(f"{where}event id {event.id!r:.60}: must be a string of at most 256 characters")
        data = encode(event.data, where=f"{where}data")
        for type in self._types_of(event):
            decode(data, type, where=f"{where}event {event.name!r}: data")
        data = check_event_data(f"{where}event {event.name!r}: its data", self._seal(data))
        return (
            event.id or ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10)),
            event.name,
            data,
            _stamp(event.ts, where),
            self._meta(event, around),
        )

    def _seal(self, encoded: bytes) -> bytes:
        return encoded if self.sealing is None else self.sealing.seal(encoded)

    def _meta(self, event: Event[Any], around: ExitStack | None) -> str:
        """What its hooks have put beside it."""
        if self.hooks is None or not self.hooks.sends:
            return ""
        meta: dict[str, str] = {}
        sending = entered(self.hooks.sends, event, meta)
        if around is None:
            sending.close()
        else:
            around.enter_context(sending)
        return json.dumps(meta) if meta else ""

    def _types_of(self, event: Event[Any]) -> list[Any]:
        if event.type is not None:
            return [event.type]
        return [t.type for fn in self.functions.values() if (t := fn.trigger_for(event.name)) is not None]


def _stamp(ts: datetime, where: str) -> int:
    if ts is UNSENT:
        return 0
    if not isinstance(ts, datetime) or ts.tzinfo is None:
        raise PayloadError(f"{where}ts {ts!r}: must be an aware datetime (with a tzinfo)")
    stamp = int(ts.timestamp() * 1000)
    try:
        datetime.fromtimestamp(stamp / 1000, UTC)
    except (ValueError, OverflowError):  # as the last microsecond of 9999, or the first days of 1 in the east
        raise PayloadError(f"{where}ts {ts!r}: must lie within the years 1 to 9999 of UTC") from None
    return stamp
