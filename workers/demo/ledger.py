"""Which step body ran when, written down outside of Redis: a line when it starts and a line when it ends.

So the demo can check what flowlib claims without asking flowlib. A body that is killed leaves a start without an end.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from flowlib.capture import RunFilter

P = ParamSpec("P")
T = TypeVar("T")

START, RETURNED = "start", "returned"

log = logging.getLogger(__name__)
log.propagate = False


@dataclass(frozen=True)
class Line:
    run: str
    step: str
    attempt: int
    pid: int
    what: str  # START, RETURNED, or the name of the exception that ended the body


def keep_ledger(path: Path) -> None:
    """From now on this process writes to `path`, line by line; several processes may."""
    handler = logging.FileHandler(path)
    handler.addFilter(RunFilter())
    handler.setFormatter(logging.Formatter("%(run)s\t%(step)s\t%(attempt)s\t%(process)d\t%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def witnessed(fn: Callable[P, T]) -> Callable[P, T]:
    """The same step function, which now leaves its lines in the ledger."""

    @functools.wraps(fn)
    def body(*args: P.args, **kwargs: P.kwargs) -> T:
        log.info(START)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            log.info(type(error).__name__)
            raise
        log.info(RETURNED)
        return result

    return body


def read_ledger(path: Path) -> list[Line]:
    lines = []
    for text in path.read_text().splitlines():
        run, step, attempt, pid, what = text.split("\t")
        lines.append(Line(run, step, int(attempt), int(pid), what))
    return lines
