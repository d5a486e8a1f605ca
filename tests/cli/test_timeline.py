"""A run's record, where a step's job comes back after the step was recorded."""

from __future__ import annotations

from typing import Any

from flowlib.model import HistoryEntry
from flowlib.timeline import steps_of


def test_a_recorded_step_stays_as_it_is_when_its_job_comes_back_to_call_the_function_again() -> None:
    """32: attempts are shown per step and for the function."""
    told: list[tuple[str, dict[str, Any]]] = [
        ("claimed", {"waited": 0}),
        ("recorded", {"outcome": "ok", "bytes": 1}),
        ("failed", {"level": "function", "outcome": "retry", "retry_at": 0.0, "error": {}}),
        ("queued", {}),
        ("claimed", {"waited": 0}),
    ]
    (step,) = steps_of(HistoryEntry(at, kind, "1:a", 1, "w", detail) for at, (kind, detail) in enumerate(told))
    assert step.status == "completed"
    assert [(attempt.outcome, attempt.started, attempt.ended) for attempt in step.attempts] == [("ok", 0, 1)]
