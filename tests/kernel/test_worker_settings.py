"""What a worker is told: refused at once, before any server is asked, when it makes no sense (I10)."""

from __future__ import annotations

from typing import Any

import pytest

from flowlib import App, ConfigError, Event, Step
from flowlib.worker import FlowWorker

app = App("settings", redis_url="redis://127.0.0.1:1")


@app.function(on="x")
def nothing(event: Event[dict[str, Any]], step: Step) -> None:
    pass


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lease_ms": 1.5}, r"lease_ms must be a whole number >= 100, got 1\.5"),
        ({"lease_ms": 10}, "lease_ms must be a whole number >= 100, got 10"),
        ({"lease_ms": "10_000"}, "lease_ms must be a whole number >= 100, got '10_000'"),
        ({"threads": 0}, "threads must be a whole number >= 1, got 0"),
        ({"threads": True}, "threads must be a whole number >= 1, got True"),
        ({"grace": -1}, "grace must be seconds >= 0, got -1"),
        ({"budget": float("nan")}, "budget must be seconds >= 0, got nan"),
        ({"reconcile_every": None}, "reconcile_every must be seconds >= 0, got None"),
    ],
    ids=str,
)
def test_a_worker_is_not_made_with_what_makes_no_sense(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^FlowWorker: {reason}$"):
        FlowWorker(app=app, **settings)
