"""`flow retry RUN`, or many."""

from __future__ import annotations

from typing import Any

import click

from flowlib.model import FAILED, Run

from .connection import connected, find_url, runs_of
from .options import as_json, redis_url
from .selection import Selection, selection


@click.command("retry")
@selection
@redis_url
@as_json
def command(selected: Selection, redis_url: str | None, as_json: bool) -> int:
    """Put failed runs back to the step that failed, in place: what is recorded stays, its attempts begin anew.

    RUN is a run's id, the beginning of one, or `last`. A worker takes it up; `flow replay` makes a new run instead.

    \b
    flow retry --function import-contacts --since 1h
    """
    with connected(find_url(redis_url)) as store:

        def retry(run: Run) -> dict[str, Any]:
            return {"id": run.id, "status": "running", "step": runs_of(store).retry(run.id)}

        return selected.each("retry", selected.runs(store, FAILED), retry, as_json, _told)


def _told(document: dict[str, Any]) -> str:
    step = document["step"]
    then = f"step {step!r} is tried again" if step else "its function is called again"
    return f"run {document['id']} goes on: {then}"
