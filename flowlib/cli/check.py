"""`flow check MODULE:APP`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import click

from flowlib.app import App
from flowlib.rehearsal import rehearse
from flowlib.store import Store

from .connection import connected, find_url, load_app
from .options import as_json, redis_url
from .output import print_json, print_table


@click.command("check")
@click.argument("location", metavar="MODULE:APP", envvar="FLOW_APP")
@redis_url
@as_json
def command(location: str, redis_url: str | None, as_json: bool) -> int:
    """Look which unfinished runs this code would break, before it is deployed; exit code 1 when there are any.

    Each unfinished run's function is replayed over what is recorded, up to where the run stands: another kind of operation
    under an id, a value that no longer fits its type, a function that is gone. No step runs and nothing is changed.
    """
    app = load_app(location)
    broken, checked = [], 0
    with connected(find_url(redis_url, app)) as store:
        app.connect(store=store)
        for run in _unfinished(store, app.name):
            found = _look(store, app, run)
            if found is not None:
                checked += 1
                broken += [found] if found["problem"] else []
    if as_json:
        print_json({"app": app.name, "checked": checked, "broken": broken})
    else:
        _tell(app, checked, broken)
    return 1 if broken else 0


def _unfinished(store: Store, app: str) -> Iterator[str]:
    """Each once, though the index may change meanwhile."""
    seen = set[str]()
    for member, _ in store.client.zscan_iter(store.keys.active(app), count=1000):
        run = member.decode()
        if run not in seen:
            seen.add(run)
            yield run


def _look(store: Store, app: App, run: str) -> dict[str, Any] | None:
    name = cast(bytes | None, store.client.hget(store.keys.run(run), "function"))
    if name is None:
        return None
    function = app.functions.get(name.decode())
    if function is None:
        found = "", f"app {app.name!r} has no function {name.decode()!r}: it would be parked"
    else:
        result = rehearse(store, function, run, app.hooks)
        if result is None:
            return None
        found = result
    return {"id": run, "function": name.decode(), "step": found[0], "problem": found[1]}


def _tell(app: App, checked: int, broken: list[dict[str, Any]]) -> None:
    if broken:
        rows = [(each["id"], each["function"], each["step"] or "(start)", each["problem"]) for each in broken]
        print_table(("RUN", "FUNCTION", "AT", "PROBLEM"), rows, elastic=("PROBLEM",))
    went = f"{len(broken)} would break" if broken else "none would break"
    click.echo(f"app {app.name}: {checked} unfinished runs, {went}", err=bool(broken))
