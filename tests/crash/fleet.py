"""Worker processes for crash tests, which note what they do in a ledger."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowlib.testing import run_worker
from tests import access
from tests.forks import Fork, command

from . import ledger

ROOT = Path(__file__).parents[2]


class Forked(Fork):
    """A process of the fleet. What it writes is in a log beside `notes`, where its step bodies note what they do."""

    def __init__(self, work: Callable[..., None], notes: Path, *args: Any, ledger_url: str = "") -> None:
        environment = {**os.environ, ledger.PATH: str(notes), ledger.URL: ledger_url}
        super().__init__(work, *args, environment=environment, out=Path(f"{notes}.log"))


class WorkerProcess(Forked):
    """One worker of the app at MODULE:APP. It may do no more than deploy/redis.conf lets it, on a server that knows of that."""

    def __init__(self, location: str, url: str, notes: Path, **settings: Any) -> None:
        looks_at = settings.pop("ledger_url", url)
        super().__init__(_work, notes, location, access.limited(url), settings, ledger_url=looks_at)


class CommandProcess(Forked):
    """`flow` or `rq` with these arguments, and the processes that it starts."""

    def __init__(self, program: str, arguments: list[str], notes: Path) -> None:
        super().__init__(_command, notes, program, arguments)

    @property
    def children(self) -> list[int]:
        """Empty where the system does not say it in this way."""
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        return []


def _work(location: str, url: str, settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    run_worker(location, url, **settings)


def _command(program: str, arguments: list[str]) -> None:
    os.chdir(ROOT)
    command(program, arguments)
