"""What step bodies did, kept outside Redis: one line per start and end, appended in one write, so that no kill tears it.

Before a body starts it looks whether its memo is there already; that must never be, and is noted as `again`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowlib import AsyncStep, Step
from flowlib.address import connect
from flowlib.keys import Keys
from flowlib.store import RedisError

START, END, AGAIN = "start", "end", "again"
PATH, URL = "CRASH_LEDGER", "FLOW_REDIS_URL"


@dataclass(frozen=True)
class Line:
    word: str
    run: str
    step: str
    attempt: int


class Ledger:
    """The file named by CRASH_LEDGER; `Ledger(path)` reads another's."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(os.environ[PATH])

    def write(self, *words: object) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, (" ".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    def lines(self) -> list[Line]:
        if not self.path.exists():
            return []
        return [
            Line(word, run, step, int(attempt))
            for word, run, step, attempt in map(str.split, self.path.read_text().splitlines())
        ]


@contextmanager
def noted(face: Step | AsyncStep, step: str) -> Iterator[None]:
    """Around a step's body."""
    ledger = Ledger()
    with suppress(RedisError), connect(os.environ[URL]) as client:  # without Redis there is nothing to look at
        if client.hexists(Keys().memo(face.run_id), f"1:{step}"):
            ledger.write(AGAIN, face.run_id, step, face.attempt)
    ledger.write(START, face.run_id, step, face.attempt)
    yield
    ledger.write(END, face.run_id, step, face.attempt)
