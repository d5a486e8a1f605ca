"""`flow worker MODULE:APP`."""

from __future__ import annotations

from typing import Any

import click

from flowlib.board import Board
from flowlib.worker import start as process
from flowlib.worker.supervisor import KILL_AFTER
from flowlib.worker.worker import BUDGET, GRACE, LEASE_MS

from .connection import find_url, load_app
from .options import Size, redis_url

LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]
# What is the supervisor's business only; all else is handed down to its workers.
ITS_OWN = {"processes", "name", "max_jobs", "max_memory", "kill_after", "metrics_port", "metrics_host"}


@click.command("worker")
@click.argument("app", metavar="MODULE:APP", envvar="FLOW_APP")
@click.option("--queues", metavar="A,B", default="", help="In this order. Default: those that the app's functions use.")
@click.option(
    "--processes", type=click.IntRange(min=1), metavar="N",
    help="Worker processes, under a supervisor that starts them again when they die. Default: this one, and nobody looks.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="M", default=1, show_default=True,
    help="Steps that a process runs at a time.",
)  # fmt: skip
@click.option("--name", help="As RQ's tools show it. Default: one of its own.")
@click.option("--burst", is_flag=True, help="Do what can be done now, and stop.")
@click.option(
    "--max-jobs", type=click.IntRange(min=1), metavar="N",
    help="A process that has done so many is replaced by a fresh one; without --processes it ends.",
)  # fmt: skip
@click.option(
    "--max-memory", type=Size(), metavar="512M", help="So is one that is larger than this. Needs --processes."
)
@click.option(
    "--kill-after", type=click.FloatRange(min=0), metavar="SECONDS", default=KILL_AFTER, show_default=True,
    help="With --processes: one whose step does not end so long after its timeout, or after it was cancelled, is killed.",
)  # fmt: skip
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
@click.option(
    "--rq-jobs", is_flag=True,
    help="Perform ordinary RQ jobs of these queues, too, as `rq worker --with-scheduler` would. Opens their pickles.",
)  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option(
    "--log-format", type=click.Choice([process.TEXT, process.JSON]), default=process.TEXT, show_default=True,
    envvar="FLOW_LOG_FORMAT", show_envvar=True,
)  # fmt: skip
@click.option("--lifeline", type=int, hidden=True, help="End when this file descriptor does.")
@click.option("--board", type=int, hidden=True, help="Write what is held there: a file descriptor of the supervisor's.")
@redis_url
@click.pass_context
def command(
    ctx: click.Context, app: str, queues: str, processes: int | None, threads: int, name: str | None, burst: bool,
    max_jobs: int | None, max_memory: int | None, kill_after: float, metrics_port: int | None, metrics_host: str,
    lease: float, grace: float, budget: float, rq_jobs: bool, log_level: str, log_format: str, lifeline: int | None,
    board: int | None, redis_url: str | None,
) -> int:  # fmt: skip
    """Run the functions of an app, until SIGTERM or Ctrl-C.

    MODULE:APP is where the app is, e.g. workers.contacts:app; FLOW_APP says it, too.
    """
    process.end_early_in_good_order()
    if lifeline is not None:
        process.end_with(lifeline)
    process.set_up_logging(log_level.upper(), log_format)
    metrics_at = None if metrics_port is None else (metrics_host, metrics_port)
    if processes is not None:
        return process.start_many(
            processes, _handed_down(ctx), name=name, burst=burst, lease=lease, metrics_at=metrics_at, grace=grace,
            slots=threads, kill_after=kill_after, max_jobs=max_jobs, max_memory=max_memory,
        )  # fmt: skip
    if max_memory is not None:
        raise click.UsageError("--max-memory is a supervisor's business: say --processes 1, too")
    loaded = load_app(app)
    process.start(
        loaded,
        find_url(redis_url, loaded),
        [queue.strip() for queue in queues.split(",") if queue.strip()],
        name=name,
        burst=burst,
        lease_ms=round(lease * 1000),
        budget=budget,
        grace=grace,
        threads=threads,
        max_jobs=max_jobs,
        rq_jobs=rq_jobs,
        metrics_at=metrics_at,
        board=None if board is None else Board.at(board),
    )
    return 0


def _handed_down(ctx: click.Context) -> list[str]:
    """The same command line for a worker process, but for what is its supervisor's business."""
    words = []
    for parameter in ctx.command.params:
        value: Any = ctx.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif parameter.name not in ITS_OWN and value not in (None, False, parameter.default):
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return words
