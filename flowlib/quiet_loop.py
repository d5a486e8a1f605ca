"""The loop on which the coroutines of an async function are played: nothing happens on it by itself.

`asyncio.gather`, `TaskGroup`, `create_task`, `wait_for` and `timeout` work as on any loop, and each pass goes the same
way: callbacks run in the order in which they were made, and what coroutines wait for comes from outside, from the run's
memos. There is no clock: a timer is a step of the run. There is no I/O either, which belongs into steps.

Knows nothing of runs, steps or Redis: who plays it says what a timer is.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from .errors import ConfigError, Interrupt

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_IO = (
    "run_in_executor", "getaddrinfo", "getnameinfo", "create_connection", "create_server", "sendfile", "start_tls",
    "create_unix_connection", "create_unix_server", "connect_accepted_socket", "create_datagram_endpoint",
    "connect_read_pipe", "connect_write_pipe", "subprocess_shell", "subprocess_exec", "add_reader", "remove_reader",
    "add_writer", "remove_writer", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_sendall", "sock_sendto",
    "sock_connect", "sock_accept", "sock_sendfile", "add_signal_handler", "call_soon_threadsafe",
)  # fmt: skip


class QuietLoop(asyncio.AbstractEventLoop):
    """`on_timer` is told of each timer, and of those that were cancelled."""

    def __init__(self, on_timer: Callable[[float, asyncio.TimerHandle], None]) -> None:
        self._on_timer = on_timer
        self._on_cancelled: dict[int, Callable[[], None]] = {}
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def is_idle(self) -> bool:
        """Nobody but who asks has anything to do."""
        return not self._ready

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def run_ready(self) -> None:
        """Until every coroutine waits for something."""
        outside = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(outside)

    def end(self) -> None:
        """Whatever is still there is ended, as far as it lets itself be ended."""
        for _ in range(100):
            if not (left := self.unfinished):
                break
            for task in left:
                task.cancel()
            self.run_ready()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    # -- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._on_timer(when, handle)
        return handle

    def fire(self, handle: asyncio.TimerHandle) -> None:
        self._ready.append(handle)

    def on_cancelled(self, handle: asyncio.TimerHandle, call: Callable[[], None]) -> None:
        self._on_cancelled[id(handle)] = call

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        call = self._on_cancelled.pop(id(handle), None)
        if call is not None:
            call()

    def time(self) -> float:
        """Timers are counted from the moment at which they are set."""
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(
            coro,
            loop=self,
            name=name,
            context=context,
        )
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Interrupt):
            log.debug("%s: %r", context.get("message"), error)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ConfigError(
            f"{name}: I/O and threads are not for the function itself, whose code runs again at every replay: "
            f"do it inside a step: await step.run(id, fn)"
        )

    return refuse


for _name in _IO:
    setattr(QuietLoop, _name, _refuse(_name))
