"""`flow cron list|trigger|pause|resume`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import click

from flowlib.codec import encode
from flowlib.errors import NotFound
from flowlib.schedule import CRON_EVENT, Cron, event_data
from flowlib.store import Store
from flowlib.ulid import ulid

from .connection import connected, find_url, runs_of
from .functions import declared
from .options import as_json, redis_url
from .output import iso, print_json, print_table

PATIENCE = 1.0  # seconds for a run to start: long for workers that are idle, short for a person

function = click.argument("named", metavar="FUNCTION")


@click.group("cron")
def command() -> None:
    """Look at cron schedules, trigger, pause and resume functions."""


@command.command("list")
@click.option("--app", metavar="NAME", help="Only those of this app.")
@redis_url
@as_json
def show(app: str | None, redis_url: str | None, as_json: bool) -> None:
    """List the schedules: when they tick next, in their own zones, and which was the last tick that started a run."""
    with connected(find_url(redis_url)) as store:
        found = [schedule for schedule in _schedules(store) if app in (None, schedule["app"])]
    if as_json:
        print_json([{**each, "next": iso(each["next"]), "last": iso(each["last"])} for each in found])
    elif found:
        rows = [
            (
                f"{each['app']}/{each['function']}", each["expression"], each["tz"],
                "paused" if each["paused"] else _local(each["next"], each["tz"]), _local(each["last"], each["tz"]),
            )
            for each in found
        ]  # fmt: skip
        print_table(("FUNCTION", "CRON", "ZONE", "NEXT", "LAST"), rows)
    else:
        click.echo("no schedules yet: a worker declares those of its app when it starts", err=True)


@command.command("trigger")
@function
@redis_url
@as_json
def trigger(named: str, redis_url: str | None, as_json: bool) -> None:
    """Start a run of FUNCTION now, as if it had just ticked, whatever its schedule says and whether or not it is paused.

    FUNCTION is a name as `flow cron list` shows it, without its app if no other app has one of that name.
    """
    with connected(find_url(redis_url)) as store:
        found = _find(store, named)
        cron = Cron(**found["cron"][0])
        now = _now(store)
        data = event_data(found["app"], found["name"], cron.expression, cron.tz, now)
        stamp = round(now.timestamp() * 1000)
        sent = ulid(stamp, secrets.token_bytes(10))
        store.send_events([(sent, CRON_EVENT, encode(data), stamp, "")])
        deadline = time.monotonic() + PATIENCE
        while not (runs := runs_of(store).of_event(sent)) and time.monotonic() < deadline:
            time.sleep(0.02)
    if as_json:
        print_json({"event": sent, "runs": runs})
    elif runs:
        click.echo(f"run {runs[0]}  {found['name']}")
    else:
        click.echo(f"event {sent} is sent, and will start a run when a worker is up: `flow doctor`", err=True)


@command.command("pause")
@function
@redis_url
@as_json
def pause(named: str, redis_url: str | None, as_json: bool) -> None:
    """Let no tick of FUNCTION start a run until it is resumed. Runs that have started go on."""
    _set_paused(named, True, redis_url, as_json)


@command.command("resume")
@function
@redis_url
@as_json
def resume(named: str, redis_url: str | None, as_json: bool) -> None:
    """Let FUNCTION tick again. What it has missed is caught up within seconds if its cron says missed="latest" or "all"."""
    _set_paused(named, False, redis_url, as_json)


def _set_paused(named: str, paused: bool, redis_url: str | None, as_json: bool) -> None:
    with connected(find_url(redis_url)) as store:
        found = _find(store, named)
        changed = store.pause_cron(found["app"], found["name"], paused)
    if as_json:
        print_json({"app": found["app"], "function": found["name"], "paused": paused})
    else:
        before = "" if changed else " already" if paused else ", as it was"
        click.echo(f"{found['app']}/{found['name']} {'is' + before + ' paused' if paused else 'ticks' + before}")


def _find(store: Store, named: str) -> dict[str, Any]:
    """Of the functions with a schedule. Raises NotFound, also when several could be meant."""
    ticking = [each for each in declared(store) if each.get("cron")]
    found = [each for each in ticking if named in (each["name"], f"{each['app']}/{each['name']}")]
    if not found:
        raise NotFound(f"no function {named!r} has a cron: `flow cron list` shows those that have")
    if len(found) > 1:
        names = ", ".join(f"{each['app']}/{each['name']}" for each in found)
        raise NotFound(f"{named!r} may be any of {names}: say its app")
    return found[0]


def _schedules(store: Store) -> Iterator[dict[str, Any]]:
    """All schedules of all functions, with what Redis knows of them."""
    now = _now(store)
    for described in declared(store):
        app, function = described["app"], described["name"]
        for settings in described.get("cron", ()):
            cron = Cron(**settings)
            last, paused = cast(
                list[bytes | None],
                store.client.hmget(store.keys.cron(app), f"last|{function}|{cron.name}", f"paused|{function}"),
            )
            yield {
                "app": app, "function": function, **settings, "next": cron.next_due(function, now),
                "last": None if last is None else datetime.fromtimestamp(int(last) / 1000, UTC), "paused": paused is not None,
            }  # fmt: skip


def _now(store: Store) -> datetime:
    """By the server's clock, to the millisecond."""
    seconds, micros = store.client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=micros // 1000)


def _local(at: datetime | None, tz: str) -> str:
    return "" if at is None else at.astimezone(Cron("", tz).zone).strftime("%Y-%m-%d %H:%M:%S %z")
