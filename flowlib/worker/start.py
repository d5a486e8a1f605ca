"""A worker as a process of its own: logging, metrics, and one `FlowWorker` on the main thread until it is told to stop.

What `flow worker` and others call; knows nothing of command lines. A step's records go two ways: to standard error as
text or JSON, each with its run, step and attempt, and into the run's history, which `capture` sees to.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from flowlib.app import App
from flowlib.board import Board
from flowlib.errors import ConfigError
from flowlib.store import Store

from .keeper import Keeper
from .patience import insist, passes
from .supervisor import Supervisor
from .worker import BUDGET, COLD, GRACE, LEASE_MS, FlowWorker

log = logging.getLogger("flowlib.worker")

TEXT, JSON = "text", "json"
_PR_SET_PDEATHSIG = 1
AT_REST = 0.2  # seconds in which a thread ends that has nothing more to do


def start(
    app: App,
    redis_url: str,
    queues: Sequence[str] = (),
    *,
    name: str | None = None,
    burst: bool = False,
    lease_ms: int = LEASE_MS,
    budget: float = BUDGET,
    grace: float = GRACE,
    threads: int = 1,
    max_jobs: int | None = None,
    rq_jobs: bool = False,
    metrics_at: tuple[str, int] | None = None,
    board: Board | None = None,
) -> None:
    """Run the functions of `app` until SIGTERM, or with `burst` until nothing is queued. Raises ConfigError.

    A Redis that is away is waited for, but not with `burst`; raises ServerError for one that cannot be used.
    """
    app.connect(redis_url)
    if board is not None:
        board.note(redis_url)
    with closing(Store(redis_url)) as store:
        store.client.set_retry(Retry(NoBackoff(), 0))
        insist(lambda: _check(store, name), redis_url, may_wait=(lambda _: False) if burst else passes)
    with ExitStack() as stack:
        if metrics_at is not None:
            stack.callback(_serve_metrics(redis_url, *metrics_at))
        worker = FlowWorker(
            queues, name, app=app, lease_ms=lease_ms, budget=budget, grace=grace, threads=threads, board=board,
            rq_jobs=rq_jobs,
        )  # fmt: skip
        worker.work(burst=burst, max_jobs=max_jobs)
        _leave_threads_behind()


def start_many(
    count: int,
    arguments: Sequence[str],
    *,
    name: str | None = None,
    burst: bool = False,
    lease: float = LEASE_MS / 1000,
    metrics_at: tuple[str, int] | None = None,
    **limits: Any,
) -> int:
    """That many worker processes under a supervisor, which imports nothing of the app. Returns an exit code.

    `arguments` are those of `flow worker`, `limits` those of the Supervisor.
    """

    def open_store(url: str) -> Store:
        if metrics_at is not None:
            stack.callback(_serve_metrics(url, *metrics_at))
        return Store(url, patience=0)

    if metrics_at is not None:
        socket.create_server(metrics_at).close()  # better to hear now that it is taken
    prefix = name or f"{socket.gethostname()}-{os.getpid()}"
    keeper = Keeper(lease, open_store)
    with ExitStack() as stack:
        return Supervisor(count, worker_command(arguments), os.environ, keeper, prefix=prefix, **limits).run(once=burst)


def worker_command(arguments: Sequence[str]) -> list[str]:
    """One worker as a process of its own."""
    return [sys.executable, "-m", "flowlib.cli", "worker", *arguments]


def _leave_threads_behind() -> None:
    """Those that `asyncio.to_thread` began for bodies whose time is over: nobody can end them, and Python waits for them."""
    of_bodies = [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")]
    for thread in of_bodies:
        thread.join(AT_REST)
    if left := [thread for thread in of_bodies if thread.is_alive()]:
        log.warning("%d threads that async steps began do not end: they are left behind", len(left))
        leaving = threading.Timer(COLD, os._exit, [0])
        leaving.daemon = True
        leaving.start()


def _check(store: Store, name: str | None) -> None:
    """Better to hear now that this server cannot be used, or that the name is taken."""
    store.check_server()
    if name is not None:
        _refuse_taken(name, store)


def _refuse_taken(name: str, store: Store) -> None:
    """RQ lets no two workers have one name; that of a worker that was killed is free once its record has expired."""
    key = store.keys.rq_worker(name)
    if store.client.exists(key) and not store.client.hexists(key, "death"):
        seconds = store.client.ttl(key)
        raise ConfigError(
            f"there is a worker named {name!r}: choose another --name, or none (if that one was killed, its name is free "
            f"in {seconds} s)"
        )


def _serve_metrics(redis_url: str, host: str, port: int) -> Callable[[], None]:
    from prometheus_client import REGISTRY

    from flowlib.metrics import serve

    return serve(Store(redis_url), host, port, also=REGISTRY)


def end_early_in_good_order() -> None:
    """A SIGTERM before there is a worker to hear it ends the process with exit code 0, too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def end_with(lifeline: int) -> None:
    """End this process at once when the pipe closes, and so when whoever holds its other end dies, however it does."""
    os.set_inheritable(lifeline, False)
    if sys.platform == "linux":  # a body that hogs the interpreter lock keeps the thread below from running
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="flow-lifeline", daemon=True).start()


# -- logging -----------------------------------------------------------------------------------------------------------


def set_up_logging(level: str = "INFO", form: str = TEXT) -> None:
    """Do it before the app is imported: what the app sets up itself then comes on top. INFO, so that histories have it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if form == JSON else _TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])


class _TextFormatter(logging.Formatter):
    """`2026-11-22 19:22:59.123 INFO shop: charging o1 [01M82… charge#2]`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — logging's name for it
        run, step, attempt = _speaker(record)
        return super().formatMessage(record) + (f" [{run} {step}#{attempt}]" if run else "")


class _JsonFormatter(logging.Formatter):
    """One object a line; what was given as `extra` is in it."""

    def format(self, record: logging.LogRecord) -> str:
        run, step, attempt = _speaker(record)
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **({"run": run, "step": step, "attempt": attempt} if run else {}),
            **{name: value for name, value in vars(record).items() if name not in _USUAL},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "run", "step", "attempt"}


def _speaker(record: logging.LogRecord) -> tuple[str, str, int]:
    """The run, step and attempt that a record was made in, as `capture.RunFilter` has marked it."""
    return getattr(record, "run", ""), getattr(record, "step", ""), getattr(record, "attempt", 0)
