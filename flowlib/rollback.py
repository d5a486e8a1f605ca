"""What undoes the steps of a run that fails or is cancelled: which calls those are, in which order, and how the run then ends.

A run that is to be undone has a memo that says so, `ENDING` (lib/undo.lua). Whoever has its job then *rewinds*: replays the
function over its memos, to learn what it registers, and stops it at the first step that is not recorded. Then each undo is a
step like any other.
Knows no Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from .codec import decode
from .errors import Interrupt, StepFailed
from .model import ErrorInfo, Memo

log = logging.getLogger("flowlib.engine")


class Rollback:
    """Of one run, alive in this process."""

    def __init__(self, run_id: str) -> None:
        self.rewinding = False
        self.ended_by: BaseException | None = None  # what the function was rewound to
        self._run_id = run_id
        self._undos: list[tuple[str, Callable[[str], Any]]] = []

    def register(self, fn: Callable[..., object], run: Callable[[str], Any]) -> str:
        """The name of its step; `run` asks for that."""
        name = f"undo {getattr(fn, '__name__', type(fn).__name__)}"
        same = sum(id.partition(" #")[0] == name for id, _ in self._undos)
        self._undos.append((f"{name} #{same + 1}" if same else name, run))
        return self._undos[-1][0]

    @contextmanager
    def rewind(self) -> Iterator[None]:
        """Around the function, which ends here in any way."""
        self.rewinding = True
        try:
            yield
        except BaseException as error:
            self.ended_by = error
            log.debug("run %s: rewound, to %r", self._run_id, error)
        self.rewinding = False

    def lacks(self, recorded: int) -> int:
        """How many of those that had been registered the function has not come to this time."""
        return max(0, recorded - len(self._undos))

    def keep_apart(self, ids: Container[str]) -> None:
        """From the steps that the function itself calls so."""
        self._undos = [(f"{id} (rollback)" if id in ids else id, run) for id, run in self._undos]

    def stop(self, *, unless: bool = False) -> None:
        """So far had the function come."""
        if self.rewinding and not unless:
            raise Interrupt

    def undo(self) -> None:
        for id, run in reversed(self._undos):
            with self._undoing():
                run(id)

    async def undo_async(self) -> None:
        for id, run in reversed(self._undos):
            with self._undoing():
                await run(id)

    @contextmanager
    def _undoing(self) -> Iterator[None]:
        """One that fails for good keeps no other from being undone."""
        try:
            yield
        except StepFailed as failed:
            log.error("run %s: it is not undone: %s", self._run_id, failed)


def read_ending(memo: Memo) -> dict[str, Any]:
    """What `HeldJob.finish` takes."""
    told = decode(memo.value)
    error = told.get("error")
    return {"status": told["status"], "error": None if error is None else ErrorInfo.from_dict(error)}
