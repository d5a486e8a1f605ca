"""One app on a Redis or Valkey Cluster: connections that find the node which has the app's keys, wherever it is by now.

All keys of an app lie in one slot, because their prefixes have one hash tag. So one node has them all, and to everything
above this it is a Redis like any other. When the slot moves, by a failover or a migration, its old owner says so; then
the connection counts as broken and the next one goes to the new owner. What was not answered is sent again, as ever.

Knows nothing of runs or steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.connection import parse_url
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, TimeoutError
from redis.retry import Retry

from .errors import ConfigError
from .keys import Keys

MARK = "+cluster://"
TIMEOUT = 1.0  # seconds that a node gets to say which one has a slot; then another is asked
Address = tuple[str, int]


class NotServed(ConnectionError):
    """This node does not have the slot, now or any more: what it was asked for was not done."""


AGAIN = Retry(ExponentialBackoff(cap=0.5, base=0.02), 5, supported_errors=(NotServed,))


def in_cluster(url: str, keys: Keys) -> dict[str, Any]:
    """What a pool is made of; any nodes of the cluster may be named, of which one has to answer.

    Raises ConfigError when these keys are not all in one slot, ValueError for what is no URL of a cluster.
    """
    scheme, _, rest = url.partition(MARK)
    place, more = re.split(r"(?=[/?]|$)", rest, maxsplit=1)
    login, at, hosts = place.rpartition("@")
    seeds = [parse_url(f"{scheme}://{login}{at}{host}{more}") for host in hosts.split(",")]
    nodes = [(seed.pop("host", "localhost"), seed.pop("port", 6379)) for seed in seeds]
    settings = seeds[0]
    plain = settings.pop("connection_class", redis.Connection)
    kind = SecureShardConnection if issubclass(plain, redis.SSLConnection) else ShardConnection
    return {**settings, "connection_class": kind, "shard": Shard(slot_of(keys), nodes, plain, settings)}


def slot_of(keys: Keys) -> int:
    """The one slot of all of them. Raises ConfigError when they are spread over several."""
    slots = {key_slot(f"{prefix}:{rest}".encode()) for prefix in (keys.prefix, keys.rq) for rest in "abc"}
    if len(slots) > 1:
        raise ConfigError(
            f"on a cluster all keys of an app must be in one slot, and those of {keys.prefix!r} and {keys.rq!r} are not: set "
            f"FLOW_KEY_PREFIX and RQ_KEY_PREFIX with one hash tag, as in {{shop}}:flow and {{shop}}:rq"
        )
    return slots.pop()


class Shard:
    """Where a slot is, as far as is known: all connections of a pool share what one of them has learnt."""

    def __init__(
        self, slot: int, nodes: list[Address], plain: type[redis.Connection], settings: Mapping[str, Any]
    ) -> None:
        self._slot = slot
        self._seeds = self._nodes = nodes
        self._plain = plain
        self._settings = {**settings, "socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        self._owner: Address | None = None

    def owner(self) -> Address:
        """As remembered, else as a node says. Raises ConnectionError or TimeoutError when none does."""
        if (remembered := self._owner) is not None:
            return remembered
        problem: Exception = ConnectionError("no node of the cluster is known")
        for node in self._nodes:
            try:
                self._owner = found = self._learn(node)
                return found
            except (ConnectionError, TimeoutError) as error:
                problem = error
        raise problem

    def is_at(self, owner: Address) -> None:
        """The owner that was has said so."""
        self._owner = owner

    def doubt(self) -> None:
        """The owner does not act as one; the node that has named it may be behind the times, so another is asked next."""
        self._owner = None
        self._nodes = [*self._nodes[1:], *self._nodes[:1]]

    def _learn(self, node: Address) -> Address:
        connection = self._plain(host=node[0], port=node[1], **self._settings)
        try:
            connection.connect()
            connection.send_command("CLUSTER", "SLOTS")
            ranges: Any = connection.read_response()
        finally:
            connection.disconnect()
        known = {first: [_address(member, node) for member in members] for first, _, *members in ranges}
        serving = [known[first] for first, last, *_ in ranges if first <= self._slot <= last]
        living = dict.fromkeys([*self._seeds, *(member for members in known.values() for member in members)])
        self._nodes = [*(node for node in self._nodes if node in living), *(living.keys() - self._nodes)]
        if not serving:
            raise ConnectionError(f"no node of the cluster serves slot {self._slot}")
        return serving[0][0]


def _address(member: Any, asked: Address) -> Address:
    """A node that does not know its own name is where we have asked."""
    host = member[0].decode() if member[0] else ""
    return (host if host not in ("", "?") else asked[0]), int(member[1])


class ShardConnection(redis.Connection):
    """A connection to the node that owns the shard's slot."""

    def __init__(self, *, shard: Shard, **settings: Any) -> None:
        self._shard = shard
        super().__init__(**settings)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = self._shard.owner()
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except OSError:
            self._shard.doubt()
        self.host, self.port = self._shard.owner()  # it may have another one already
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **settings: Any) -> Any:
        try:
            return super().read_response(*args, **settings)
        except MovedError as error:
            self._shard.is_at((error.host or self.host, error.port))
            why = f"the slot has moved to {error.host}:{error.port}"
        except (AskError, ClusterDownError) as error:
            self._shard.doubt()
            why = f"the slot is not served: {error}"
        self.disconnect()  # type: ignore[no-untyped-call]
        raise NotServed(why)


class SecureShardConnection(ShardConnection, redis.SSLConnection):
    """The same over TLS."""
