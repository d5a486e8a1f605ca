"""The workload of every system: ten steps that read the last one's dict, leave a time mark, and return about 100 bytes.

Both ends of the marks' file: `advance` writes it in the worker's process, `Marks` reads it in the benchmark's. Knows no
system, and imports nothing that is not Python's own: it runs under the interpreters of all of them.
"""

from __future__ import annotations

import os
import struct
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

STEPS = 10
MARKS_VARIABLE = "BENCH_MARKS"
URL_VARIABLE = "BENCH_URL"  # of the server that the system keeps its work in

_MARK = struct.Struct("=dII")  # 16 bytes: when (the system-wide monotonic clock), run, step


def start_of(run: int) -> dict[str, Any]:
    """What the first step of a run reads."""
    return {"run": run, "step": 0, "text": "x" * 70}


def advance(previous: dict[str, Any]) -> dict[str, Any]:
    """The body of every step."""
    run, step = previous["run"], previous["step"] + 1
    os.write(_marks_file(), _MARK.pack(time.monotonic(), run, step))
    return {"run": run, "step": step, "text": previous["text"]}


def url() -> str:
    return os.environ[URL_VARIABLE]


@cache
def _marks_file() -> int:
    return os.open(os.environ[MARKS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Mark(NamedTuple):
    at: float
    run: int
    step: int


class Marks:
    """The file that the workers write, one mark for each body that was run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    @property
    def count(self) -> int:
        return self.path.stat().st_size // _MARK.size

    def read(self, start: int = 0) -> list[Mark]:
        with self.path.open("rb") as file:
            file.seek(start * _MARK.size)
            return [Mark(*fields) for fields in _MARK.iter_unpack(file.read())]
