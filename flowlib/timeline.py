"""A run's history as steps and attempts: what waited, ran, failed, backed off and slept, and when.

Pure: entries in, records out. A history that lost its beginning to its bound gives what can still be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .journal import ENTRY, SLEEP, id_of
from .model import Attempt, ErrorInfo, HistoryEntry, StepRecord

_CLOSED = {"lost": "lost", "released": "released", "cancelled": "cancelled"}


@dataclass(slots=True)
class _Building:
    kind: str = "run"
    status: str = "queued"
    queued: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    until: float | None = None
    bytes: int = 0

    def close(self, at: float, outcome: str, **more: Any) -> None:
        if self.attempts and self.attempts[-1].ended is None:
            self.attempts[-1] = replace(self.attempts[-1], ended=at, outcome=outcome, **more)


def steps_of(history: Iterable[HistoryEntry]) -> tuple[StepRecord, ...]:
    """One record per step in the order in which they came up; the call that found the first step is left out."""
    building: dict[str, _Building] = {}
    for entry in history:
        if entry.kind != "log" and entry.step != ENTRY:
            _take(building.setdefault(entry.step, _Building(queued=entry.at)), entry)
    return tuple(
        StepRecord(id_of(key), b.kind, b.status, tuple(b.attempts), b.until, b.bytes) for key, b in building.items()
    )


def _take(step: _Building, entry: HistoryEntry) -> None:
    detail = entry.detail
    step.kind = detail.get("kind", step.kind)
    if step.status in ("completed", "failed"):
        return  # its job came back only to call the function again, after an error between steps
    match entry.kind:
        case "queued" | "recovered":
            step.status, step.queued = "queued", entry.at
        case "claimed":
            waited = float(detail.get("waited") or 0.0)
            step.attempts.append(Attempt(entry.attempt, entry.at - waited, entry.at, worker=entry.worker))
            step.status = "running"
        case "sleeping":
            step.status, step.until = "sleeping", float(detail["until"]) / 1000
        case "failed" if detail.get("level") == "step":
            error = ErrorInfo.from_dict(detail["error"])
            step.close(entry.at, detail["outcome"], error=error, retry_at=detail["retry_at"] / 1000)
            step.status = "retrying"
        case "failed":
            step.close(entry.at, "ok")  # the step is recorded; it is the function that failed after it
        case "recorded":
            ok = detail["outcome"] == "ok"
            final = ErrorInfo.from_dict(detail["error"]) if "error" in detail else None
            step.close(entry.at, detail["outcome"], error=final)
            step.status, step.bytes = ("completed" if ok else "failed"), detail["bytes"]
        case "lost" | "released" | "cancelled":
            step.close(entry.at, _CLOSED[entry.kind])
            if step.status != "completed":
                step.status = "cancelled" if entry.kind == "cancelled" else "queued"


def is_sleep(step: StepRecord) -> bool:
    return step.kind == SLEEP
