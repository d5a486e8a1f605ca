"""What a function has asked for side by side and has not got yet, in the order in which it asked.

Pure: no Redis, no RQ, no clock, no randomness. Who does what of it, and where, is the frame's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .attempt import StepCall
from .face import MOST_OPEN
from .wait import Due


def _inline(_: Any) -> None:
    raise AssertionError("its body runs where the function has called it")


@dataclass(slots=True)
class Wanted:
    call: StepCall
    due: Due | None
    body: Callable[[Any], None] = _inline


class Wants:
    def __init__(self) -> None:
        self._asked: dict[str, Wanted] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked)

    def add(self, wanted: Wanted) -> None:
        self._asked[wanted.call.op.key] = wanted

    def get(self, key: str) -> Wanted | None:
        return self._asked.get(key)

    def calls(self) -> list[StepCall]:
        return [wanted.call for wanted in self._asked.values()]

    def drop(self, calls: Iterable[StepCall]) -> None:
        for call in calls:
            self._asked.pop(call.op.key, None)

    def held_up_by(self, call: StepCall) -> list[Wanted]:
        """What may be open now: that call first, then the others, as they were asked for."""
        first = self._asked[call.op.key]
        found, over = [first], list[str]()
        for key, wanted in self._asked.items():
            if not wanted.call.open:
                over.append(key)
            elif wanted is not first:
                found.append(wanted)
                if len(found) > MOST_OPEN:
                    break
        for key in over:
            del self._asked[key]
        return found
