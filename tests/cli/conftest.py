"""`flow`: the command line on the test's own server; `at_work`: the shop's worker, in a thread."""

from __future__ import annotations

import json
import logging
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowlib import Event, Run
from flowlib.cli import main
from flowlib.store import Store
from flowlib.worker import FlowWorker
from tests.cli import shop
from tests.forks import Command
from tests.patience import PATIENCE, until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Flow = Callable[..., Said]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and nothing said by the environment."""
    for name in ("FLOW_APP", "FLOW_DEBUG", "FLOW_LOG_FORMAT", "FLOW_REDIS_URL", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def flow_anywhere() -> Flow:
    """In this process, unless the command would make it its own, or imports a module of the test's; or `apart`, because
    a worker's thread would print in between."""

    def flow(*arguments: str, input: str | None = None, apart: bool = False) -> Said:
        if apart or arguments[0] in ("worker", "dev") or "--app" in arguments:
            return run_flow(*arguments, input=input)
        result = CliRunner().invoke(main, list(arguments), input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return flow


class FlowProcess(Command):
    """`flow` with these arguments."""

    def __init__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, input: str = "", log: Path | None = None
    ) -> None:
        beside = Path(tempfile.mkdtemp(prefix="flow-", dir=Path.cwd().parent))
        super().__init__("flow", arguments, beside, environment=environment, input=input, log=log)


def flow_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flowlib.cli", *arguments]


def run_flow(*arguments: str, input: str | None = None, **environment: str) -> Said:
    """In a process of its own."""
    flow = FlowProcess(*arguments, environment=environment, input=input or "")
    return Said(flow.exit_code, flow.out, flow.err)


@pytest.fixture
def flow(flow_anywhere: Flow, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Flow:
    monkeypatch.setenv("FLOW_REDIS_URL", redis_url)
    return flow_anywhere


class Shop:
    """The shop with a worker. `order` places one and returns its run when that has ended."""

    def __init__(self, url: str) -> None:
        self.app = shop.app.connect(store=Store(url))
        self.worker = FlowWorker(app=self.app, store=Store(url))
        self._thread = threading.Thread(target=self.worker.work)
        self._thread.start()

    def order(self, id: str, **details: Any) -> Run:
        self.app.send(shop.placed(shop.Order(id, **details), id=id))
        run = self.run_of(id)
        until(lambda: self.app.runs.get(run).finished)
        return self.app.runs.get(run)

    def hold(self) -> str:
        """A run whose step is held up at the gate."""
        self.app.send(Event("shop/opened", {}, id="opened"))
        run = self.run_of("opened")
        until(
            lambda: {"claimed", "log"} <= {entry.kind for entry in self.app.runs.history(run) if entry.step == "1:hold"}
        )
        return run

    def bill(self, id: str) -> str:
        """A run that waits for its payment."""
        self.app.send(Event("shop/bill.sent", {}, id=id))
        run = self.run_of(id)
        until(lambda: self.app.runs.get(run).state == "waiting")
        return run

    def run_of(self, event_id: str) -> str:
        until(lambda: self.app.runs.of_event(event_id))
        return self.app.runs.of_event(event_id)[0]

    def stop(self) -> None:
        shop.gate.set()
        if self._thread.is_alive():
            self.worker.stop()
        self._thread.join(PATIENCE)
        self.worker.store.close()
        self.app.store.close()


@pytest.fixture
def at_work(redis_url: str, caplog: pytest.LogCaptureFixture) -> Iterator[Shop]:
    caplog.set_level(logging.INFO)  # as `flow worker` does, so that `log.info` is in the history
    shop.gate.clear()
    shop.tries.clear()
    place = Shop(redis_url)
    until(lambda: place.app.store.client.exists(place.app.store.keys.functions("shop")))
    yield place
    place.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
