"""The connection of a store and how its scripts are packed; knows no transition.

Each thread speaks on a connection of its own.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self, cast

import msgpack
import redis

from flowlib.address import Unusable, connect, shown
from flowlib.errors import ServerError
from flowlib.keys import Keys
from flowlib.records import Lease
from flowlib.wire import Packed, PackedArgs, Wire, explain, script

MIN_SERVER = (7, 0)
PATIENCE = 5.0  # seconds that a producer waits for Redis


class Link:
    """A way to one Redis; `patience` is how long to wait for it, `give_up` says when not to any more."""

    def __init__(
        self,
        url: str,
        *,
        keys: Keys | None = None,
        patience: float = PATIENCE,
        give_up: Callable[[], bool] = lambda: False,
        wire: type[Wire] = Wire,
        client: redis.Redis | None = None,
    ) -> None:
        self.url = url
        self.keys = keys or Keys()
        self._patience = patience
        self._give_up = give_up
        self._wire_class = wire
        try:
            self.client = client or connect(url, self.keys)
        except ValueError as error:
            # it may quote a part of the password
            hidden = not isinstance(error, Unusable) and ("@" in url or "password" in url)
            why = "" if hidden else f": {error}"
            raise ServerError(f"{shown(url)!r} is no Redis URL{why}; e.g. redis://127.0.0.1:6379/0") from None
        self._local: Any = threading.local()
        self._head = PackedArgs(self.keys.leases, self.keys.prefix, self.keys.rq)

    @property
    def wire(self) -> Wire:
        wire: Wire | None = getattr(self._local, "wire", None)
        if wire is None or wire.pid != os.getpid():  # a forked child must not speak on its parent's connection
            wire = self._local.wire = self._wire_class(
                self.client.connection_pool, patience=self._patience, give_up=self._give_up
            )
        return wire

    def alone(self) -> Self:
        """The same with one connection for all threads: for one run at a time, whose code speaks from several in turn."""
        twin = copy.copy(self)
        twin._local = SimpleNamespace()
        return twin

    def hasty(self) -> Self:
        """The same without patience: for what is to be done now or not at all."""
        twin = copy.copy(self)
        twin._local, twin._patience = threading.local(), 0
        return twin

    def close(self) -> None:
        self.wire.close()
        self.client.close()

    def check_server(self) -> str:
        """The server's version. Raises ServerError when it cannot be used."""
        try:
            info = self.client.info("server")
        except redis.RedisError as error:
            raise explain(error, self.url) from None
        version = str(info.get("valkey_version") or info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_SERVER:
            raise ServerError(f"Redis {version} is too old: flowlib needs Redis 7.0 or newer, or any Valkey")
        return version

    def _pack(self, name: str, *args: Any, key: str | None = None) -> Packed:
        head = self._head if key is None else PackedArgs(key, self.keys.prefix, self.keys.rq)
        return script(name).pack(head, args)

    def _call(self, name: str, *args: Any, key: str | None = None) -> Any:
        return self.wire.call(self._pack(name, *args, key=key))

    def _pack_held(self, name: str, lease: Lease, *args: Any) -> Packed:
        return script(name).pack(self._head, args, lease.packed)

    def _call_held(self, name: str, lease: Lease, *args: Any) -> str:
        return cast(str, self.wire.call(self._pack_held(name, lease, *args)).decode())

    def send_all(self, batch: list[Packed]) -> list[Any]:
        return self.wire.call_all(batch)


def for_lua(args: tuple[Any, ...]) -> bytes:
    """Many arguments as one; Lua has one kind of strings, and its msgpack too."""
    return cast(bytes, msgpack.packb(args, use_bin_type=False, unicode_errors="surrogatepass"))
