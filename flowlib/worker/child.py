"""One worker process as its supervisor sees it: started, looked at, told to go, killed.

The process is a new program, not a fork: nothing of the supervisor is in it but two descriptors, the lifeline, which ends
it with its supervisor, and its board. Decides nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flowlib.board import Board

LOOK_EVERY = 0.4  # seconds

_PAGE = os.sysconf("SC_PAGE_SIZE")
_HAS_PROC = Path("/proc/self/stat").exists()
_STOPPED, _GONE = "Tt", "X"  # by SIGSTOP or by a debugger; dead


class Child:
    """`kill_by` is set once it was told to go, `killed` says why it was killed, `overdue` which leases were the reason."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], lifeline: int, slots: int
    ) -> None:
        self.name = name
        self.board = Board(slots)
        self.process = subprocess.Popen(
            [*command, "--name", name, "--lifeline", str(lifeline), "--board", str(self.board.fd)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(lifeline, self.board.fd),
            start_new_session=True,  # what the terminal sends is for the supervisor
        )
        self.board.close_file()
        self.started = self._looked = time.monotonic()
        self.kill_by: float | None = None
        self.killed = ""
        self.overdue: list[str] = []
        self.frozen = False
        self.memory = 0
        self.ran_since = self.started  # it has been running, and could do what it should, since then at least

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def look(self, now: float, was_late: bool) -> None:
        """At its state and its memory. A supervisor that was late has been paused, and perhaps its workers with it."""
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            state, self.memory = _vitals(self.pid)
            self.frozen = state in _STOPPED
        if self.frozen or was_late:
            self.ran_since = now

    def tell(self, number: signal.Signals, kill_by: float) -> None:
        """SIGTERM: to finish what it runs; once more: to hand it back."""
        self.kill_by = kill_by
        self.process.send_signal(number)

    def kill(self, why: str, overdue: Sequence[str] = ()) -> None:
        """And the programs that its steps have started, but for those that have left its session."""
        self.killed, self.overdue = why, list(overdue)
        if self.exit_code is None:
            with suppress(ProcessLookupError, PermissionError):  # it is just ending
                os.killpg(self.pid, signal.SIGKILL)


def _vitals(pid: int) -> tuple[str, int]:
    """Its state as one letter, and the bytes of memory that it has to itself or shares; of a process that is no more: 0."""
    try:
        if not _HAS_PROC:
            asked = ["ps", "-o", "state=,rss=", "-p", str(pid)]
            state, kilobytes = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
            return state[0], int(kilobytes) * 1024
        fields = (
            Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        )  # a program's name may hold anything
        return fields[0].decode(), int(fields[21]) * _PAGE
    except (OSError, ValueError):
        return _GONE, 0
