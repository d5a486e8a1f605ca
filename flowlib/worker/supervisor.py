"""Several worker processes of one command: started, started again when they die, and ended with their parent in any case.

The supervisor runs no user code and knows nothing of steps. It notices a death at once and says whose it was, so that the
dead worker's job need not wait for its lease to run out. A signal from the terminal is for the parent only, which then
ends its children in good order; and all of them hold one end of a pipe, so that they also end when the parent is killed.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

STEADY = 10.0  # seconds after which a worker counts as one that has come up well
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
MARGIN = 3.0  # seconds beyond the grace after which a worker that does not go is killed
TICK = 0.5


@dataclass(slots=True)
class _Child:
    number: int
    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


class Supervisor:
    """`command` is that of `flow worker`, without a name; `say` takes one line, `bury` the name of a worker that died."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        prefix: str,
        grace: float,
        say: Callable[[str], None],
        bury: Callable[[str], None],
    ) -> None:
        self._lifeline, self._held = os.pipe()
        self._command = [
            sys.executable, "-m", "flowlib.cli", "worker", *command,
            "--grace", str(grace), "--lifeline", str(self._lifeline),
        ]  # fmt: skip
        self._environment = environment
        self._prefix = prefix
        self._grace = grace
        self._say = say
        self._bury = bury
        self._signals = 0
        self._children = [_Child(number) for number in range(1, count + 1)]

    @property
    def names(self) -> list[str]:
        """As RQ knows those that run."""
        return [child.name for child in self._children if child.process is not None]

    def start(self) -> None:
        for child in self._children:
            self._start(child)

    def mend(self, once: bool = False) -> int | None:
        """Start those again that have died, later and later; the exit code of one that did so just now.

        With `once`, one that has ended well has done all it was started for.
        """
        code = None
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                code = child.process.returncode
                self._has_died(child, again=not (once and code == 0))
            if child.process is None and time.monotonic() >= child.due:
                self._start(child)
        return code

    def restart(self) -> None:
        """With the code as it is now. Those that have died get a new chance at once."""
        self.stop()
        for child in self._children:
            child.deaths = 0
            self._start(child)

    def stop(self) -> None:
        """In good order; one that does not go is killed."""
        self._tell(signal.SIGTERM)
        self._await(time.monotonic() + self._grace + MARGIN)

    def run(self, once: bool = False) -> int:
        """Until SIGTERM or SIGINT; a second one lets the workers hand back what they run. With `once`, until all have ended.

        Returns an exit code: that of the first worker when it cannot even be started, which a later one may not end.
        """
        awake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        began = time.monotonic()
        self.start()
        while not self._signals:
            if select.select([awake], [], [], TICK)[0]:
                awake.recv(4096)
            code = self.mend(once)
            if code and code > 0 and time.monotonic() - began < STEADY and not self._steady:
                self.stop()
                return code
            if once and not self.names:
                return 0
        self._await(time.monotonic() + self._grace + MARGIN)
        return 0

    @property
    def _steady(self) -> bool:
        return any(child.process is not None and child.deaths == 0 for child in self._children)

    def _on_signal(self, *_: object) -> None:
        self._signals += 1
        self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _await(self, deadline: float) -> None:
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            if child.process.returncode:
                self._bury(child.name)
            child.process = None

    def _start(self, child: _Child) -> None:
        child.name = f"{self._prefix}-{child.number}-{secrets.token_hex(3)}"
        child.started = time.monotonic()
        child.process = subprocess.Popen(
            [*self._command, "--name", child.name],
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(self._lifeline,),
            start_new_session=True,
        )

    def _has_died(self, child: _Child, again: bool) -> None:
        assert child.process is not None
        code, now = child.process.returncode, time.monotonic()
        child.process = None
        if not again:
            child.due = float("inf")
            return
        self._bury(child.name)
        child.deaths = 1 if now - child.started > STEADY else child.deaths + 1
        wait = 0.0 if child.deaths == 1 else min(FIRST_WAIT * 2 ** (child.deaths - 2), LONGEST_WAIT)
        child.due = now + wait
        how = f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"
        self._say(f"worker {child.name} {how}: again {f'in {wait:g} s' if wait else 'at once'}")
