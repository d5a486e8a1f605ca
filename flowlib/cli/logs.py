"""`flow logs RUN [-f]`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import cast

import click

from flowlib.errors import NotFound
from flowlib.journal import ENTRY, id_of
from flowlib.model import ENDED, HistoryEntry
from flowlib.store import Store

from .connection import connected, find_url, runs_of
from .lanes import START
from .lookup import find_run
from .options import as_json, redis_url, run_id
from .output import clock, iso

POLL = 0.2
COLOURS = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "bright_black", "PRINT": "blue"}


@click.command("logs")
@run_id
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--step", metavar="ID", help="Only what this step has logged.")
@redis_url
@as_json
def command(run_id: str, follow: bool, step: str | None, redis_url: str | None, as_json: bool) -> None:
    """Show what a run has logged and printed, attempt by attempt.

    RUN is a run's id, the beginning of one, or `last`. With --json each line is a document.
    """
    with connected(find_url(redis_url)) as store:
        reader = _Reader(store, find_run(store, run_id))
        writer = _JsonLines() if as_json else _Lines()
        for lost, entry in reader.entries(follow):
            if lost:
                writer.dropped(lost)
            if step is None or step == id_of(entry.step) or not entry.step:
                writer.write(entry)


class _Reader:
    """A run's history, each entry once. It is a list that may lose its head, so a place in it is counted from its birth."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._seen = 0

    def entries(self, follow: bool) -> Iterator[tuple[int, HistoryEntry]]:
        """Each entry, with how many before it are gone."""
        while True:
            status, dropped = self._state()
            entries = runs_of(self._store).history(self._run_id, max(0, self._seen - dropped))
            if self._state()[1] != dropped:
                continue  # the list has moved while it was read
            lost = max(0, dropped - self._seen)
            self._seen = max(self._seen, dropped) + len(entries)
            for entry in entries:
                yield lost, entry
                lost = 0
            if not follow or status in ENDED:
                return
            time.sleep(POLL)

    def _state(self) -> tuple[str, int]:
        key = self._store.keys.run(self._run_id)
        status, dropped = cast(list[bytes | None], self._store.client.hmget(key, "status", "dropped"))
        if status is None:
            raise NotFound(f"run {self._run_id!r} does not exist any more")
        return status.decode(), int(dropped or 0)


class _Lines:
    """For people: lines below the attempt that wrote them, and what became of it."""

    def __init__(self) -> None:
        self._attempt: tuple[str, int] | None = None

    def dropped(self, lost: int) -> None:
        click.secho(f"… {lost} of the oldest entries were dropped", fg="yellow")

    def write(self, entry: HistoryEntry) -> None:
        detail = entry.detail
        match entry.kind:
            case "log":
                self._log(entry)
            case "failed" if "level" in detail:
                what = "failed" if detail["level"] == "step" else f"the function failed after it, call {entry.attempt}"
                self._event(entry, f"{what}: {_error(entry)}; again at {clock(detail['retry_at'] / 1000)}", "red")
            case "recorded" if detail["outcome"] != "ok":
                self._event(entry, f"failed for good: {_error(entry)}", "red")
            case "lost":
                self._event(entry, f"its worker {entry.worker} is lost: queued again", "magenta")
            case "parked":
                self._event(entry, f"{entry.worker} does not know the function: parked", "magenta")
            case "released":
                self._event(entry, f"handed back by {entry.worker}: {detail.get('reason')}", "magenta")
            case "retried":
                what = f": again from {id_of(entry.step)}" if entry.step else ""
                self._end(entry, f"the run is retried{what}", "yellow")
            case "undoing":
                why = f": {detail['reason']}" if detail.get("reason") else ""
                self._event(entry, f"the run is {detail['status']}{why}: what it has done is undone first", "magenta")
            case "completed":
                self._end(entry, "the run has completed", "green")
            case "failed":
                self._end(entry, f"the run has failed: {_error(entry)}", "red")
            case "cancelled":
                reason = detail.get("reason")
                self._end(entry, "the run was cancelled" + (f": {reason}" if reason else ""), "magenta")

    def _log(self, entry: HistoryEntry) -> None:
        if self._attempt != (entry.step, entry.attempt):
            self._attempt = (entry.step, entry.attempt)
            click.secho(f"── {_step(entry)}, attempt {entry.attempt}, on {entry.worker}", fg="bright_black")
        level = str(entry.detail["level"])
        head = f"{clock(entry.at)} {level:<8} "
        text = str(entry.detail["text"]).replace("\n", "\n" + " " * len(head))
        click.echo(f"{clock(entry.at)} {click.style(f'{level:<8}', fg=COLOURS.get(level))} {text}")

    def _event(self, entry: HistoryEntry, what: str, colour: str) -> None:
        """What became of an attempt."""
        self._attempt = None
        attempt = "" if entry.detail.get("level") == "function" else f", attempt {entry.attempt}"
        click.secho(f"── {clock(entry.at)} {_step(entry)}{attempt}: {what}", fg=colour)

    def _end(self, entry: HistoryEntry, what: str, colour: str) -> None:
        click.secho(f"── {clock(entry.at)} {what}", fg=colour)


def _step(entry: HistoryEntry) -> str:
    return START if entry.step == ENTRY else id_of(entry.step)


def _error(entry: HistoryEntry) -> str:
    """In one line."""
    error = entry.detail.get("error") or {"type": "?", "message": ""}
    return f"{error['type']}: {error['message']}".partition("\n")[0]


class _JsonLines:
    """For programs: what was logged, and nothing else."""

    def dropped(self, lost: int) -> None:
        click.echo(json.dumps({"kind": "dropped", "entries": lost}))

    def write(self, entry: HistoryEntry) -> None:
        if entry.kind == "log":
            where = {"step": id_of(entry.step), "attempt": entry.attempt, "worker": entry.worker}
            click.echo(json.dumps({"kind": "log", "at": iso(entry.at), **where, **entry.detail}))
