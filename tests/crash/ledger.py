"""What step bodies did, kept outside Redis: one line per start and end, appended in one write, so that no kill tears it.

Before a body starts it looks whether its memo is there already; that must never be, and is noted as `again`. Where no
server is named to look at (a storm would notice little but the looking), the times of the lines tell as much: all
processes of a test, its server too, have one clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowlib import AsyncStep, Step
from flowlib.address import connect
from flowlib.keys import Keys
from flowlib.store import RedisError

START, END, RAISED, AGAIN = "start", "end", "raised", "again"
PATH, URL = "CRASH_LEDGER", "CRASH_LEDGER_URL"


@dataclass(frozen=True)
class Line:
    word: str
    run: str
    step: str
    attempt: int
    pid: int = 0
    at: float = 0.0


class Ledger:
    """The file named by CRASH_LEDGER; `Ledger(path)` reads another's."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(os.environ[PATH])

    def write(self, *words: object) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, ("\t".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    def lines(self) -> list[Line]:
        if not self.path.exists():
            return []
        return [
            Line(word, run, step, int(attempt), int(pid), float(at))
            for word, run, step, attempt, pid, at in (line.split("\t") for line in self.path.read_text().splitlines())
        ]


@contextmanager
def noted(face: Step | AsyncStep, step: str) -> Iterator[None]:
    """Around a step's body."""
    ledger = Ledger()

    def note(word: str) -> None:
        ledger.write(word, face.run_id, step, face.attempt, os.getpid(), f"{time.time():.6f}")

    if url := os.environ.get(URL):
        with suppress(RedisError), connect(url) as client:  # without Redis there is nothing to look at
            if client.hexists(Keys().memo(face.run_id), f"1:{step}"):
                note(AGAIN)
    note(START)
    try:
        yield
    except BaseException:
        note(RAISED)
        raise
    note(END)
