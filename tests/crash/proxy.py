"""Stands between workers and their server, and can do to a connection what networks do: cut it at any byte, swallow what it
carries while it stays open, hold replies back, and count how often somebody connects.

What it does is counted over all connections; a test's own hands reach the server directly. With `tls` it is what a
server with a certificate looks like from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

UP, DOWN = "up", "down"  # towards the server, towards the client
NEVER = float("inf")


class Proxy:
    """One TCP port in front of the unix socket of a server."""

    def __init__(self, socket: Path, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0  # that were ever made, or only tried while the server was away
        self.cuts = 0
        self.delay = 0.0  # seconds by which each reply comes later
        self._withheld: bytes | None = None
        self._released = asyncio.Event()
        self._socket = socket
        self._gaps: dict[str, Iterator[float]] = {}
        self._left = {UP: NEVER, DOWN: NEVER}  # bytes until the next cut
        self._hushed: frozenset[str] = frozenset()
        self._links: dict[asyncio.Event, set[str]] = {}  # ended by the event; the ways in which each is dead
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # -- what it can do ----------------------------------------------------------------------------------------------

    def cut_after(self, direction: str, gaps: Iterable[float]) -> None:
        """Cut the connection that carries the byte after so many in that direction; then after so many more, and so on."""
        self._gaps[direction] = iter(gaps)
        self._left[direction] = next(self._gaps[direction], NEVER)

    def cut(self) -> None:
        """All connections that there are, now."""
        self._run(self._end_all())

    def hush(self, *directions: str) -> None:
        """The connections that there are, and those made until `speak`, carry nothing that way for the rest of their lives."""

        async def hush() -> None:
            self._hushed = frozenset(directions)
            for dead in self._links.values():
                dead.update(directions)

        self._run(hush())

    def speak(self) -> None:
        """From now on new connections are sound."""
        self._hushed = frozenset()

    def withhold(self, marked: bytes) -> None:
        """Replies with that in them do not come before `release`, nor does what follows them on their connections."""
        self._withheld = marked

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._released.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- inside the loop ---------------------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        over, dead = asyncio.Event(), set(self._hushed)
        self._links[over] = dead
        ends, pumps = [writer], list[asyncio.Task[None]]()
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self._socket))
            ends.append(to_server)
            pumps = [
                asyncio.create_task(self._pump(UP, reader, to_server, dead)),
                asyncio.create_task(self._pump(DOWN, from_server, writer, dead)),
            ]
            for pump in pumps:
                pump.add_done_callback(lambda _: over.set())
            await over.wait()
        except OSError:
            pass  # the server is away
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in ends:
                end.transport.abort()
            del self._links[over]

    async def _end_all(self) -> None:
        while self._links:
            for over in self._links:
                over.set()
            await asyncio.sleep(0)

    async def _pump(
        self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dead: set[str]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if direction == DOWN and self.delay:
                    await asyncio.sleep(self.delay)
                if direction == DOWN and self._withheld is not None and self._withheld in data:
                    await self._released.wait()
                if direction in dead:
                    continue
                passing = self._until_cut(direction, len(data))
                writer.write(data[:passing])
                await writer.drain()
                if passing < len(data):
                    self.cuts += 1
                    return
        if direction == DOWN and dead:
            await asyncio.Event().wait()  # the client of a silent connection does not even hear that its server is gone

    def _until_cut(self, direction: str, count: int) -> int:
        """How many of the next bytes pass."""
        left = self._left[direction]
        if count <= left:
            self._left[direction] = left - count
            return count
        self._left[direction] = next(self._gaps[direction], NEVER)
        return int(left)
