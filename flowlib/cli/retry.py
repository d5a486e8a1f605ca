"""`flow retry RUN`."""

from __future__ import annotations

import click

from .connection import connected, find_url, runs_of
from .lookup import find_run
from .options import as_json, redis_url, run_id
from .output import print_json


@click.command("retry")
@run_id
@redis_url
@as_json
def command(run_id: str, redis_url: str | None, as_json: bool) -> None:
    """Put a failed run back to the step that failed, in place: what is recorded stays, its attempts begin anew.

    RUN is a run's id, the beginning of one, or `last`. A worker takes it up; `flow replay` makes a new run instead.
    """
    with connected(find_url(redis_url)) as store:
        found = find_run(store, run_id)
        step = runs_of(store).retry(found)
    if as_json:
        print_json({"id": found, "status": "running", "step": step})
    else:
        click.echo(
            f"run {found} goes on: " + (f"step {step!r} is tried again" if step else "its function is called again")
        )
