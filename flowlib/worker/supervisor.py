"""Several worker processes of one command: started, started again when they die, and ended with their parent in any case.

The supervisor runs no user code and knows nothing of steps. What its workers write on their boards is all that it goes by:
the leases that they hold, and by when what they run has to have ended. A worker that lives keeps its leases, however busy it
is; one that was stopped (SIGSTOP, a debugger) is left alone: its leases run out, and what it had goes on elsewhere.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .child import Child
from .keeper import Death, Keeper

log = logging.getLogger("flowlib.supervisor")

STEADY = 10.0  # seconds after which a worker counts as one that has come up well
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
KILL_AFTER = 5.0  # seconds that a body gets to end after its time, or after its lease was lost
MARGIN = 3.0  # seconds beyond its grace that a worker gets to say goodbye, at least
PATIENCE = 600.0  # seconds that a successor gets to come up
TICK = 0.5
NEVER = float("inf")


@dataclass(slots=True)
class _Place:
    """One of the N: the worker that has it, the one that is to have it next, and how many in a row did not last."""

    number: int
    child: Child | None = None
    heir: Child | None = None
    short_lived: int = 0
    due: float = 0.0  # nothing is started here before


class Supervisor:
    """`command` is that of one worker, which is started with a --name, a --lifeline and a --board besides."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        keeper: Keeper,
        *,
        prefix: str,
        grace: float,
        slots: int = 1,
        kill_after: float = KILL_AFTER,
        max_jobs: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        self._lifeline, self._held_end = os.pipe()
        self._command = command
        self._environment = environment
        self._keeper = keeper
        self._prefix = prefix
        self._grace = grace
        self._slots = slots
        self._kill_after = kill_after
        self._max_jobs = max_jobs or NEVER
        self._max_memory = max_memory or NEVER
        self._signals = self._heeded = 0
        self._stopping = self._came_up = False
        self._looked = time.monotonic()
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._children: list[Child] = []  # all that there are, on their way in and out too

    @property
    def names(self) -> list[str]:
        """As RQ knows those that run."""
        return [child.name for child in self._children]

    @property
    def held(self) -> list[str]:
        """The leases that are to be renewed. From any thread."""
        return [lease for child in list(self._children) if not child.frozen for _, lease, _ in child.board.held()]

    def start(self) -> None:
        self._keeper.start(lambda: self.held)
        self._fill()

    def run(self, once: bool = False) -> int:
        """Until SIGTERM or SIGINT; a second one lets the workers hand back what they run. With `once`, until all have ended.

        Returns an exit code: that of a worker when none could even be started, which a later one may not end.
        """
        result = 0
        with self._hearing() as awake:
            self.start()
            while self._children or not self._stopping:
                if select.select([awake], [], [], TICK)[0]:
                    awake.recv(4096)
                self._heed_signals()
                code = self.mend(once)
                if code and code > 0 and not self._came_up and all(place.short_lived for place in self._places):
                    result = code
                    self._drain()
                self._stopping |= once and all(place.due == NEVER for place in self._places)
        self._keeper.stop()
        return result

    def mend(self, once: bool = False) -> int | None:
        """Look at all workers, and do what is to be done; the exit code of one that has died just now.

        With `once`, one that has ended well has done all that it was started for.
        """
        now = time.monotonic()
        was_late, self._looked = now - self._looked > 4 * TICK, now
        for child in list(self._children):
            child.look(now, was_late)
            if child.board.is_up and not self._came_up:
                self._came_up = True
                self._keeper.hear(child.board.noted)
            if child.exit_code is None:
                self._kill_if_overdue(child, now)
            else:
                self._children.remove(child)
                self._bury(child)
        codes = [code for place in self._places if (code := self._tend(place, now, once)) is not None]
        return codes[-1] if codes else None

    def restart(self) -> None:
        """With the code as it is now. Those that have died get a new chance at once."""
        self._leave()
        for place in self._places:
            place.short_lived, place.due = 0, 0.0
        self._stopping = False
        self._fill()

    def stop(self) -> None:
        """In good order; one that does not go is killed."""
        self._leave()
        self._keeper.stop()

    # -- one place ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        for place in self._places:
            place.child = self._start(place)

    def _tend(self, place: _Place, now: float, once: bool) -> int | None:
        """The exit code of its worker, if that has died just now."""
        code = None
        if place.child is not None and place.child.exit_code is not None:
            code = place.child.exit_code
            self._lose(place, place.child, once)
        if place.heir is not None:
            self._succeed(place, place.heir, now)
        if self._stopping or now < place.due:
            return code
        if place.child is None:
            place.child = self._start(place)
        elif (why := self._worn(place.child)) and all(child.board.is_up for child in self._children):
            self._say(logging.INFO, place.child.name, "recycled", f"{why}: goes as soon as its successor is there")
            self._pace(place, place.child)
            place.heir = self._start(place)
        return code

    def _start(self, place: _Place) -> Child | None:
        name = f"{self._prefix}-{place.number}-{secrets.token_hex(3)}"
        try:
            child = Child(name, self._command, self._environment, self._lifeline, self._slots)
        except OSError as error:  # no memory, or no more processes allowed
            place.due = time.monotonic() + LONGEST_WAIT
            self._say(logging.ERROR, name, "backed off", f"could not be started ({error}): again in {LONGEST_WAIT:g} s")
            return None
        self._children.append(child)
        self._say(logging.INFO, name, "started", f"pid {child.pid}")
        return child

    def _lose(self, place: _Place, child: Child, once: bool) -> None:
        place.child, place.heir = place.heir, None
        if once and child.exit_code == 0:
            place.due = NEVER
        elif not child.killed and child.kill_by is None:
            self._back_off(place, child)

    def _back_off(self, place: _Place, child: Child) -> None:
        if self._stopping:
            return
        self._pace(place, child)
        if (wait := place.due - time.monotonic()) > 0:
            detail = f"did not last, the {place.short_lived}. in a row; why, it has said above: again in {wait:.1f} s"
            self._say(logging.WARNING, child.name, "backed off", detail)

    def _pace(self, place: _Place, child: Child) -> None:
        """After a worker that did not last, the next but one is waited for; longer and longer, if that does not help."""
        now = time.monotonic()
        place.short_lived = 1 if now - child.started > STEADY else place.short_lived + 1
        many = place.short_lived - (2 if self._came_up else 1)
        place.due = now if many < 0 else now + min(FIRST_WAIT * 2 ** min(many, 10), LONGEST_WAIT)

    # -- succession --------------------------------------------------------------------------------------------------

    def _worn(self, child: Child) -> str:
        """Why a fresh one should take over, if it should."""
        if child.board.jobs >= self._max_jobs:
            return f"has done {child.board.jobs} jobs"
        if child.memory > self._max_memory:
            return f"has {child.memory >> 20} MB of memory"
        return ""

    def _succeed(self, place: _Place, heir: Child, now: float) -> None:
        """The old one goes when the new one has come up: there are never fewer of them than there should be."""
        if heir.exit_code is not None:
            place.heir = None
            self._back_off(place, heir)
        elif heir.board.is_up:
            if place.child is not None:
                self._tell(place.child, now + self._patience)
            place.child, place.heir = heir, None
        elif now - heir.started > PATIENCE:
            self._kill(heir, f"it has not come up in {PATIENCE:g} s")

    # -- how a worker ends -------------------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        return self._grace + max(self._kill_after, MARGIN)

    def _drain(self) -> None:
        self._stopping = True
        for child in self._children:
            if child.kill_by is None:
                self._tell(child, time.monotonic() + self._patience)

    def _leave(self) -> None:
        self._drain()
        while self._children:
            with suppress(subprocess.TimeoutExpired):
                self._children[0].process.wait(TICK)
            self.mend()

    def _tell(self, child: Child, kill_by: float, detail: str = "") -> None:
        child.tell(signal.SIGTERM, kill_by)
        self._say(logging.INFO, child.name, "draining", detail)

    def _kill_if_overdue(self, child: Child, now: float) -> None:
        """What does not let itself be ended is ended with the whole process; its other steps are handed back."""
        if child.kill_by is not None and now > child.kill_by:
            self._kill(child, "it did not end when it was told to")
        if child.frozen:
            return
        overdue, lost = [], []
        for _, lease, deadline in child.board.held():
            known = self._keeper.lost.get(lease, NEVER) + self._keeper.lease / 3  # by then its worker knows it, too
            if deadline and now > max(deadline, child.ran_since) + self._kill_after:
                overdue.append(lease)
            elif deadline and now > max(known, child.ran_since) + self._kill_after:
                lost.append(lease)
        if overdue or lost:
            what = [f"{lease} ran over its time" for lease in overdue] + [f"{lease} was lost" for lease in lost]
            self._kill(child, f"{' and '.join(what)}, and its body did not end in {self._kill_after:g} s", overdue)

    def _kill(self, child: Child, why: str, overdue: Sequence[str] = ()) -> None:
        if not child.killed:
            child.kill(why, overdue)
            self._say(logging.ERROR, child.name, "killed", why)

    def _bury(self, child: Child) -> None:
        code = child.exit_code or 0
        meant = child.killed != "" or child.kill_by is not None or code == 0
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if not child.killed:
            self._say(logging.INFO if meant else logging.WARNING, child.name, "stopped" if meant else "died", how)
        if code:
            self._keeper.bury(Death(child.name, blameless=meant, overdue=child.overdue))

    # -- signals and words -------------------------------------------------------------------------------------------

    @contextmanager
    def _hearing(self) -> Iterator[socket.socket]:
        """What it gives can be read from when a signal has come, or a child has died."""
        awake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        with awake, wake:
            yield awake
            signal.set_wakeup_fd(-1)

    def _on_signal(self, *_: object) -> None:
        self._signals += 1

    def _heed_signals(self) -> None:
        """The first: finish what runs, take no more. Each further one: hand it back."""
        while self._heeded < self._signals:
            self._heeded += 1
            if self._heeded == 1:
                self._drain()
                continue
            for child in self._children:
                self._tell(child, time.monotonic() + MARGIN, "cut short")

    def _say(self, level: int, name: str, transition: str, detail: str = "") -> None:
        log.log(
            level, "worker %s: %s%s", name, transition, f": {detail}" if detail else "",
            extra={"worker": name, "transition": transition, "detail": detail},
        )  # fmt: skip
