"""What a function has asked for side by side and has not got yet, in the order in which it asked.

Pure: no Redis, no RQ, no clock, no randomness. Who does what of it, and where, is the frame's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .attempt import StepCall
from .wait import Due

MOST_OPEN = 100  # steps of a run that are open at a time, but for what holds the function up


def _inline(_: Any) -> None:
    raise AssertionError("its body runs where the function has called it")


@dataclass(slots=True)
class Wanted:
    """`limit` is how many of its group, the steps whose ids differ by an index only, may be open at a time."""

    call: StepCall
    due: Due | None
    body: Callable[[Any], None] = _inline
    limit: int | None = None


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
        """What may be open now: that call first, then as many others, as they were asked for, as their limits allow."""
        self._asked = {key: wanted for key, wanted in self._asked.items() if wanted.call.open}
        first = self._asked[call.op.key]
        groups: dict[str, int] = {}
        chosen = [first]
        for wanted in self._asked.values():
            group = group_of(wanted.call.op.id)
            count = groups.get(group, 0)
            if wanted.limit is not None and count >= wanted.limit:
                continue
            groups[group] = count + 1
            if wanted is not first:
                chosen.append(wanted)
            if len(chosen) > MOST_OPEN:
                break
        return chosen


def group_of(step_id: str) -> str:
    """What comes before the index of `enrich[17]`."""
    return step_id.partition("[")[0]
