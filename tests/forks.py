"""Processes forked from one that has imported everything: each is there in milliseconds, and as fresh as a started one."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

from flowlib.cli import COMMANDS

from .patience import PATIENCE

ROOT = Path(__file__).parents[1]
PROGRAMS = {"flow": "flowlib.cli", "rq": "rq.cli"}

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [*PROGRAMS.values(), *(f"flowlib.cli.{each}" for each in COMMANDS)]
    + [f"tests.crash.{each}" for each in ("fleet", "story", "mixture", "waiting", "leavings")]
)
_alone = threading.Lock()  # starting a process asks all others for their exit codes, and each can be read once only


class Fork:
    """A process that does `work` in this folder. What it says is added to the files `out` and `err`."""

    def __init__(
        self,
        work: Callable[..., None],
        *args: Any,
        environment: Mapping[str, str],
        out: Path,
        err: Path | None = None,
        input: Path = Path(os.devnull),
    ) -> None:
        place = _Place(Path.cwd(), dict(environment), input, out, err or out)
        self._process = _forks.Process(target=_begin, args=(place, work, *args), daemon=True)
        with _alone:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def ends(self, within: float = PATIENCE) -> bool:
        return bool(connection.wait([self._process.sentinel], within))

    @property
    def exit_code(self) -> int:
        """Waits for its end."""
        assert self.ends(), "a process does not end"
        with _alone:
            self._process.join()
            assert self._process.exitcode is not None
            return self._process.exitcode

    def send(self, signal_number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if not self.ends(within=0):
                os.kill(self.pid, signal_number)

    def stop(self) -> int:
        """In good order, as a deployment does it; the exit code, that of its kill if it was dead already."""
        self.send(signal.SIGTERM)
        return self.exit_code

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.ends()


class Command(Fork):
    """`flow` or `rq` as it is typed in this folder. It finds the modules there, and those of the tests.

    What it says is kept in the folder `beside`, or added to the file `log` if it is an error.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        beside: Path,
        *,
        environment: Mapping[str, str] | None = None,
        input: str = "",
        log: Path | None = None,
    ) -> None:
        self._out, self._err, given = beside / "out", log or beside / "err", beside / "in"
        given.write_text(input)
        self._out.touch()
        self._err.touch()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        super().__init__(
            command, program, arguments, environment=environment, out=self._out, err=self._err, input=given
        )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()


def command(program: str, arguments: Sequence[str]) -> None:
    sys.argv = [program, *arguments]
    sys.exit(importlib.import_module(PROGRAMS[program]).main(arguments))


class _Place(NamedTuple):
    folder: Path
    environment: dict[str, str]
    input: Path
    out: Path
    err: Path


def _begin(place: _Place, work: Callable[..., None], *args: Any) -> None:
    if sys.platform == "linux":  # end with the tests, however those end
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.chdir(place.folder)
    os.environ.clear()
    os.environ.update(place.environment)
    adding = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for fd, path, how in ((0, place.input, os.O_RDONLY), (1, place.out, adding), (2, place.err, adding)):
        opened = os.open(path, how, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    if (encoding := place.environment.get("PYTHONIOENCODING")) and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=encoding)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the one that there is reads nothing
    work(*args)
