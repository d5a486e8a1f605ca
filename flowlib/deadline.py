"""Stopping a step's body from outside: at its timeout, when its run is cancelled, when the lease is lost.

On the main thread by SIGALRM, which also ends a blocking system call; a coroutine by cancelling its task; on any other
thread by an exception that reaches it at its next line of Python. Python drops what is raised inside a `__del__` or a
callback of the collector, and code may swallow it: so it is raised again until the body ends, but never while the body
is being ended by it, in its `finally`. Knows nothing of runs, steps or Redis.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

TIMEOUT = "timeout"


class BodyStopped(BaseException):
    """Raised inside the body; a BaseException, so that `except Exception` in it does not swallow its end."""


class Deadline:
    """Around one body. `stop(reason)` may come from any thread; `reason` then says why the body ended early."""

    again: float | None = 0.1  # seconds after which a body that has not ended is stopped once more

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.reason: str | None = None
        self._thread = threading.get_ident()
        self._on_main = self._thread == _MAIN_THREAD
        self._task: asyncio.Task[Any] | None = None
        self._open = False
        self._guard = None if self._on_main else threading.Lock()  # who stops, and the body's end
        self._cancelled = False
        self._timer: threading.Timer | None = None
        self._raised = False  # in another thread
        self._repeats = False  # by the alarm
        self._before: tuple[Any, float, float] | None = None
        self._due = 0.0

    def __enter__(self) -> Deadline:
        self._open = True
        if self._on_main:
            self._arm()
        elif self.seconds is not None:
            self._stop_after(self.seconds, TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._guard is not None:
            self._close(self._guard)
        self._open = False
        if self._timer is not None:
            self._timer.cancel()  # nobody sets another: it is closed
        if self._on_main:
            self._disarm()
        if self._task is not None and self._cancelled:
            self._task.uncancel()

    def attach(self) -> None:
        """From inside a coroutine: it is this task that `stop` cancels."""
        try:
            self._task = asyncio.current_task()
        except RuntimeError:
            self._task = None

    def error(self) -> BaseException:
        """What is raised inside the body."""
        return BodyStopped(self.reason)

    def stop(self, reason: str) -> None:
        """End the body now, if it is still running."""
        if self._guard is None:
            if self._open:
                self.reason = self.reason or reason
                signal.pthread_kill(self._thread, signal.SIGALRM)
            return
        with self._guard:
            if not self._open:
                return
            self.reason = self.reason or reason
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._cancel)
                return
            if not _is_being_stopped(self._thread):
                self._raised = True
                _raise_in(self._thread, type(self.error()))
            if self.again is not None:
                self._stop_after(self.again, reason)

    def _close(self, guard: threading.Lock) -> None:
        with guard:
            self._open = False
            if self._raised:
                _raise_in(self._thread, None)  # it has not arrived, and would hit what comes next on this thread

    def _stop_after(self, seconds: float, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self.stop, [reason])
        self._timer.daemon = True
        self._timer.start()

    def _cancel(self) -> None:
        if self._open and self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def _arm(self) -> None:
        global _running
        _running = self
        if _installed and self.seconds is None:
            return
        handler = signal.getsignal(signal.SIGALRM)
        if handler is not _on_alarm:  # a stock RQ worker has a handler and a timer of its own: put both back afterwards
            signal.signal(signal.SIGALRM, _on_alarm)
        if self.seconds is not None or handler is not _on_alarm:
            self._due = time.monotonic() + (self.seconds or 0) - _EARLY
            left, _ = signal.setitimer(signal.ITIMER_REAL, self.seconds or 0)
            self._before = (handler, left, time.monotonic())

    def _is_due(self) -> bool:
        return self.seconds is not None and time.monotonic() >= self._due

    def _disarm(self) -> None:
        global _running
        _running = None
        if self._repeats and self._before is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._before is not None:
            handler, left, at = self._before
            signal.setitimer(signal.ITIMER_REAL, 0)
            if handler is not _on_alarm:
                signal.signal(signal.SIGALRM, handler)
                if left:
                    signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - at)))


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """At that thread's next line of Python. None takes back what has not been raised yet."""
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


def _is_being_stopped(thread: int) -> bool:
    """Is it handling a BodyStopped right now, in an `except` or a `finally`?"""
    active: Any = sys._current_exceptions().get(thread)
    error = active[1] if isinstance(active, tuple) else active  # a tuple before Python 3.12
    while error is not None and not isinstance(error, BodyStopped):
        error = error.__context__
    return error is not None


_EARLY = 0.001  # seconds by which an alarm may come before its time by another clock
_MAIN_THREAD = threading.main_thread().ident
_running: Deadline | None = None
_installed = False


def _on_alarm(_signum: int, _frame: FrameType | None) -> None:
    running = _running
    if running is None or (running.reason is None and not running._is_due()):
        return  # somebody else's alarm, or that of a body that has ended by now
    running.reason = running.reason or TIMEOUT
    task = running._task
    if running._cancelled or _is_being_stopped(running._thread):
        return
    if running.again is not None:
        running._repeats = True
        signal.setitimer(signal.ITIMER_REAL, running.again)
    if task is None or asyncio.current_task(task.get_loop()) is task:  # it is on the processor, or blocks its loop
        raise running.error()
    task.get_loop().call_soon_threadsafe(running._cancel)


def install() -> None:
    """Make the handler the process's own, so that bodies without a timeout need no system call to be stoppable."""
    global _installed
    signal.signal(signal.SIGALRM, _on_alarm)
    _installed = True
