"""What a slot remembers of the runs with many memos that it has played lately, so that a claim reads only the new ones.

The history is what changes are found by: it is only ever appended to, and names the step of each memo. It is asked for
what came after the last entry that is known, which must still be in its place: else the server has lost something, or the
history its beginning, and all memos are read again. Owns no decision of a run: it returns what Redis holds, or nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from flowlib.model import Memo
from flowlib.records import text, unpack_memo

MOST_BYTES = 8_000_000  # of memos, in each slot


@dataclass(slots=True)
class Recalled:
    """The memos of a run, and where they stand: `length` entries of history up to `mark`, `values` between its steps."""

    memos: dict[str, Memo]
    size: int
    values: bytes
    length: int
    mark: bytes

    def update(self, reply: list[Any], values: bytes) -> bool:
        """With what `read_news` replied. False: there is more that is new, or something is gone."""
        self.length, self.mark, many = reply[:3]
        for step, memo in zip(reply[3::2], reply[4::2], strict=True):
            key = text(step)
            if key not in self.memos:
                self.memos[key] = unpack_memo(memo)
                self.size += len(memo)
        return bool(len(self.memos) == many and self.values == values)


class Recollection:
    """The runs that were played last; for one thread at a time."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Recalled] = OrderedDict()
        self._bytes = 0

    def take(self, run: str) -> Recalled | None:
        known = self._runs.pop(run, None)
        if known is not None:
            self._bytes -= known.size
        return known

    def keep(self, run: str, known: Recalled) -> None:
        self._runs[run] = known
        self._bytes += known.size
        while self._bytes > MOST_BYTES:
            _, forgotten = self._runs.popitem(last=False)
            self._bytes -= forgotten.size
