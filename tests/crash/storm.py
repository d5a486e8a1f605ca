"""A fleet of every kind of worker, a producer, and blows that fall on them and on Redis at random moments.

Knows what was done to whom and when, which `verdict.py` holds against what came of it; judges nothing itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowlib import App, Event, ServerError
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests import access
from tests.patience import until

from .fleet import CommandProcess, Forked, WorkerProcess
from .mixture import ASIDE
from .people import People
from .proxy import DOWN, UP, Proxy
from .stormy import RARE, SCHEDULE, TICKING, events_of, make, seal

LEASE = 1.0  # seconds
SETTLING = 90.0  # that the runs get to end once nobody is struck any more; a lease that a stock worker has lasts ten
# How often each kind of blow falls, in comparison.
BLOWS = {"kill": 8, "pause": 5, "terminate": 3, "kill redis": 3, "cut": 2, "flush scripts": 1}


@dataclass
class Struck:
    """A process that was killed, or paused, at a time; until when, if it was paused. `kind` is that of its member."""

    pid: int
    at: float
    kind: str
    until: float = float("inf")


@dataclass
class Member:
    """A place in the fleet; whoever has it is followed by another of the kind."""

    kind: str
    start: Callable[[], Forked]
    process: Forked = field(init=False)
    told: bool = False  # its end is our doing
    times_told: int = 0  # by SIGTERM

    def __post_init__(self) -> None:
        self.process = self.start()

    @property
    def pids(self) -> list[int]:
        """The process that was started, and its own."""
        children = self.process.children if isinstance(self.process, CommandProcess) else []
        return [self.process.pid, *children]


class Storm:
    def __init__(self, server: Server, notes: Path, seed: int, *, stock: bool, sealed: bool) -> None:
        self.server, self.notes, self.seed = server, notes, seed
        self.log = Path(f"{notes}.log")
        self.chance = random.Random(seed)
        self.store = Store(server.url)
        self._sealed = sealed
        self.app = self._connect(self.store)
        self.events: list[str] = []
        self.blows: Counter[str] = Counter()
        self.kills: list[Struck] = []
        self.pauses: list[Struck] = []
        self.faults: list[str] = []
        self.seconds = self.settling = 0.0
        self._proxy = Proxy(server.socket)
        self._pulse = Pulse(server)
        self.people = People(self._connect(patience=1.0), notes, seed, lambda: self.forgotten)
        self._members: list[Member] = []
        self._starters = {"alone": self._alone, "threads": self._threads, "supervised": self._supervised}
        if stock:
            self._starters["stock"] = self._stock
        self._check_at, self._sending = 0.0, threading.Event()

    def _connect(self, store: Store | None = None, **settings: Any) -> App:
        return make(*(seal(self.notes) if self._sealed else ())).connect(
            store=store or Store(self.server.url, **settings)
        )

    @property
    def forgotten(self) -> int:
        """How often Redis had forgotten what it had confirmed."""
        return self._pulse.forgotten

    @property
    def cuts(self) -> int:
        return self._proxy.cuts

    def rage(self, seconds: float, rate: float) -> None:
        """So long, with so many events a second; then all that were sent get the time to end."""
        began = time.monotonic()
        feeder = threading.Thread(target=self._feed, args=(rate,))
        try:
            self._members = [Member(kind, start) for kind, start in self._starters.items()]
            for direction in (UP, DOWN):
                self._proxy.cut_after(direction, self._gaps())
            until(lambda: self.store.client.hexists(self.store.keys.functions("mixture"), RARE))
            feeder.start()
            self._strike_until(began + seconds, at_least=seconds / 2)
            self._proxy.cut_after(UP, ())
            self._proxy.cut_after(DOWN, ())
            self._sending.set()
            feeder.join()
            self.seconds = time.monotonic() - began
            self._settle()
            self.settling = time.monotonic() - began - self.seconds
            self._end()
        finally:
            self._close(feeder)

    # -- the fleet ---------------------------------------------------------------------------------------------------

    def _location(self, name: str) -> str:
        return f"tests.crash.{'sealed' if self._sealed else 'stormy'}:{name}"

    def _alone(self) -> Forked:
        """Deployed a while ago: it lacks a function."""
        return WorkerProcess(
            self._location("older"), self.server.url, self.notes, lease_ms=round(1000 * LEASE), ledger_url=""
        )

    def _threads(self) -> Forked:
        """Behind a proxy that cuts its connections at any byte, so that commands and replies are lost."""
        url = f"redis://{access.USER}:{access.PASSWORD}@127.0.0.1:{self._proxy.port}/0?socket_timeout=2"
        return WorkerProcess(
            self._location("app"), url, self.notes, lease_ms=round(1000 * LEASE), threads=4, ledger_url=""
        )

    def _supervised(self) -> Forked:
        settings = ["--processes", "2", "--threads", "2", "--lease", str(LEASE), "--log-level", "WARNING"]
        url = access.limited(self.server.url)
        return CommandProcess("flow", ["worker", self._location("app"), *settings, "--redis-url", url], self.notes)

    def _stock(self) -> Forked:
        settings = ["--serializer", "json", "--url", self.server.url, "--quiet"]
        return CommandProcess("rq", ["worker", *settings, "flow", ASIDE], self.notes)

    def _tend(self) -> None:
        """Whoever has ended is followed by another."""
        for member in self._members:
            if not member.process.ends(within=0):
                continue
            self._hear_of_the_end(member)
            member.process, member.told, member.times_told = member.start(), False, 0

    def _hear_of_the_end(self, member: Member) -> None:
        code = member.process.exit_code
        good = [0, -signal.SIGKILL, -signal.SIGTERM] if member.told else []  # -SIGTERM: it had hardly begun to live
        if (
            member.times_told > 1
        ):  # it may have been frozen for longer than a body has to end: then it leaves that behind
            good.append(1)
        if code not in good and member.kind != "stock":
            said = "\n    ".join(self.log.read_text().splitlines()[-80:])
            self.faults.append(f"a worker ({member.kind}, told: {member.told}) has ended with {code}:\n    {said}")

    # -- the blows ---------------------------------------------------------------------------------------------------

    def _strike_until(self, end: float, at_least: float) -> None:
        """Longer, on a machine on which blows come too seldom."""
        blows = {
            "kill": self._kill, "pause": self._pause, "terminate": self._terminate, "kill redis": self._kill_redis,
            "cut": self._proxy.cut, "flush scripts": self._flush_scripts,
        }  # fmt: skip
        while time.monotonic() < end or self.blows.total() < at_least:
            (blow,) = self.chance.choices(list(BLOWS), list(BLOWS.values()))
            self.blows[blow] += 1
            self._tell(blow)
            blows[blow]()
            self._wait(self.chance.uniform(0.1, 0.7))

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._tend()
        self._check()
        while True:
            for pause in self.pauses:
                if pause.until == float("inf") and time.time() > pause.at + self._length_of(pause):
                    self._resume(pause)
            if time.monotonic() > until:
                return
            time.sleep(0.02)

    def _tell(self, *words: object) -> None:
        """Among what the workers say."""
        with self.log.open("a") as log:
            print(f"{time.time():.6f} storm:", *words, file=log)

    def _victim(self) -> tuple[Member, int]:
        """The processes that run steps rather than those that look after them."""
        member = self.chance.choice(self._members)
        first, *children = member.pids
        return member, self.chance.choice(children) if children and self.chance.random() < 0.8 else first

    def _kill(self) -> None:
        member, pid = self._victim()
        # Those of a killed supervisor end with it; the work-horse of a stock worker lives on, and reports.
        dying = member.pids if member.kind == "supervised" and pid == member.process.pid else [pid]
        self.kills += [Struck(each, time.time(), member.kind) for each in dying]
        self._tell("killed", member.kind, pid)
        _send(pid, signal.SIGKILL)
        if pid == member.process.pid:
            member.told = member.process.ends()

    def _pause(self) -> None:
        """Some for less than their lease, more of them for longer."""
        member, pid = self._victim()
        self.pauses.append(Struck(pid, time.time(), member.kind))
        self._tell("paused", member.kind, pid)
        _send(pid, signal.SIGSTOP)

    @staticmethod
    def _length_of(pause: Struck) -> float:
        return LEASE * random.Random(pause.at).uniform(0.3, 3.0)

    def _resume(self, pause: Struck) -> None:
        pause.until = time.time()
        self._tell("resumed", pause.kind, pause.pid)
        _send(pause.pid, signal.SIGCONT)

    def _terminate(self) -> None:
        """As a deployment does it; sometimes twice, by which what runs is handed back."""
        member = self.chance.choice(self._members)
        process, member.told = member.process, True
        self._tell("terminated", member.kind, process.pid)
        _send(process.pid, signal.SIGTERM)
        member.times_told += 1
        if self.chance.random() < 0.3:
            self._wait(0.2)
            if member.process is process:  # else another has followed it by now
                _send(process.pid, signal.SIGTERM)
                member.times_told += 1

    def _kill_redis(self) -> None:
        with self._pulse.held():
            self.server.kill()
            time.sleep(self.chance.choice([0.0, 0.2, 1.5 * LEASE]))
            self.server.restart()

    def _flush_scripts(self) -> None:
        self.store.client.execute_command("SCRIPT FLUSH")

    def _gaps(self) -> Iterator[float]:
        while True:
            yield self.chance.randrange(1, 400_000)

    def _check(self) -> None:
        """It holds up all who write: so that they are not held up for more than a moment in twenty.

        RQ's own workers move jobs in several strokes, between which they are nowhere: those are made good a little later.
        """
        if "stock" in self._starters:
            return
        began = time.monotonic()
        if began > self._check_at:
            self.faults += check_invariants(self.store)
            self._check_at = time.monotonic() + max(1.0, 20 * (time.monotonic() - began))

    # -- the producer ------------------------------------------------------------------------------------------------

    def _feed(self, rate: float) -> None:
        """Each event until Redis has confirmed it: sending it again with its id is safe."""
        app = self._connect(patience=1.0)
        began = time.monotonic()
        while not self._sending.is_set():
            events = events_of(len(self.events))
            while not _confirmed(app, events):
                pass
            self.events.append(events[0].id)
            self._sending.wait(max(0.0, began + len(self.events) / rate - time.monotonic()))
        app.store.close()

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for pause in self.pauses:
            if pause.until == float("inf"):
                self._resume(pause)
        if self.forgotten:  # a producer that cannot trust its server sends again
            self.app.send([event for number in range(len(self.events)) for event in events_of(number)])
        deadline, over = time.monotonic() + SETTLING, 1000 * time.time()
        self._tend_until(lambda: self._ticked() >= over, deadline)
        self.store.pause_cron("mixture", TICKING, True)  # else there is always a tick whose run has just begun
        self._tend_until(lambda: self.people.idle and self._is_quiet(), deadline)

    def _tend_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while time.monotonic() < deadline and not condition():
            self._tend()
            time.sleep(0.1)

    def _is_quiet(self) -> bool:
        """All events are settled, and all that has begun has ended."""
        keys = self.store.keys
        pipe = self.store.client.pipeline(transaction=True)
        pipe.zcard(keys.active("mixture"))
        pipe.xinfo_groups(keys.events)
        pipe.xinfo_stream(keys.events)
        active, (group,), stream = pipe.execute()
        return not active and not group["pending"] and group["last-delivered-id"] == stream["last-generated-id"]

    def _ticked(self) -> float:
        """Up to when all ticks have started their runs, in ms."""
        found: Any = self.store.client.hget(self.store.keys.cron("mixture"), f"upto|{SCHEDULE}")
        return float(found or 0)

    def _end(self) -> None:
        for member in self._members:
            member.told = True
            _send(member.process.pid, signal.SIGTERM)
            member.times_told += 1
        for member in self._members:
            self._hear_of_the_end(member)

    def _close(self, feeder: threading.Thread) -> None:
        self._sending.set()
        for member in self._members:
            for pid in member.pids if not member.process.ends(within=0) else ():
                _send(pid, signal.SIGKILL)
        if feeder.ident:
            feeder.join()
        self.people.close()
        self._pulse.close()
        self._proxy.close()


class Pulse:
    """Writes to Redis all the time, and so knows whether a killed one has forgotten what it had confirmed.

    With `appendfsync everysec` that is possible: while an fsync is under way, what follows waits in Redis's own memory.
    """

    KEY = "pulse"

    def __init__(self, server: Server) -> None:
        self.forgotten = 0
        self._server = server
        self._confirmed = 0
        self._turn, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While Redis is killed and started again."""
        before = self._confirmed
        yield
        with self._turn, self._server.client() as client:
            found: Any = client.get(self.KEY)
            self.forgotten += int(found or 0) < max(before, self._confirmed)
            self._confirmed = int(found or 0)

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        with self._server.client(retry=None) as client:
            while not self._over.wait(0.001):
                with self._turn, contextlib.suppress(Exception):  # away, or loading
                    self._confirmed = int(client.incr(self.KEY))


def _confirmed(app: App, events: list[Event[Any]]) -> bool:
    try:
        app.send(events)
    except ServerError:
        return False
    return True


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)
