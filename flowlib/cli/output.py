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
from rich.text import Text

from flowlib.codec import decode
from flowlib.model import Attempt, ErrorInfo, Memo, Run, StepRecord, WaitRecord
from flowlib.readable import jsonable
from flowlib.sealed import veiled

PIPED_WIDTH = 200  # where no terminal says how wide it is, nothing that matters is to be cut
GAP, NARROWEST = "  ", 8  # between columns, and an elastic one of less is of no use

STYLES = {
    "completed": "green", "failed": "red", "cancelled": "magenta", "running": "cyan", "retrying": "yellow",
    "queued": "yellow", "sleeping": "blue", "waiting": "blue", "parked": "magenta",
    "ok": "green", "warn": "yellow", "fail": "red",
}  # fmt: skip


def console() -> Console:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], elastic: Sequence[str] = ()) -> None:
    """Every column as wide as it needs. In a terminal that is too narrow the elastic ones shrink, and then are left out."""
    lines = [[Text(head, "bold") for head in heads]]
    lines += [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = {head: max(line[at].cell_len for line in lines) for at, head in enumerate(heads)}
    screen = console()
    while (over := sum(widths.values()) + len(GAP) * (len(widths) - 1) - screen.width) > 0:
        widest = max((head for head in elastic if head in widths), key=lambda head: widths[head], default=None)
        if widest is None:
            break
        widths[widest] -= over
        if widths[widest] < NARROWEST:
            del widths[widest]
    for line in lines:
        shown = [(cell, widths[head]) for head, cell in zip(heads, line, strict=True) if head in widths]
        for cell, width in shown:
            cell.truncate(width, overflow="ellipsis", pad=True)
        whole = Text(GAP).join(cell for cell, _ in shown)
        whole.rstrip()
        screen.print(whole, soft_wrap=True)


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
    if seconds < 3600:
        return f"{int(seconds / 60)}m {int(seconds % 60)}s"
    return f"{int(seconds / 3600)}h {int(seconds / 60 % 60)}m" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


def ago(when: datetime) -> str:
    """In one unit: `20m ago`."""
    seconds = (datetime.now(UTC) - when).total_seconds()
    if seconds < 1:
        return "now"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


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
        "recorded": run.recorded, "memo_bytes": run.memo_bytes, "dropped": run.dropped, "retried": run.retried,
        "replay_of": run.replay_of or None, "replays": run.replays,
        "parent": run.parent or None,
    }  # fmt: skip


def step_document(step: StepRecord, memo: Memo | None) -> dict[str, Any]:
    return {
        "id": step.id, "kind": step.kind, "status": step.status, "until": iso(step.until), "bytes": step.bytes,
        "origin": step.origin or None, "wait": _wait_document(step.wait),
        "child": step.child or None,
        "attempts": [_attempt_document(attempt) for attempt in step.attempts],
        "output": jsonable(decode(memo.value, open=veiled)) if memo is not None and memo.error is None else None,
        "error": error_document(memo.error) if memo is not None else None,
    }  # fmt: skip


def _wait_document(wait: WaitRecord | None) -> dict[str, Any] | None:
    if wait is None:
        return None
    return {
        "event": wait.event, "match": json.loads(wait.match), "since": iso(wait.since), "timeout": wait.timeout,
        "found": wait.found, "timed_out": wait.timed_out,
    }  # fmt: skip


def _attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number, "queued": iso(attempt.queued), "started": iso(attempt.started),
        "ended": iso(attempt.ended), "outcome": attempt.outcome, "worker": attempt.worker,
        "retry_at": iso(attempt.retry_at), "error": error_document(attempt.error),
    }  # fmt: skip


def error_document(error: ErrorInfo | None) -> dict[str, Any] | None:
    return None if error is None else error.as_dict()
