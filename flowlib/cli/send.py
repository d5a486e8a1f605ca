"""`flow send`."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import datetime
from typing import Any

import click

from flowlib.app import App
from flowlib.errors import NotFound, RunCancelled, RunFailed
from flowlib.model import UNSENT, Event
from flowlib.readable import jsonable
from flowlib.store import Store

from .bulk import send_lines
from .connection import connected, find_url, load_app, runs_of
from .functions import declared, is_on
from .options import Moment, as_json, redis_url
from .output import print_json
from .payload import parse_json, read_data

PATIENCE = 1.0  # seconds for runs to start: long for workers that are idle, short for a person


@click.command("send")
@click.argument("name", required=False)
@click.option("--data", metavar="JSON|@FILE|-", help="- reads standard input. Default: {}.")
@click.option("--id", "event_id", default="", help="Makes it idempotent: each function starts once per id.")
@click.option("--ts", type=Moment(), help="When it happened. Default: now.")
@click.option("--app", metavar="MODULE:APP", envvar="FLOW_APP", help="Check the data against its types.")
@click.option("--wait", is_flag=True, help="Wait for the runs to end, and show their results.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long at most.")
@click.option("--stdin", is_flag=True, help="Many events: a line each, {name, data, id, ts} or, with NAME, data.")
@redis_url
@as_json
def command(
    name: str | None, data: str | None, event_id: str, ts: datetime | None, app: str | None, wait: bool,
    timeout: float | None, stdin: bool, redis_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Send an event, and tell which runs it starts.

    \b
    flow send api/contact_list.uploaded --data '{"key": "2026/list.csv"}' --id upload-17
    flow send --stdin < events.jsonl
    """
    if stdin and (data is not None or event_id or ts or wait):
        raise click.UsageError("--stdin goes with NAME and --app only: each line says its own data, id and ts")
    if not stdin and name is None:
        raise click.UsageError("say the event's NAME, or --stdin for many")
    sender = load_app(app) if app else App("cli")
    url = find_url(redis_url, sender if app else None)
    event = None if stdin else Event(name or "", parse_json(*read_data(data)), event_id, ts or UNSENT)
    with connected(url) as store:
        sender.connect(store=store)
        if event is None:
            sent = send_lines(sender, name, sys.stdin.buffer)
            print_json({"sent": sent}) if as_json else click.echo(f"{sent} events are sent")
            return
        _Sending(store, event, as_json).send(sender, wait, timeout)


class _Sending:
    """One event and what comes of it."""

    def __init__(self, store: Store, event: Event[Any], as_json: bool) -> None:
        self._event = event
        self._as_json = as_json
        self._runs = runs_of(store)
        expected = [function for function in declared(store) if is_on(function, event.name)]
        self._expected = len(expected)
        self._may_be_fewer = any(function.get("asks") for function in expected)

    def send(self, app: App, wait: bool, timeout: float | None) -> None:
        before = self._runs.of_event(self._event.id) if self._event.id else []
        event_id = app.send(self._event)
        if not self._as_json:
            click.echo(f"event {event_id} is sent")
        patience = PATIENCE if not wait or self._may_be_fewer else math.inf if timeout is None else timeout
        runs = self._started(event_id, patience)
        if wait:
            self._tell_results(event_id, runs, timeout)
        elif self._as_json:
            print_json({"event": event_id, "runs": runs})
        else:
            self._tell_runs(runs, before)

    def _started(self, event_id: str, patience: float) -> list[str]:
        """The runs that the event has started: one for each function that waits for it, or those after a while."""
        deadline = time.monotonic() + patience
        while len(runs := self._runs.of_event(event_id)) < self._expected and time.monotonic() < deadline:
            time.sleep(0.02)
        return runs

    def _tell_runs(self, runs: list[str], before: list[str]) -> None:
        name = self._event.name
        for run in runs:
            again = "  (this event id has started it before)" if run in before else ""
            click.echo(f"run {run}  {self._runs.get(run).function}{again}")
        if not self._expected:
            click.echo(f"no worker has declared a function on {name!r} yet: see `flow functions`", err=True)
        elif len(runs) < self._expected:
            click.echo(
                f"{len(runs)} of {self._expected} runs have started yet: is a worker up? `flow doctor`", err=True
            )

    def _tell_results(self, event_id: str, runs: list[str], timeout: float | None) -> None:
        if not runs:
            raise NotFound(f"event {event_id} was sent, but has started no run: is a worker up? `flow doctor`")
        ended: list[dict[str, Any]] = []
        failure: RunFailed | RunCancelled | None = None
        for run in runs:
            try:
                ended.append({"id": run, "result": jsonable(self._runs.result(run, timeout))})
            except (RunFailed, RunCancelled) as error:
                ended.append({"id": run, "error": str(error)})
                failure = error
        if self._as_json:
            print_json({"event": event_id, "runs": ended})
        else:
            for each in ended:
                click.echo(
                    f"run {each['id']}  " + (each.get("error") or f"→ {json.dumps(each['result'], ensure_ascii=False)}")
                )
        if failure is not None:
            raise failure
