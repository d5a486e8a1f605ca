"""`python -m tests.crash.wrong_clock SECONDS flow ARGUMENT…`: the command in a process whose clock is wrong by so much.

All that asks Python for the time of day is misled, what measures durations is not. Imports nothing but the standard
library before the clock is wrong.
"""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any

_RIGHT = datetime.datetime


class _Lenient(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _RIGHT)


def shift(seconds: float) -> None:
    """From now on. What has been imported `from time` or `from datetime` before goes right."""
    right, right_ns = time.time, time.time_ns

    class Shifted(_RIGHT, metaclass=_Lenient):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    setattr(time, "time", lambda: right() + seconds)  # noqa: B010 — mypy lets nobody assign to a function
    setattr(time, "time_ns", lambda: right_ns() + int(seconds * 1e9))  # noqa: B010
    setattr(datetime, "datetime", Shifted)  # noqa: B010


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    from flowlib.cli import main

    main(sys.argv[3:])
