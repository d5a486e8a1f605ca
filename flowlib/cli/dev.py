"""`flow dev MODULE:APP`: all that an app needs, in one terminal."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from flowlib.address import shown
from flowlib.errors import ConfigError
from flowlib.server import INSTALL, Server
from flowlib.store import Store
from flowlib.worker.keeper import Keeper
from flowlib.worker.start import worker_command
from flowlib.worker.supervisor import Supervisor
from flowlib.worker.worker import LEASE_MS

from .connection import DEV_FOLDER, connected
from .functions import declared
from .options import redis_url

GRACE = 5.0  # seconds that a running step gets to end; then it is handed back, and goes on in the next worker
TICK = 0.2  # seconds between looks at the workers


@click.command("dev")
@click.argument("app", metavar="MODULE:APP", envvar="FLOW_APP")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="How many processes.")
@click.option("--queues", metavar="A,B", default="", help="As of `flow worker`.")
@click.option("--reload/--no-reload", default=True, help="Start the workers again when a .py file is saved.")
@click.option("--fresh", is_flag=True, help="Forget all runs and events of before.")
@redis_url
def command(app: str, workers: int, queues: str, reload: bool, fresh: bool, redis_url: str | None) -> int:
    """Run an app here: a server of its own, workers, reload on save.

    The server keeps its data in .flow, so runs go on where they were; the other commands find it there. With --redis-url
    or FLOW_REDIS_URL that Redis is used instead.
    """
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(f"reload on save needs watchfiles: {INSTALL}, or say --no-reload")
    stopping = _stop_on_signals()
    given = redis_url or os.environ.get("FLOW_REDIS_URL")
    if given and fresh:
        raise click.UsageError("--fresh is for the server in .flow only: it never empties another Redis")
    with ExitStack() as stack:
        url = given or stack.enter_context(_server(fresh)).url
        store = stack.enter_context(connected(url))
        click.echo(f"flow dev: Redis is {shown(url)}")
        arguments = [app, "--grace", str(GRACE), *(["--queues", queues] if queues else [])]
        if redis_url or not given:  # before what the app itself says; FLOW_REDIS_URL is handed down as it is
            arguments += ["--redis-url", url]
        _tell_of_workers()
        environment = {**os.environ, "FLOW_REDIS_URL": url}
        keeper = Keeper(LEASE_MS / 1000)
        children = Supervisor(workers, worker_command(arguments), environment, keeper, prefix="dev", grace=GRACE)
        stack.callback(children.stop)
        children.start()
        return _watch(children, store, stopping, reload)


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _server(fresh: bool) -> Server:
    if fresh and DEV_FOLDER.exists():
        if Server.find(DEV_FOLDER):
            raise ConfigError(f"another `flow dev` runs on {DEV_FOLDER}: stop it before you start afresh")
        shutil.rmtree(DEV_FOLDER)
    server = Server.start(DEV_FOLDER)
    (DEV_FOLDER / ".gitignore").write_text("*\n")
    if not server.owned:
        click.echo(
            f"flow dev: another one (pid {server.owner}) runs the server here, and takes it along when it stops",
            err=True,
        )
    return server


def _watch(children: Supervisor, store: Store, stopping: threading.Event, reload: bool) -> int:
    """Until a signal comes. An app that cannot even be started at first ends it all; later on it may be mended."""
    up = False
    for saved in _saves(stopping) if reload else _ticks(stopping):
        if saved:
            click.echo(f"flow dev: {', '.join(saved)} saved: starting again")
            children.restart()
        code = children.mend()
        if code is not None and not up:
            return abs(code) or 1
        if not up and any(store.client.exists(store.keys.rq_worker(name)) for name in children.names):
            up = True
            _hint(store)
    click.echo("flow dev: stopping")
    return 0


def _tell_of_workers() -> None:
    """Only what is not as it should be."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("flow dev: %(message)s"))
    logging.getLogger("flowlib.supervisor").addHandler(handler)


def _ticks(stopping: threading.Event) -> Iterator[list[str]]:
    while not stopping.wait(TICK):
        yield []


def _saves(stopping: threading.Event) -> Iterator[list[str]]:
    """The .py files below this folder that were just saved; now and then none."""
    from watchfiles import PythonFilter, watch

    here = Path.cwd()
    for changes in watch(
        here,
        watch_filter=PythonFilter(),
        stop_event=stopping,
        rust_timeout=round(TICK * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        if stopping.is_set():
            return
        yield sorted({os.path.relpath(path, here) for _, path in changes})


def _hint(store: Store) -> None:
    for function in declared(store):
        click.echo(f"  {function['app']}/{function['name']}  on {', '.join(function['on'])}")
    click.echo("In another terminal, in this folder:")
    click.echo("  flow send NAME --data JSON     flow runs     flow show last     flow logs last -f")
