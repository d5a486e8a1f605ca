"""`flow replay RUN`, or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flowlib.model import Run

from .connection import connected, find_url, runs_of, sealing_of
from .options import as_json, redis_url, sealing
from .payload import parse_json
from .selection import Selection, selection


@click.command("replay")
@selection
@click.option("--from", "from_step", metavar="STEP", help="Keep what was recorded before this step.")
@click.option("--set", "values", metavar="STEP=JSON", multiple=True, help="What the step has returned, instead.")
@sealing
@redis_url
@as_json
def command(
    selected: Selection,
    from_step: str | None,
    values: Sequence[str],
    app: str | None,
    redis_url: str | None,
    as_json: bool,
) -> int:
    """Start a new run of the same event, anew or from a step on. The run that there is stays as it is.

    RUN is a run's id, the beginning of one, or `last`. Steps are named as `flow show` names them. Either run tells of the
    other.

    \b
    flow replay last --from store --set 'enrich=["ada", "bob"]'
    flow replay --function import-contacts --status failed --since 1h --dry-run
    """
    given, by = dict(map(_value, values)), sealing_of(app)
    with connected(find_url(redis_url)) as store:

        def replay(run: Run) -> dict[str, Any]:
            return {"id": runs_of(store, by).replay(run.id, from_step=from_step, set=given), "replay_of": run.id}

        return selected.each("replay", selected.runs(store), replay, as_json, _told)


def _value(said: str) -> tuple[str, Any]:
    step, equals, value = said.partition("=")
    if not equals or not step:
        raise click.UsageError(f"--set {said!r}: say it as STEP=JSON")
    return step, parse_json(value, f"--set {step}")


def _told(document: dict[str, Any]) -> str:
    return f"run {document['id']} replays {document['replay_of']}"
