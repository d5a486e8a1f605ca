"""`flow cancel RUN`."""

from __future__ import annotations

import click

from .connection import connected, find_url, runs_of
from .lookup import find_run
from .options import as_json, redis_url, run_id
from .output import print_json


@click.command("cancel")
@run_id
@click.option("--reason", default="", help="Why: it is kept with the run.")
@redis_url
@as_json
def command(run_id: str, reason: str, redis_url: str | None, as_json: bool) -> None:
    """End a run that has not ended: nothing of it is left in a queue, and a step that is running is interrupted.

    RUN is a run's id, the beginning of one, or `last`.
    """
    with connected(find_url(redis_url)) as store:
        found = find_run(store, run_id)
        runs_of(store).cancel(found, reason)
    if as_json:
        print_json({"id": found, "status": "cancelled", "reason": reason})
    else:
        click.echo(f"run {found} is cancelled")
