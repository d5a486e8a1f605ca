"""What the demo needs around it: a folder, Redis, the neighbours, and workers to be killed. Ends what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from flowlib.server import Server
from workers.demo.address_service import address_service
from workers.demo.mail_server import mail_server

LEASE = 3.0  # seconds, for those who watch; by default it is ten

FLOW = str(Path(sys.executable).with_name("flow"))


class Worker:
    """`flow worker` in a process group of its own, so that a kill takes all of it at once, as a dying machine would."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [FLOW, "worker", "workers.demo.app:app", "--lease", str(LEASE)],
                env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """In good order; a worker that does not go is killed."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class Stage:
    folder: Path
    redis_url: str
    address_service: str
    mails: list[EmailMessage]
    environment: dict[str, str]
    workers: list[Worker] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def crm(self) -> Path:
        return self.folder / "crm.sqlite3"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.tsv"

    @property
    def worker_log(self) -> Path:
        return self.folder / "worker.log"

    def start_worker(self) -> Worker:
        worker = Worker(self.environment, self.worker_log)
        self.workers.append(worker)
        return worker


@contextmanager
def set_stage(folder: Path | None = None) -> Iterator[Stage]:
    """Everything is up, on free ports; at the end, however it comes, everything is down and the folder is gone."""
    with ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-demo-")))
        home.mkdir(parents=True, exist_ok=True)
        redis = stack.enter_context(Server.start(home / "redis"))
        addresses = stack.enter_context(address_service())
        mails = stack.enter_context(mail_server())
        stage = Stage(home, redis.url, addresses, mails.mails, environment={})
        stage.environment = {
            **os.environ,
            "FLOW_REDIS_URL": redis.url,
            "CONTACTS_STORE": str(stage.store),
            "CONTACTS_CRM": str(stage.crm),
            "CONTACTS_ADDRESS_SERVICE": addresses,
            "CONTACTS_SMTP": mails.url,
            "CONTACTS_LEDGER": str(stage.ledger),
            "NO_PROXY": "127.0.0.1",
        }
        stack.callback(_stop_all, stage.workers)
        yield stage


def _stop_all(workers: list[Worker]) -> None:
    for worker in workers:
        if worker.alive:
            worker.stop()
