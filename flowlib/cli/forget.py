"""`flow forget APP`."""

from __future__ import annotations

import click

from flowlib.errors import ConfigError, NotFound

from .connection import connected, find_url
from .options import as_json, redis_url
from .output import print_json, took

SILENCE = 10.0  # seconds; a living worker reads events every second


@click.command("forget")
@click.argument("app", metavar="APP")
@click.option("--yes", is_flag=True, help="Do not ask.")
@redis_url
@as_json
def command(app: str, yes: bool, redis_url: str | None, as_json: bool) -> None:
    """Forget an app that is gone for good: no event is kept for it any more.

    APP is its name, as `flow functions` shows it. Every event is kept until each app that ever had a worker has read it,
    so one that nobody runs any more makes them pile up; `flow doctor` tells. Refused while a worker of the app lives or a
    run of it is unfinished. Its ended runs are no longer listed, and expire as ever.
    """
    with connected(find_url(redis_url)) as store:
        if not yes:
            click.confirm(
                f"No event that {app!r} has not read will start anything in it. Forget it?", abort=True, err=True
            )
        verdict, number = store.forget_app(app, round(SILENCE * 1000))
    if verdict == "unknown":
        raise NotFound(f"app {app!r} has never had a worker here: `flow functions` shows those that had")
    if verdict == "alive":
        raise ConfigError(
            f"a worker of {app!r} has read events {took(number / 1000)} ago: stop its workers, then wait {SILENCE:g} s"
        )
    if verdict == "unfinished":
        raise ConfigError(f"{number} runs of {app!r} are unfinished: let them end, or cancel them")
    if as_json:
        print_json({"app": app, "unread": number})
    else:
        click.echo(f"app {app} is forgotten; {number} events that it had not read start nothing in it")
