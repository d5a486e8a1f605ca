"""What all tests wait by: for a condition, and until a deadline that only a machine in trouble reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 30.0  # seconds; a dead worker's duties pass on within some, and a machine may be busy
LONGEST_PAUSE = 0.02


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline, pause = time.monotonic() + patience, 0.001
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)  # who waits for long leaves the processor to whom it waits for
    return found
