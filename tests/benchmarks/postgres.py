"""A private PostgreSQL in a temporary folder, for the peer that needs one; found, never installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_PATIENCE = 30.0
_UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root, so root runs it as somebody else


def find_postgres() -> Path | None:
    """The folder of `postgres` and `initdb`."""
    on_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    for binary in [*([Path(on_path)] if on_path else []), *debian]:
        if (folder := binary.resolve().parent).joinpath("initdb").exists():
            return folder
    return None


def version() -> str:
    folder = find_postgres()
    if folder is None:
        return "none"
    return subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=True).stdout.split()[2]


@contextlib.contextmanager
def postgres(home: Path) -> Iterator[str]:
    """The address of a new, empty database; its settings are the server's own: every commit is on disk (fsync on)."""
    folder = find_postgres()
    assert folder is not None
    user = _UNPRIVILEGED if os.geteuid() == 0 else None
    data = home / "postgres"
    data.mkdir(mode=0o700)
    if user is not None:
        home.chmod(0o711)
        shutil.chown(data, user)
    log, port = home / "postgres.log", _free_port()
    with log.open("wb") as said:
        made = subprocess.run(
            [folder / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, user=user, cwd="/", check=False,
        )  # fmt: skip
    if made.returncode:
        raise OSError(f"initdb failed:\n{log.read_text(errors='replace')[-2000:]}")
    with log.open("ab") as said:
        process = subprocess.Popen(
            [folder / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, user=user, cwd="/", start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(process, log, port, data)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: it does not wait for its clients
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], log: Path, port: int, data: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if (data / "postmaster.pid").read_text().splitlines()[7:8] == ["ready   "]:
                return
        time.sleep(0.01)
    raise OSError(f"PostgreSQL did not start on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
