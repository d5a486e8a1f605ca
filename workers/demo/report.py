"""What the demo shows at its end, and the checks that decide its exit code."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flowlib import Run
from workers.demo.ledger import RETURNED, START, Line


@dataclass
class Checks:
    console: Console
    failed: list[str] = field(default_factory=list)

    def check(self, holds: bool, claim: str) -> None:
        self.console.print(f"  [green]✓[/] {claim}" if holds else f"  [red]✗ {claim}[/]")
        if not holds:
            self.failed.append(claim)


def show_attempts(console: Console, run: Run, ledger: Iterable[Line], workers: dict[int, str]) -> None:
    """What each step did in which attempt: by the run's record, and by the ledger which worker's body began."""
    began = Counter((line.step, line.attempt, line.pid) for line in ledger if line.what == START and line.run == run.id)
    table = Table("step", "attempt", "outcome", "seconds", "error", "bodies begun", title=f"Attempts of run {run.id}")
    for step in run.steps:
        for attempt in step.attempts:
            bodies = [
                f"{workers.get(pid, pid)}" + (f" x{times}" if times > 1 else "")
                for (name, number, pid), times in began.items()
                if (name, number) == (step.id, attempt.number)
            ]
            seconds = f"{attempt.ended - attempt.started:.2f}" if attempt.ended else ""
            error = f"{attempt.error.type}: {attempt.error.message}" if attempt.error else ""
            table.add_row(step.id, str(attempt.number), attempt.outcome, seconds, error[:60], ", ".join(bodies))
    console.print(table)


def started_again(recorded: set[str], ledger_before: list[Line], ledger_after: list[Line], run: str) -> set[str]:
    """The steps that had been recorded when the worker was killed, and whose bodies began once more afterwards."""
    later = ledger_after[len(ledger_before) :]
    return {line.step for line in later if line.run == run and line.what == START} & recorded


def returned_twice(ledger: list[Line], run: str) -> set[str]:
    returned = Counter(line.step for line in ledger if line.run == run and line.what == RETURNED)
    return {step for step, times in returned.items() if times > 1}


def count_contacts(crm: Path) -> tuple[int, int]:
    """All contacts in the CRM, and those with a zip code."""
    with closing(sqlite3.connect(crm)) as db:
        total, coded = db.execute("SELECT count(*), count(nullif(zip_code, '')) FROM contacts").fetchone()
        return total, coded


def show_mail(console: Console, mail: EmailMessage) -> None:
    console.print(f"\n[bold]To {mail['To']}: {mail['Subject']}[/]")
    lines = mail.get_content().splitlines()
    console.print("\n".join(f"  {line}" for line in lines[:8]), markup=False)
    if len(lines) > 8:
        console.print(f"  … {len(lines) - 8} more lines")
