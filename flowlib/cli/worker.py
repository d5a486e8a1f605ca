"""`flow worker MODULE:APP`."""

from __future__ import annotations

import click

from flowlib.worker import start as process
from flowlib.worker.worker import BUDGET, GRACE, LEASE_MS

from .connection import connected, find_url, load_app
from .options import redis_url

LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]


@click.command("worker")
@click.argument("app", metavar="MODULE:APP", envvar="FLOW_APP")
@click.option("--queues", metavar="A,B", default="", help="In this order. Default: those that the app's functions use.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True,
    help="Worker processes, under a supervisor that starts them again when they die.",
)  # fmt: skip
@click.option("--name", help="As RQ's tools show it. Default: one of its own.")
@click.option("--burst", is_flag=True, help="Stop when nothing is queued.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve metrics too, this process' own among them.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True)
@click.option(
    "--lease", type=click.FloatRange(min=0.5), metavar="SECONDS", default=LEASE_MS / 1000, show_default=True,
    help="After so long the step of a worker that has died runs elsewhere.",
)  # fmt: skip
@click.option(
    "--grace", type=click.FloatRange(min=0), metavar="SECONDS", default=GRACE, show_default=True,
    help="A running step gets so long to end after SIGTERM; then it is handed back.",
)  # fmt: skip
@click.option(
    "--budget", type=click.FloatRange(min=0), metavar="SECONDS", default=BUDGET, show_default=True,
    help="A run may stay here so long, step after step, before others get their turn.",
)  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option(
    "--log-format", type=click.Choice([process.TEXT, process.JSON]), default=process.TEXT, show_default=True,
    envvar="FLOW_LOG_FORMAT", show_envvar=True,
)  # fmt: skip
@click.option("--lifeline", type=int, hidden=True, help="End when this file descriptor does.")
@redis_url
def command(
    app: str, queues: str, processes: int, name: str | None, burst: bool, metrics_port: int | None, metrics_host: str,
    lease: float, grace: float, budget: float, log_level: str, log_format: str, lifeline: int | None, redis_url: str | None,
) -> int:  # fmt: skip
    """Run the functions of an app, until SIGTERM or Ctrl-C.

    MODULE:APP is where the app is, e.g. workers.contacts:app; FLOW_APP says it, too.
    """
    process.end_early_in_good_order()
    if lifeline is not None:
        process.end_with(lifeline)
    process.set_up_logging(log_level.upper(), log_format)
    metrics_at = None if metrics_port is None else (metrics_host, metrics_port)
    if processes > 1:
        url = find_url(redis_url)
        with connected(url):
            pass
        arguments = [
            app, "--lease", str(lease), "--budget", str(budget), "--log-level", log_level, "--log-format", log_format,
            *(["--queues", queues] if queues else []), *(["--burst"] if burst else []),
            *(["--redis-url", redis_url] if redis_url else []),
        ]  # fmt: skip
        return process.start_many(processes, url, arguments, name=name, burst=burst, grace=grace, metrics_at=metrics_at)
    loaded = load_app(app)
    url = find_url(redis_url, loaded)
    with connected(url):
        pass  # better to hear now that this server cannot be used
    process.start(
        loaded,
        url,
        [queue.strip() for queue in queues.split(",") if queue.strip()],
        name=name,
        burst=burst,
        lease_ms=round(lease * 1000),
        budget=budget,
        grace=grace,
        metrics_at=metrics_at,
    )
    return 0
