"""The worker processes of `flow dev`: started, started again when they die, and ended with their parent in any case.

Ctrl-C in the terminal is for the parent only, which then ends them in good order; and all of them hold one end of a pipe,
so that they also end when the parent is killed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

GRACE = 5.0  # seconds that a running step gets to end; then it is handed back, and goes on in the next worker
PATIENCE = GRACE + 3
STEADY = 10.0  # seconds after which a worker counts as one that has come up well
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0


@dataclass(slots=True)
class _Child:
    number: int
    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


class Children:
    """`command` is that of a worker, without its name; `environment` is what they get."""

    def __init__(self, count: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lifeline, self._held = os.pipe()
        self._command = [
            sys.executable, "-m", "flowlib.cli", "worker", *command,
            "--grace", str(GRACE), "--lifeline", str(self._lifeline),
        ]  # fmt: skip
        self._environment = environment
        self._children = [_Child(number) for number in range(1, count + 1)]

    @property
    def names(self) -> list[str]:
        """As RQ knows those that run."""
        return [child.name for child in self._children if child.process is not None]

    def start(self) -> None:
        for child in self._children:
            self._start(child)

    def mend(self) -> int | None:
        """Start those again that have died, later and later; the exit code of one that did so just now."""
        code = None
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                code = child.process.returncode
                self._bury(child)
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
        living = [child.process for child in self._children if child.process is not None]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in living:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            child.process = None

    def _start(self, child: _Child) -> None:
        child.name = f"dev-{child.number}-{secrets.token_hex(3)}"
        child.started = time.monotonic()
        child.process = subprocess.Popen(
            [*self._command, "--name", child.name],
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(self._lifeline,),
            start_new_session=True,
        )

    def _bury(self, child: _Child) -> None:
        assert child.process is not None
        code, now = child.process.returncode, time.monotonic()
        child.deaths = 1 if now - child.started > STEADY else child.deaths + 1
        wait = min(FIRST_WAIT * 2 ** (child.deaths - 1), LONGEST_WAIT)
        child.due, child.process = now + wait, None
        how = f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"
        click.echo(f"flow dev: worker {child.name} {how}: again in {wait:g} s", err=True)
