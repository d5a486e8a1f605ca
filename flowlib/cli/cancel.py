"""`flow cancel RUN`, or many."""

from __future__ import annotations

from typing import Any

import click

from flowlib.errors import RunEnded
from flowlib.model import CANCELLED, RUNNING, Run

from .connection import connected, find_url, runs_of
from .options import as_json, redis_url
from .selection import Selection, selection


@click.command("cancel")
@selection
@click.option("--reason", default="", help="Why: it is kept with the run.")
@redis_url
@as_json
def command(selected: Selection, reason: str, redis_url: str | None, as_json: bool) -> int:
    """End runs that have not ended: nothing of them is left in a queue, and a step that is running is interrupted.

    RUN is a run's id, the beginning of one, or `last`.

    \b
    flow cancel --function import-contacts --status sleeping --match user.id=42
    """
    with connected(find_url(redis_url)) as store:

        def cancel(run: Run) -> dict[str, Any]:
            try:
                runs_of(store).cancel(run.id, reason)
            except RunEnded as ended:  # of many, one may be the child of another
                if selected.single or ended.status != CANCELLED:
                    raise
            return {"id": run.id, "status": "cancelled", "reason": reason}

        return selected.each("cancel", selected.runs(store, RUNNING), cancel, as_json, _told)


def _told(document: dict[str, Any]) -> str:
    return f"run {document['id']} is cancelled"
