"""`flow runs`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from rich.text import Text

from flowlib.model import STATES, STATUSES, Run

from .connection import connected, find_url, runs_of
from .options import Since, as_json, redis_url
from .output import ago, print_json, print_table, run_document, status, took


@click.command("runs")
@click.option("--status", "wanted", type=click.Choice(list(dict.fromkeys((*STATUSES, *STATES)))))
@click.option("--function", metavar="NAME", help="Only runs of this function.")
@click.option("--event", metavar="NAME|ID", help="Only runs that this event has started, by its name or id.")
@click.option("--since", type=Since(), help="Only runs that started since then: 90s, 5m, 1h, 2d, or an ISO time.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@redis_url
@as_json
def command(
    wanted: str | None, function: str | None, event: str | None, since: datetime | timedelta | None, limit: int,
    redis_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List runs, the newest first."""
    with connected(find_url(redis_url)) as store:
        found = runs_of(store).list(status=wanted, function=function, event=event, since=since, limit=limit)
    if as_json:
        print_json([run_document(run) for run in found])
    elif found:
        heads = ("RUN", "FUNCTION", "STATUS", "STARTED", "TOOK", "EVENT", "WHAT")
        print_table(heads, map(_row, found), elastic=("EVENT", "WHAT"))
        if len(found) == limit:
            click.echo(f"… the newest {limit}: --limit N shows more", err=True)
    else:
        click.echo("no runs; `flow send NAME --data JSON` starts one", err=True)


def _row(run: Run) -> tuple[str | Text, ...]:
    seconds = ((run.ended or datetime.now(UTC)) - run.created).total_seconds()
    return (
        run.id, f"{run.app}/{run.function}", status(run), ago(run.created), took(max(seconds, 0)), run.event.id, _what(run),
    )  # fmt: skip


def _what(run: Run) -> str:
    """Why it ended, or where it is."""
    if run.error is not None:
        step = f"{run.error.step}: " if run.error.step else ""
        return f"{step}{run.error.type}: {run.error.message}".partition("\n")[0]
    if run.finished:
        return run.reason
    if run.state == "parked":
        return f"no worker that came by knows {run.function}"
    return f"{run.step or '(start)'}" + (f", attempt {run.attempt}" if run.attempt > 1 else "")
