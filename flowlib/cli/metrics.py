"""`flow metrics`."""

from __future__ import annotations

import signal
import threading

import click

from flowlib.address import shown
from flowlib.metrics import render, serve
from flowlib.store import Store

from .connection import connected, find_url
from .options import redis_url


@click.command("metrics")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 to be reached from elsewhere.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", default=9464, show_default=True)
@click.option("--once", is_flag=True, help="Print them, and serve nothing.")
@redis_url
def command(host: str, port: int, once: bool, redis_url: str | None) -> None:
    """Serve metrics to Prometheus, of everything on this Redis, until stopped."""
    url = find_url(redis_url)
    with connected(url) as store:
        if once:
            click.echo(render(store), nl=False)
            return
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    stop = serve(Store(url), host, port)
    click.echo(f"flow metrics: http://{host}:{port}/metrics of {shown(url)}", err=True)
    over.wait()
    stop()
