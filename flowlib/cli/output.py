"""How things are shown: tables and times for people, documents for programs.

What users sent or logged is shown as it is, never read as markup.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowlib.codec import decode, jsonable
from flowlib.model import Attempt, ErrorInfo, Memo, Run, StepRecord

PIPED_WIDTH = 200  # where no terminal says how wide it is, nothing that matters is to be cut

STYLES = {
    "completed": "green", "failed": "red", "cancelled": "magenta", "running": "cyan", "retrying": "yellow",
    "queued": "yellow", "sleeping": "blue", "ok": "green", "warn": "yellow", "fail": "red",
}  # fmt: skip


def console() -> Console:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], elastic: str = "") -> None:
    """Every column as wide as it needs; when the terminal is too narrow, the `elastic` one gives way first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, no_wrap=True, overflow="ellipsis", ratio=1 if head == elastic else None)
    for row in rows:
        table.add_row(*row)
    screen = console()
    with screen.capture() as drawn:
        screen.print(table)
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def status(run: Run) -> Text:
    """What became of a run, or what it does right now."""
    word = run.state if run.status == "running" else run.status
    return Text(word, STYLES.get(word, ""))


def took(seconds: float) -> str:
    """A length of time, with as many digits as a person wants."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    if hours < 1:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(hours)} h {int(minutes % 60)} min" if hours < 48 else f"{hours / 24:.1f} d"


def ago(when: datetime) -> str:
    seconds = (datetime.now(UTC) - when).total_seconds()
    return "now" if abs(seconds) < 1 else f"{took(seconds)} ago" if seconds > 0 else f"in {took(-seconds)}"


def clock(at: float) -> str:
    """Local time of day, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")[11:23]


def iso(at: datetime | float | None) -> str | None:
    if at is None:
        return None
    when = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- documents ---------------------------------------------------------------------------------------------------------


def run_document(run: Run) -> dict[str, Any]:
    return {
        "id": run.id, "app": run.app, "function": run.function, "status": run.status, "state": run.state,
        "event": {"name": run.event.name, "id": run.event.id, "ts": iso(run.event.ts)},
        "created": iso(run.created), "ended": iso(run.ended), "result": jsonable(run.result),
        "error": error_document(run.error), "reason": run.reason, "step": run.step, "attempt": run.attempt,
        "recorded": run.recorded, "memo_bytes": run.memo_bytes, "dropped": run.dropped,
    }  # fmt: skip


def step_document(step: StepRecord, memo: Memo | None) -> dict[str, Any]:
    return {
        "id": step.id, "kind": step.kind, "status": step.status, "until": iso(step.until), "bytes": step.bytes,
        "attempts": [_attempt_document(attempt) for attempt in step.attempts],
        "output": jsonable(decode(memo.value)) if memo is not None and memo.error is None else None,
        "error": error_document(memo.error) if memo is not None else None,
    }  # fmt: skip


def _attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number, "queued": iso(attempt.queued), "started": iso(attempt.started),
        "ended": iso(attempt.ended), "outcome": attempt.outcome, "worker": attempt.worker,
        "retry_at": iso(attempt.retry_at), "error": error_document(attempt.error),
    }  # fmt: skip


def error_document(error: ErrorInfo | None) -> dict[str, Any] | None:
    return None if error is None else error.as_dict()
