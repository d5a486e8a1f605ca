"""`flow functions`, and what workers have said about their functions in Redis."""

from __future__ import annotations

import json
from typing import Any, cast

import click

from flowlib.store import Store
from flowlib.triggers import Trigger

from .connection import connected, find_url
from .options import as_json, redis_url
from .output import print_json, print_table


@click.command("functions")
@click.option("--app", metavar="NAME", help="Only those of this app.")
@redis_url
@as_json
def command(app: str | None, redis_url: str | None, as_json: bool) -> None:
    """List the functions that workers have declared."""
    with connected(find_url(redis_url)) as store:
        found = [described for described in declared(store) if app in (None, described["app"])]
    if as_json:
        print_json(found)
    elif found:
        rows = [
            (
                f"{each['app']}/{each['name']}", _triggers(each), each["queue"], str(each["retries"]),
                f"{each['timeout']:g} s" if each["timeout"] else "", each["code"],
            )
            for each in found
        ]  # fmt: skip
        print_table(("FUNCTION", "ON", "QUEUE", "RETRIES", "TIMEOUT", "CODE"), rows, elastic=("CODE", "ON"))
    else:
        click.echo("no functions yet: a worker declares those of its app when it starts", err=True)


def _triggers(described: dict[str, Any]) -> str:
    """Its events and its schedules; a worker of an older version knew of none."""
    return ", ".join(
        [*described["on"], *(f"cron {each['expression']} {each['tz']}" for each in described.get("cron", ()))]
    )


def is_on(described: dict[str, Any], event: str) -> bool:
    """Does an event of that name start it, unless a condition says no?"""
    return any(Trigger(name, dict).takes(event) for name in described["on"])


def declared(store: Store) -> list[dict[str, Any]]:
    """Each function as `Function.describe` puts it, by app and name."""
    apps = sorted(name.decode() for name in cast(set[bytes], store.client.smembers(store.keys.apps)))
    pipe = store.client.pipeline(transaction=False)
    for name in apps:
        pipe.hgetall(store.keys.functions(name))
    found = [json.loads(described) for functions in pipe.execute() for described in functions.values()]
    return sorted(found, key=lambda described: (described["app"], described["name"]))
