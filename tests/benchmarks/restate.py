"""A private Restate server, one node in a temporary folder, for the peer that needs one; found, never installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

_PATIENCE = 60.0

# Where it listens and what it says; all else is the server's default: whatever it has acknowledged is on disk (fdatasync).
_SETTINGS = """
node-name = "bench"
base-dir = "{home}"
listen-mode = "tcp"
bind-address = "127.0.0.1:{fabric}"
ingress.bind-address = "127.0.0.1:{ingress}"
admin.bind-address = "127.0.0.1:{admin}"
disable-telemetry = true
log-filter = "error"
log-disable-ansi-codes = true
"""


def find_restate() -> Path | None:
    """The server itself: what npm puts on PATH is a script that starts it."""
    on_path = shutil.which("restate-server")
    if on_path is None:
        return None
    binary = Path(on_path).resolve()
    if binary.suffix != ".js":
        return binary
    package = binary.parents[1]  # of the script: npm has the server's beside it or within
    for scope in (package.parent, package / "node_modules" / "@restatedev"):
        for found in scope.glob("restate-server-*/bin/restate-server"):
            return found
    return None


def version() -> str:
    binary = find_restate()
    if binary is None:
        return "none"
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


@contextlib.contextmanager
def restate(home: Path) -> Iterator[str]:
    """The address of a new, empty server's ingress; its query has the ports of the admin API, and of the workers to be.

    The workers' port stays bound here, where nobody listens, so that they alone can have it (SO_REUSEPORT).
    """
    binary = find_restate()
    assert binary is not None
    settings, log = home / "restate.toml", home / "restate.log"
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(_bound())
        with contextlib.ExitStack() as probes:
            names = ("fabric", "ingress", "admin")
            ports = {name: _port(probes.enter_context(_bound())) for name in names}
        settings.write_text(_SETTINGS.format(home=home / "restate", **ports))
        with log.open("wb") as said:
            process = subprocess.Popen(
                [binary, "--no-logo", "--config-file", settings],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=home, start_new_session=True,
                env=_without_settings(os.environ),
            )  # fmt: skip
        stack.callback(_end, process)
        for address in (f"127.0.0.1:{ports['admin']}/health", f"127.0.0.1:{ports['ingress']}/restate/health"):
            _wait_for(process, log, f"http://{address}")
        yield f"http://127.0.0.1:{ports['ingress']}?admin={ports['admin']}&workers={_port(workers)}"


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The server takes those as settings, too."""
    return {name: value for name, value in environment.items() if not name.startswith("RESTATE_")}


def _wait_for(process: subprocess.Popen[bytes], log: Path, address: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        time.sleep(0.01)
    raise OSError(f"Restate did not start at {address}:\n{log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: its data go with the folder."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _bound() -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", 0))
    return bound


def _port(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])
