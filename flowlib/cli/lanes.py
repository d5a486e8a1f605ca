"""A run's history as lanes, one per step: what the step did, from when to when.

Pure: entries in, segments out. A history that lost its beginning to its bound gives what can still be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flowlib.journal import ENTRY, id_of
from flowlib.model import HistoryEntry

WAIT, OK, FAILED, LOST, BACKOFF, SLEEP, RUNNING = "queued", "ok", "failed", "lost", "back-off", "sleep", "running"
ON_WORKER = {OK, FAILED, LOST, RUNNING}
START = "(start)"  # the call of the function that finds its first step


@dataclass(frozen=True, slots=True)
class Segment:
    kind: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(slots=True)
class Lane:
    """`step` as the user knows it, and its segments in order; what is not over yet ends now."""

    step: str
    segments: list[Segment] = field(default_factory=list)
    recorded: bool = False
    doing: tuple[str, float] | None = None

    @property
    def tries(self) -> int:
        return sum(segment.kind in ON_WORKER for segment in self.segments)

    @property
    def working(self) -> float:
        """Seconds on a worker."""
        return sum(segment.seconds for segment in self.segments if segment.kind in ON_WORKER)

    def turn(self, kind: str, at: float, ended: str = "") -> None:
        """Do something else from now on; `ended` says what the attempt that ends here has turned out to be."""
        self.stop(at, ended)
        self.doing = (kind, at)

    def stop(self, at: float, ended: str = "") -> None:
        if self.doing is not None:
            kind, since = self.doing
            self.segments.append(Segment(ended or OK if kind == RUNNING else kind, since, max(since, at)))
        self.doing = None


def lanes_of(history: Iterable[HistoryEntry], now: float) -> list[Lane]:
    lanes: dict[str, Lane] = {}
    for entry in history:
        if entry.kind in ("completed", "cancelled") or (entry.kind == "failed" and "level" not in entry.detail):
            for lane in lanes.values():
                lane.stop(entry.at, LOST if entry.kind == "cancelled" else "")
        elif entry.kind not in ("log", "started", "kept", "noted"):
            _end_replays(lanes, entry)
            _take(lanes.setdefault(entry.step, Lane(id_of(entry.step) or START)), entry)
    for lane in lanes.values():
        lane.stop(now, RUNNING)
    return list(lanes.values())


def _take(lane: Lane, entry: HistoryEntry) -> None:
    match entry.kind:
        case "queued" | "recovered":
            lane.turn(WAIT, entry.at)
        case "retried":
            lane.recorded = False
        case "claimed":
            lane.turn(RUNNING, entry.at)
        case "sleeping" | "waiting":
            lane.turn(SLEEP, entry.at)
        case "failed":
            lane.turn(BACKOFF, entry.at, FAILED if entry.detail["level"] == "step" else OK)
        case "lost" | "released" | "parked":
            lane.turn(WAIT, entry.at, LOST)
        case "recorded":
            lane.recorded = True
            lane.stop(entry.at, OK if entry.detail["outcome"] == "ok" else FAILED)


def _end_replays(lanes: dict[str, Lane], entry: HistoryEntry) -> None:
    """A worker that was on a step recorded before, only to call the function again, has found the next step."""
    for key, lane in lanes.items():
        if key != entry.step and (lane.recorded or key == ENTRY):
            lane.stop(entry.at)
