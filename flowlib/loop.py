"""Where coroutines run: on a loop of the thread that asks, or, for several runs side by side, on one loop of the process.

On the shared loop no run waits for another, as long as no coroutine blocks. Tasks that a coroutine leaves behind are ended
with it. Knows nothing of runs, steps or Redis.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Driver(Protocol):
    """How a thread gets a coroutine run to its end."""

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    def close(self) -> None: ...


class OwnLoop:
    """On the thread that asks: one coroutine at a time, so what blocks holds nobody up."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        try:  # `Runner.run` sets two signal handlers each time, which costs more than a short body
            return loop.run_until_complete(loop.create_task(coroutine, context=copy_context()))
        finally:
            if left := asyncio.all_tasks(loop):
                loop.run_until_complete(_end(left))

    def close(self) -> None:
        """Without waiting, as `Runner.close` would, for threads that a body has begun and left behind: nobody can end them."""
        if self._runner is not None:
            loop = self._runner.get_loop()
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()


class SharedLoop:
    """A loop in a thread of its own, started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def driver(self) -> Driver:
        """For one thread."""
        return _Guest(self)

    def running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_task_factory(_join_family)
                self._thread = threading.Thread(target=self._loop.run_forever, name="flow-loop", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """No coroutine may be left on it."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2.0)
            if not self._thread.is_alive():
                self._loop.close()


class _Guest:
    def __init__(self, shared: SharedLoop) -> None:
        self._shared = shared

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        over = asyncio.run_coroutine_threadsafe(_with_family(coroutine), self._shared.running())
        try:
            return over.result()
        except concurrent.futures.CancelledError:  # which is not that of asyncio, and an Exception
            raise asyncio.CancelledError from None

    def close(self) -> None:
        pass


_family: ContextVar[WeakSet[asyncio.Task[Any]] | None] = ContextVar("flow_family", default=None)


async def _with_family(coroutine: Coroutine[Any, Any, T]) -> T:
    """Tasks are of the family of the coroutine that started them, or that started what started them."""
    members = WeakSet[asyncio.Task[Any]]()
    _family.set(members)
    try:
        return await coroutine
    finally:
        if left := {task for task in members if not task.done()}:
            await _end(left)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


def _join_family(
    loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task[Any](coroutine, loop=loop, context=context, **more)
    members = _family.get() if context is None else context.get(_family)
    if members is not None:
        members.add(task)
    return task
