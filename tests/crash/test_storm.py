"""Redis and workers of every kind struck at random moments under load: every run ends right, no recorded step runs again.

`CHAOS_SECONDS=600 CHAOS_SEED=7 make chaos` says how long the long storms last in all, and which blows fall.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from flowlib.server import Server
from tests import access

from .storm import SETTLING, Storm
from .verdict import Verdict

SECONDS = float(os.environ.get("CHAOS_SECONDS") or 480)
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
EVENTS = 30.0  # a second


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_run_is_lost_when_redis_and_workers_are_struck_under_load(tmp_path: Path) -> None:
    """BEHAVIOURS 146, 142, 143, 121, 40; I1 to I7."""
    endure(tmp_path, "always", seconds=7)


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + SETTLING + 300)
@pytest.mark.parametrize(
    ("fsync", "more"), [("always", {}), ("everysec", {"sealed": True}), ("everysec", {"stock": True})]
)
def test_no_run_is_lost_in_a_long_storm(tmp_path: Path, fsync: str, more: dict[str, bool]) -> None:
    """BEHAVIOURS 146, 142, 143, 121, 40; with stock workers of RQ's among them 144, 145; I1 to I7."""
    endure(tmp_path, fsync, SECONDS / 3, **more)


def endure(folder: Path, fsync: str, seconds: float, *, stock: bool = False, sealed: bool = False) -> None:
    print(f"\nseed {SEED}, appendfsync {fsync}")
    with Server.start(folder / "server", config={"appendfsync": fsync, **access.config(folder)}) as server:
        storm = Storm(server, folder / "ledger", SEED, stock=stock, sealed=sealed)
        storm.rage(seconds, EVENTS)
        verdict = Verdict(storm)
        print(verdict.figures)
        if faults := verdict.faults:
            pytest.fail("\n".join([verdict.figures, *faults]), pytrace=False)
        assert fsync == "everysec" or storm.forgotten == 0
