"""Workers, runs for them to work on, and what is asked of both after any trouble.

Asked is: nobody exits, nobody spins or connects in a frenzy while nothing can be done, all go on by themselves, each
event has started one run which ends right, each attempt's body was started once, and RQ's commands are still heard.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rq.command import send_shutdown_command

from flowlib import App, Event, ServerError
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests import access
from tests.patience import until

from .fleet import WorkerProcess
from .ledger import AGAIN, START, Ledger
from .mixture import KINDS
from .proxy import Proxy

IDLE_CPU = 0.35  # of one processor at most, while a worker can do nothing but wait
CONNECTS = 25  # a second at most and per worker, with its handful of threads


class Fleet:
    """Workers and a producer at `url`; the test's own hands (`app`, `store`) reach the server directly."""

    def __init__(self, direct: str, url: str, notes: Path) -> None:
        self.url = url
        self.store = Store(direct)
        self.client = self.store.client
        self.app = App("mixture").connect(store=self.store)
        self._direct = direct
        self._notes = notes
        self._workers: dict[str, WorkerProcess] = {}
        self._runs = 0
        self._producer: threading.Thread | None = None
        self._faults: list[str] = []

    def start(self, workers: int = 2, runs: int = 30, seconds: float = 1.0, **settings: Any) -> None:
        """Returns when the first runs have ended; the producer goes on sending, through whatever comes."""
        for number in range(workers):
            name = f"worker-{number}"
            self._workers[name] = WorkerProcess(
                "tests.crash.mixture:app", self.url, self._notes, name=name, ledger_url=self._direct, **settings
            )
        self._runs = runs
        self._producer = threading.Thread(target=self._produce, args=(seconds / runs,))
        self._producer.start()
        until(lambda: self.ended() >= runs / 8)

    def ended(self) -> int:
        keys = self.store.keys
        started, active = (int(self.client.zcard(key)) for key in (keys.runs("mixture"), keys.active("mixture")))
        return started - active

    def send_again(self) -> None:
        """All events with their ids, as a producer may that has doubts."""
        assert self._producer is not None
        self._producer.join()
        self.app.send([self._event(number) for number in range(self._runs)])

    def goes_on(self) -> bool:
        """Whether another run ends, if there is one left."""
        before = self.ended()
        with contextlib.suppress(AssertionError):
            return bool(until(lambda: self.ended() > before or before == self._runs))
        return False

    def endure(self, seconds: float) -> None:
        """Let trouble last in which no worker can do anything: none may end, or spin."""
        began = time.monotonic()
        before = {name: _cpu_seconds(worker.pid) for name, worker in self._workers.items()}
        for name, worker in self._workers.items():
            if worker.ends(within=max(0.0, began + seconds - time.monotonic())):
                self._faults.append(f"{name} has ended with {worker.exit_code}: {self._log()}")
                return
        took = time.monotonic() - began
        for name, worker in self._workers.items():
            spent = _cpu_seconds(worker.pid) - before[name]
            if spent > IDLE_CPU * took + 0.1:
                self._faults.append(f"{name} spent {spent:.2f} s of CPU in {took:.2f} s of waiting")

    def wait(self) -> None:
        """Until all is sent, and has ended."""
        assert self._producer is not None
        self._producer.join()
        while self.ended() < self._runs:
            if not self.goes_on():
                self._faults.append(f"{self._runs - self.ended()} runs do not end: {self._log()}")
                return

    def faults(self, *, forgetful: bool = False) -> list[str]:
        """What is wrong after all runs have ended; `forgetful`: the server may have lost what it had confirmed."""
        self.wait()
        self._faults += check_invariants(self.store)
        self._faults += self._wrong_runs()
        self._faults += [] if forgetful else self._repetitions()
        self._faults += self._deaf_workers()
        return self._faults

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()
        if self._producer is not None:
            self._producer.join()
        self.store.close()

    # -- below -------------------------------------------------------------------------------------------------------

    def _produce(self, pause: float) -> None:
        """Each event until Redis has confirmed it: sending it again with its id is safe."""
        store = Store(self.url, patience=1.0)
        app = App("mixture").connect(store=store)
        for number in range(self._runs):
            while True:
                try:
                    app.send(self._event(number))
                    break
                except ServerError:
                    time.sleep(0.05)
            time.sleep(pause)
        store.close()

    def _event(self, number: int) -> Event[Any]:
        return Event(KINDS[number % len(KINDS)], {}, id=f"event-{number}")

    def _wrong_runs(self) -> Iterator[str]:
        found = self.app.runs.list(limit=2 * self._runs)
        started = Counter(run.event.id for run in found)
        for number in range(self._runs):
            if (times := started[f"event-{number}"]) != 1:
                yield f"event-{number} has started {times} runs"
        for run in found:
            if (run.status, run.result) != ("completed", 4):
                yield f"run {run.id}: {run.function} is {run.status} ({run.state}) with {run.result}: {run.error}"
        for line in Ledger(self._notes).lines():
            if line.word == AGAIN:
                yield f"{line.run} {line.step} was recorded and was started again"

    def _repetitions(self) -> Iterator[str]:
        """While all workers live, nothing is taken from any of them."""
        lines = Ledger(self._notes).lines()
        starts = Counter((line.run, line.step, line.attempt) for line in lines if line.word == START)
        yield from (f"the body of {body} was started {times} times" for body, times in starts.items() if times > 1)
        for run in self.app.runs.list(limit=2 * self._runs):
            for entry in self.app.runs.history(run.id):
                if entry.kind in ("lost", "recovered"):
                    yield f"run {run.id}: its step {entry.step} was taken from {entry.worker}, which lives"

    def _deaf_workers(self) -> Iterator[str]:
        for name in self._workers:
            send_shutdown_command(self.client, name)
        for name, worker in self._workers.items():
            if not worker.ends():
                yield f"{name} did not hear RQ's command to shut down: {self._log()}"
            elif worker.exit_code:
                yield f"{name} has ended with {worker.exit_code}: {self._log()}"

    def _log(self) -> str:
        return Path(f"{self._notes}.log").read_text()[-5000:]


class Proxied(Fleet):
    """All of them behind a proxy, which counts how often they connect."""

    def __init__(self, server: Server, notes: Path, db: int = 0) -> None:
        self.server = server
        self.proxy = Proxy(server.socket)
        url = f"redis://{access.USER}:{access.PASSWORD}@127.0.0.1:{self.proxy.port}/{db}?socket_timeout=2"
        super().__init__(server.url.replace("db=0", f"db={db}"), url, notes)

    def endure(self, seconds: float) -> None:
        """Nor may they connect again and again."""
        before = self.proxy.connections
        super().endure(seconds)
        made = self.proxy.connections - before
        if made > CONNECTS * len(self._workers) * (seconds + 1):
            self._faults.append(f"{made} connections were made in {seconds} s")


@contextlib.contextmanager
def proxied(server: Server, notes: Path, db: int = 0) -> Iterator[Proxied]:
    fleet = Proxied(server, notes, db)
    try:
        yield fleet
    finally:
        fleet.close()
        fleet.proxy.close()


def _cpu_seconds(pid: int) -> float:
    """What the process has used so far; 0 where the system does not say it in this way."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100
