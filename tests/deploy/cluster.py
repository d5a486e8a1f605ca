"""A real cluster for tests: three servers that share the slots, and a replica of the one that has a given prefix."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import redis

from flowlib.server import ANY_PORT, Server
from tests.patience import until

RANGES = [(0, 5460), (5461, 10922), (10923, 16383)]
NODE_TIMEOUT_MS = 1000  # after which the others take a silent node for dead


class Node:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = server.client()
        self.id = self.call("CLUSTER", "MYID").decode()

    def call(self, *command: Any) -> Any:
        return self.client.execute_command(*command)

    def has(self, slot: int) -> bool:
        """Whether it would take a write for a key of this slot."""
        with contextlib.suppress(redis.RedisError):
            mine = [each for each in self.call("CLUSTER", "SLOTS") if each[2][2].decode() == self.id]
            return any(first <= slot <= last for first, last, *_ in mine) and self._says("cluster_state:ok")
        return False

    def _says(self, *lines: str) -> bool:
        return {*lines} <= {*self.call("CLUSTER", "INFO").decode().split()}

    def knows(self, nodes: int) -> bool:
        return self._says("cluster_state:ok", f"cluster_known_nodes:{nodes}")

    def follows(self, primary: Node) -> bool:
        """Whether it is a replica of that one, and in step with it."""
        with contextlib.suppress(redis.RedisError):
            about = self.client.info("replication")
            return about.get("master_port") == primary.server.port and about["master_link_status"] == "up"
        return False


class Cluster:
    """`nodes` are the three that have slots at first, `spare` the replica of the one that has `prefix`."""

    def __init__(self, servers: list[Server], prefix: str) -> None:
        self._all = [Node(server) for server in servers]
        *self.nodes, self.spare = self._all
        for node, (first, last) in zip(self.nodes, RANGES, strict=True):
            node.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in self._all[1:]:
            bus = node.client.config_get("cluster-port")["cluster-port"]
            self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.server.port, bus)
        until(lambda: all(node.knows(len(servers)) for node in self._all))
        self.slot = int(self.nodes[0].call("CLUSTER", "KEYSLOT", prefix))
        owner = self.owner
        until(lambda: self.spare.call("CLUSTER", "REPLICATE", owner.id) and self.spare.follows(owner))

    @property
    def owner(self) -> Node:
        """The node that has the prefix's slot, by its own word."""
        node: Node = until(lambda: next((node for node in self._all if node.has(self.slot)), None))
        return node

    @property
    def primaries(self) -> list[Node]:
        return [node for node in self._all if node.client.info("replication")["role"] == "master"]

    @property
    def others(self) -> list[Node]:
        owner = self.owner
        return [node for node in self._all if node is not owner]

    def url(self, *nodes: Node) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.server.port}" for node in nodes or self._all)

    def hand_over(self) -> None:
        """The owner and its replica change places, in good order."""
        owner = self.owner
        heir = until(lambda: next((node for node in self.others if node.follows(owner)), None))
        heir.call("CLUSTER", "FAILOVER")
        until(lambda: heir.has(self.slot) and owner.follows(heir))

    @property
    def can_move(self) -> bool:
        return bool(self.owner.call("COMMAND", "INFO", "CLUSTER|MIGRATESLOTS"))

    def move(self, target: Node) -> None:
        """The slot, and no other, to another primary."""
        self.owner.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", self.slot, self.slot, "NODE", target.id)
        until(lambda: target.has(self.slot))

    def close(self) -> None:
        for node in self._all:
            node.client.close()


@contextlib.contextmanager
def cluster(prefix: str) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        made = Cluster([stack.enter_context(_server()) for _ in range(len(RANGES) + 1)], prefix)
        stack.callback(made.close)
        yield made


def _server() -> Server:
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
    }
    with socket.socket() as bus:  # by default the port + 10 000, which may be none
        bus.bind(("127.0.0.1", 0))
        settings["cluster-port"] = str(bus.getsockname()[1])
    return Server.start(port=ANY_PORT, config=settings)
