"""Waiting until a queue has a job, without taking it: `BLMOVE q q LEFT LEFT` blocks, and moves nothing.

So a worker that dies while it waits holds no job. One connection per queue, one `select` over all of them and over a
pipe that signals write to.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import redis

_BLOCK = 2  # seconds; the server answers at the latest then, so silence for longer means a dead connection
_SILENCE = _BLOCK + 1


class Waiter:
    def __init__(self, pool: redis.ConnectionPool, queue_keys: Sequence[str]) -> None:
        self._pool = pool
        self._waiting: dict[str, tuple[Any, float] | None] = dict.fromkeys(queue_keys)
        self._idle: dict[str, Any] = {}
        self._installed = False
        self._awake, self._wake = socket.socketpair()
        for end in (self._awake, self._wake):
            end.setblocking(False)

    def install(self) -> None:
        """From the main thread: a signal ends the wait."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._installed = True

    def wake(self) -> None:
        """From any thread."""
        with contextlib.suppress(BlockingIOError):  # it is being woken already
            self._wake.send(b"!")

    def wait(self, seconds: float) -> None:
        """Until a queue has a job, `wake`, a signal, or so many seconds. Raises redis' ConnectionError."""
        for key, pending in self._waiting.items():
            if pending is None or time.monotonic() - pending[1] > _SILENCE:
                self._waiting[key] = self._ask(key, pending)
        sockets = {pending[0]._sock: key for key, pending in self._waiting.items() if pending is not None}
        ready, _, _ = select.select([self._awake, *sockets], [], [], min(seconds, _SILENCE))
        for each in ready:
            if each is self._awake:
                self._awake.recv(4096)
            else:
                self._hear(sockets[each])

    def pause(self, seconds: float) -> None:
        """Only `wake`, a signal or the time."""
        if select.select([self._awake], [], [], seconds)[0]:
            self._awake.recv(4096)

    def close(self) -> None:
        if self._installed:
            signal.set_wakeup_fd(-1)
        for connection in [p[0] for p in self._waiting.values() if p is not None] + [*self._idle.values()]:
            connection.disconnect()
        self._awake.close()
        self._wake.close()

    def _ask(self, key: str, pending: tuple[Any, float] | None) -> tuple[Any, float]:
        if pending is not None:
            pending[0].disconnect()
        idle = self._idle.pop(key, None)
        connection = idle or self._pool.connection_class(**self._pool.connection_kwargs)
        connection.send_command("BLMOVE", key, key, "LEFT", "LEFT", _BLOCK)
        return connection, time.monotonic()

    def _hear(self, key: str) -> None:
        pending = self._waiting[key]
        assert pending is not None
        self._waiting[key] = None
        pending[0].read_response()
        self._idle[key] = pending[0]
