"""A run's history as steps and attempts: what waited, ran, failed, backed off and slept, and when.

Pure: entries in, records out. A history that lost its beginning to its bound gives what can still be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .journal import ENTRY, id_of, is_step
from .model import CANCELLED, COMPLETED, FAILED, Attempt, ErrorInfo, HistoryEntry, StepRecord, WaitRecord


@dataclass(slots=True)
class _Building:
    kind: str = "run"
    status: str = "queued"
    queued: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    until: float | None = None
    bytes: int = 0
    wait: WaitRecord | None = None
    origin: str = ""
    child: str = ""

    def close(self, at: float, outcome: str, **more: Any) -> None:
        if self.attempts and self.attempts[-1].ended is None:
            self.attempts[-1] = replace(self.attempts[-1], ended=at, outcome=outcome, **more)

    def ordered(self, entry: HistoryEntry) -> None:
        """Somebody has had its failure forgotten, or had this run begin with its memo."""
        if entry.kind == "retried":
            self.status = "queued"
        else:
            self.status, self.bytes = _ended(entry.detail), entry.detail["bytes"]
            self.origin = "given" if "given" in entry.detail else "kept"

    def end(self, run: HistoryEntry) -> None:
        """The run has ended, and with it what was still open: a step that failed with its run, or was not asked for again."""
        if self.status in (COMPLETED, FAILED):
            return
        failed = run.kind == FAILED and self.status == "running"
        if failed:
            self.close(run.at, FAILED, error=ErrorInfo.from_dict(run.detail["error"]))
        self.close(run.at, CANCELLED)
        self.status = FAILED if failed else CANCELLED


def steps_of(history: Iterable[HistoryEntry]) -> tuple[StepRecord, ...]:
    """One record per step in the order in which they came up; the call that found the first step is left out."""
    building: dict[str, _Building] = {}
    for entry in history:
        if _ends_run(entry):
            for step in building.values():
                step.end(entry)
        elif entry.kind != "log" and is_step(entry.step) and entry.step != ENTRY:
            _take(building.setdefault(entry.step, _Building(queued=entry.at)), entry)
    return tuple(
        StepRecord(id_of(key), b.kind, b.status, tuple(b.attempts), b.until, b.bytes, b.wait, b.origin, b.child)
        for key, b in building.items()
    )


def _ends_run(entry: HistoryEntry) -> bool:
    return entry.kind in (COMPLETED, CANCELLED) or (entry.kind == FAILED and "level" not in entry.detail)


def _take(step: _Building, entry: HistoryEntry) -> None:
    detail = entry.detail
    step.kind = detail.get("kind", step.kind)
    if entry.kind in ("retried", "kept"):
        step.ordered(entry)
    if step.status in (COMPLETED, FAILED):
        return  # its job came back only to call the function again, after an error between steps
    match entry.kind:
        case "queued" | "recovered":
            # else still open when the function asked for another step first, and now asks for this one again
            step.close(entry.at, "lost" if entry.kind == "recovered" else "superseded")
            step.status, step.queued = "queued", entry.at
        case "claimed":
            waited = float(detail.get("waited") or 0.0)
            step.close(entry.at, "superseded")
            step.attempts.append(Attempt(entry.attempt, entry.at - waited, entry.at, worker=entry.worker))
            step.status = "running"
        case "sleeping":
            step.status, step.until = "sleeping", float(detail["until"]) / 1000
        case "waiting":
            step.attempts.clear()  # an event that was not the one
            step.status, step.until = "waiting", float(detail["until"]) / 1000
            step.child, step.wait = detail.get("child", ""), _wait_of(detail)
        case "failed":  # the step, or the function before it came to the step
            error = ErrorInfo.from_dict(detail["error"])
            step.close(entry.at, detail["outcome"], error=error, retry_at=detail["retry_at"] / 1000)
            step.status = "retrying"
        case "recorded" if "event" in detail:  # what it has waited for; no worker had a hand in it
            step.status, step.bytes = _ended(detail), detail["bytes"]
            step.wait = step.wait and replace(step.wait, found=detail["event"])
        case "recorded":
            step.wait = step.wait and replace(step.wait, timed_out=True)
            final = ErrorInfo.from_dict(detail["error"]) if "error" in detail else None
            if (
                not step.attempts or step.attempts[-1].ended is not None
            ):  # in place, and over before anybody could see it
                began = entry.at - (detail["seconds"] or 0.0)
                step.attempts.append(Attempt(entry.attempt, began, began, worker=entry.worker))
            step.close(entry.at, detail["outcome"], error=final)
            step.status, step.bytes = _ended(detail), detail["bytes"]
        case "lost" | "released" | "parked" | "dropped":  # dropped: another has won the race
            step.close(entry.at, CANCELLED if entry.kind == "dropped" else entry.kind)
            step.status = CANCELLED if entry.kind == "dropped" else "queued"


def _wait_of(detail: Mapping[str, Any]) -> WaitRecord | None:
    """For an event; else it is for a child, or a promise."""
    if "event" not in detail:
        return None
    since = None if detail.get("since") is None else float(detail["since"]) / 1000
    return WaitRecord(detail["event"], detail["match"], detail["timeout"] / 1000, since)


def _ended(detail: Mapping[str, Any]) -> str:
    return COMPLETED if detail["outcome"] == "ok" else FAILED
