"""A master, its replica, and three Sentinels that watch over them: all real processes of the installed server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import redis

from flowlib.address import connect
from flowlib.server import _TRAMPOLINE, ANY_PORT, Server, _free_port, find_binary
from tests import access
from tests.patience import until

NAME = "main"
COUNT, QUORUM = 3, 2
DOWN_AFTER_MS = 300


class Watched:
    """`url` names the Sentinels; `servers` are the two that may be master."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = {**access.config(folder), "repl-diskless-sync-delay": "0"}
        self.servers = [Server.start(folder / name, port=ANY_PORT, config=config) for name in ("one", "two")]
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self._ports: list[int] = []
        with self.servers[1].client() as replica:
            replica.replicaof("127.0.0.1", str(self.servers[0].port))
        until(lambda: _follows(self.servers[1]))
        for number in range(COUNT):
            self._start_sentinel(number)
        until(lambda: all(self._knows_all(port) for port in self._ports))

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self._hosts}/{NAME}"

    @property
    def limited_url(self) -> str:
        return f"redis+sentinel://{access.USER}:{access.PASSWORD}@{self._hosts}/{NAME}"

    @property
    def master(self) -> Server | None:
        """If all Sentinels agree on one, and find it well."""
        states = [self._state(port) for port in self._ports]
        ports = {state["port"] for state in states if not (state["is_sdown"] or state["is_odown"])}
        well = len(ports) == 1 and all(state["is_master"] and not state["is_sdown"] for state in states)
        return next((server for server in self.servers if well and server.port in ports), None)

    def moved(self, old: Server | None) -> Server | None:
        """The master, if it is another one now."""
        master = self.master
        return None if master is old else master

    def bring_back(self, old: Server) -> None:
        """Start it again; returns when it has become a replica."""
        old.restart()
        until(lambda: _follows(old))

    def fail_over(self) -> None:
        """Order it, while the master lives; it is made the replica of the other."""
        with connect(f"redis://127.0.0.1:{self._ports[0]}") as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", NAME)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()
        for server in self.servers:
            server.stop()

    @property
    def _hosts(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def _start_sentinel(self, number: int) -> None:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        port = _free_port()
        conf = folder / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder / 'log'}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} 4000\n"
        )
        command = [str(find_binary()), str(conf), "--sentinel"]
        if sys.platform == "linux":  # end with the tests, however those end
            command = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *command]
        self._sentinels.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        self._ports.append(port)

    def _state(self, port: int) -> dict[str, Any]:
        """What a Sentinel says of the master."""
        with connect(f"redis://127.0.0.1:{port}") as sentinel:
            state: Any = sentinel.sentinel_master(NAME)
            return cast(dict[str, Any], state)

    def _knows_all(self, port: int) -> bool:
        try:
            state = self._state(port)
        except redis.RedisError:
            return False  # it is just starting
        return (state["num-slaves"], state["num-other-sentinels"]) == (1, COUNT - 1)


def _follows(server: Server) -> bool:
    """Whether it is a replica by now, with all its master's data."""
    with server.client() as client:
        try:
            state: Any = client.info("replication")
        except redis.ConnectionError:
            return False  # a Sentinel that makes it one ends its connections
    return state.get("master_link_status") == "up"
