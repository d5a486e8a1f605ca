"""`flow send --stdin`: many events, a line each. All lines are read and checked before the first event is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import redis

from flowlib.app import App
from flowlib.errors import PayloadError, ServerError
from flowlib.model import UNSENT, Event

from .payload import parse_json

T = TypeVar("T")

BATCH = 500
MOST_ERRORS = 5
FIELDS = {"name", "data", "id", "ts"}


def send_lines(app: App, name: str | None, lines: Iterable[bytes]) -> int:
    """How many were sent. Raises PayloadError, and then none was."""
    ready: list[Any] = []
    wrong: list[str] = []
    for number, line in enumerate(_progress(lines, "reading"), 1):
        if line.strip():
            where = f"line {number}"
            try:
                ready.append(app.prepare(_event(parse_json(line, where), name, where), f"{where}: "))
            except PayloadError as error:
                wrong.append(str(error))
    if wrong:
        more = f"; and {len(wrong) - MOST_ERRORS} more" if len(wrong) > MOST_ERRORS else ""
        raise PayloadError("nothing was sent: " + "; ".join(wrong[:MOST_ERRORS]) + more)
    batches = [ready[at : at + BATCH] for at in range(0, len(ready), BATCH)]
    for number, batch in enumerate(_progress(batches, "sending")):
        try:
            app.store.send_events(batch)
        except (ServerError, redis.RedisError) as error:
            raise ServerError(f"{number * BATCH} of {len(ready)} events were sent, then: {error}") from None
    return len(ready)


def _event(line: Any, name: str | None, where: str) -> Event[Any]:
    if name is not None:
        return Event(name, line)
    if not isinstance(line, dict) or "name" not in line or line.keys() - FIELDS:
        raise PayloadError(f"{where}: an event is an object with name, and data, id or ts if need be; or say NAME")
    return Event(line["name"], line.get("data", {}), line.get("id", ""), _stamp(line.get("ts"), where))


def _stamp(said: Any, where: str) -> datetime:
    if said is None:
        return UNSENT
    try:
        return datetime.fromisoformat(said).astimezone()
    except (TypeError, ValueError, OverflowError):
        raise PayloadError(f"{where}: ts {said!r} is no ISO time, like 2026-11-22T18:30:00Z") from None


def _progress(items: Iterable[T] | Sequence[T], doing: str) -> Iterator[T]:
    """A bar on standard error, for whoever sits before it."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    total = len(items) if isinstance(items, Sequence) else None
    yield from track(items, doing, total=total, console=Console(stderr=True), transient=True)
