"""Whose turn it is, of all that the coroutines of an async function wait for: one after the other, as it was recorded.

Pure: no Redis, no RQ, no clock, no randomness. What is recorded, and in which order, is told by the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from .attempt import Known, StepCall


@dataclass(slots=True, eq=False)
class Awaited:
    """What a coroutine is held up by, or a timer that is set; `deliver` lets it go on."""

    call: StepCall | Known
    deliver: Callable[[], None]
    is_timer: bool = False


class Turns:
    """In the order in which they were asked for. What is recorded is looked at once, however many wait."""

    def __init__(self) -> None:
        self._awaited: dict[Awaited, int] = {}  # and which of all it was
        self._fresh: list[Awaited] = []  # not looked at yet
        self._open: dict[str, list[Awaited]] = {}  # by the key of the step
        self._recorded: list[tuple[int, int, Awaited]] = []  # a heap: by the place of the record, then as asked for
        self._asked = self._known = 0

    def __iter__(self) -> Iterator[Awaited]:
        return iter(self._awaited)

    def add(self, awaited: Awaited) -> None:
        self._asked += 1
        self._awaited[awaited] = self._asked
        self._fresh.append(awaited)

    def discard(self, awaited: Awaited) -> None:
        self._awaited.pop(awaited, None)

    def take(self, memos: dict[str, Any], order: dict[str, int]) -> Awaited | None:
        """The next whose step is recorded, if there is one: what was recorded side by side comes in its `order`, behind all
        else. `memos` only grow.
        """
        self._sort(memos, order)
        while self._recorded:
            awaited = heappop(self._recorded)[2]
            if self._awaited.pop(awaited, None) is not None:
                return awaited
        return None

    def _sort(self, memos: dict[str, Any], order: dict[str, int]) -> None:
        recorded: list[Awaited] = []
        for key in islice(reversed(memos), len(memos) - self._known):
            recorded += self._open.pop(key, ())
        self._known = len(memos)
        for awaited in self._fresh:
            if awaited.call.open:
                self._open.setdefault(awaited.call.key, []).append(awaited)
            else:
                recorded.append(awaited)
        self._fresh.clear()
        for awaited in recorded:
            if (number := self._awaited.get(awaited)) is not None:
                heappush(self._recorded, (order.get(awaited.call.key, -1), number, awaited))
