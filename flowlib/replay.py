"""A new run of another run's event: which memos it keeps, and which are put in their place.

Owns that decision, from the other run's history and memos. What a run then does with memos is as ever; nothing is run here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .codec import encode
from .errors import NotFound, PayloadError
from .journal import ENDING, RUN, id_of, is_step
from .middleware import Sealing
from .model import HistoryEntry, Memo
from .promise import settled_key
from .records import pack_memo, told

# The key of a memo, the memo, or b"" for the one that the other run has, and what the new run's history says of it.
Start = tuple[str, bytes, bytes]


class Original:
    """The run that is replayed: its history, oldest entry first, and the keys of its memos."""

    def __init__(
        self, run_id: str, history: Sequence[HistoryEntry], memos: Iterable[str], sealing: Sealing | None
    ) -> None:
        self._sealing = sealing
        self._run_id = run_id
        self._history = history
        self._memos = list(memos)
        self._kinds = {e.step: e.detail["kind"] for e in history if "kind" in e.detail}
        self._recorded = {entry.step: entry for entry in history if entry.kind in ("recorded", "kept")}
        self._keys: dict[str, str] = {}  # by the id that people see, in the order in which they came up
        for key in (*(entry.step for entry in history if entry.kind != "log"), *self._memos):
            if key and is_step(key):
                self._keys.setdefault(id_of(key), key)

    def memos(self, from_step: str | None, values: Mapping[str, Any]) -> list[Start]:
        """What had been recorded when that step first came up, if one is named, and `values`, by the step that would have
        returned them; in the order in which these steps came up. Raises NotFound and PayloadError.
        """
        given = {key: self._given(key, value) for key, value in ((self._key(step), values[step]) for step in values)}
        kept = [] if from_step is None else self._before(self._key(from_step))
        place = {entry.step: at for at, entry in enumerate(reversed(self._history))}
        keys = sorted({*kept, *given}, key=lambda key: -place.get(key, len(place)))
        return [given.get(key) or (key, b"", self._kept(key)) for key in keys]

    def _before(self, first: str) -> list[str]:
        if ENDING in self._memos:
            raise NotFound(
                f"run {self._run_id} has undone what it did before step {id_of(first)!r}, or is about to: there is nothing to "
                f"be kept: replay it from its start"
            )
        anew, came_up = {settled_key(first)}, False
        for entry in self._history:
            came_up = came_up or (entry.step == first and entry.kind != "log")
            if came_up and entry.kind in ("recorded", "noted", "kept"):
                anew.add(entry.step)
        if not came_up:
            raise NotFound(f"run {self._run_id}: its history does not go back to step {id_of(first)!r} any more")
        return [key for key in self._memos if key not in anew]

    def _key(self, step_id: str) -> str:
        if step_id not in self._keys:
            some = ", ".join(list(self._keys)[:20]) + (" …" if len(self._keys) > 20 else "")
            raise NotFound(
                f"run {self._run_id} has no step {step_id!r}: " + (f"it has {some}" if some else "it has none")
            )
        return self._keys[step_id]

    def _kept(self, key: str) -> bytes:
        entry = self._recorded.get(key)
        known = {} if entry is None else {name: entry.detail[name] for name in _TOLD if name in entry.detail}
        return told("kept", key, 0, "", {"bytes": 0, "outcome": "ok", "kind": self._kinds.get(key, RUN), **known})

    def _given(self, key: str, value: Any) -> Start:
        kind = self._kinds.get(key, RUN)
        if kind != RUN:
            raise PayloadError(
                f"step {id_of(key)!r} of run {self._run_id} is a {kind}: only what a step returns can be set"
            )
        encoded = encode(value, where=f"step {id_of(key)!r}")
        memo = pack_memo(Memo(encoded if self._sealing is None else self._sealing.seal(encoded), None, RUN))
        return key, memo, told("kept", key, 0, "", {"bytes": len(memo), "outcome": "ok", "kind": RUN, "given": True})


_TOLD = ("bytes", "outcome", "kind", "error", "given")
