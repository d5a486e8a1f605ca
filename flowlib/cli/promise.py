"""`flow promise resolve TOKEN`, `flow promise reject TOKEN`."""

from __future__ import annotations

import click

from flowlib.journal import id_of
from flowlib.promise import read_token
from flowlib.promises import Promises

from .connection import connected, find_url, sealing_of
from .options import as_json, redis_url, sealing
from .output import print_json
from .payload import parse_json, read_data


@click.group("promise")
def command() -> None:
    """Settle a promise that a run waits for: once, by its token."""


@command.command()
@click.argument("token")
@click.argument("value", metavar="[JSON]", required=False)
@sealing
@redis_url
@as_json
def resolve(token: str, value: str | None, app: str | None, redis_url: str | None, as_json: bool) -> None:
    """Give it its value, as JSON (default null); @FILE and - read it from there.

    \b
    flow promise resolve 01J….MTphcHByb3ZhbA.3xBz '{"ok": true}'
    """
    given = None if value is None else parse_json(*read_data(value))
    by = sealing_of(app)
    with connected(find_url(redis_url)) as store:
        promises = Promises(lambda: store) if by is None else Promises(lambda: store, by.seal)
        promises.resolve(token, given)
    _tell(token, "resolved", as_json)


@command.command()
@click.argument("token")
@click.argument("reason", default="")
@redis_url
@as_json
def reject(token: str, reason: str, redis_url: str | None, as_json: bool) -> None:
    """Have it fail, with a REASON: the function that asks for its result is raised StepFailed."""
    with connected(find_url(redis_url)) as store:
        Promises(lambda: store).reject(token, reason)
    _tell(token, "rejected", as_json)


def _tell(token: str, what: str, as_json: bool) -> None:
    run, step, _ = read_token(token)
    if as_json:
        print_json({"run": run, "step": id_of(step), "status": what})
    else:
        click.echo(f"the promise of step {id_of(step)} of run {run} is {what}")
