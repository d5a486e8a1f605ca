"""Prometheus metrics of everything on one Redis: `flow metrics`, and `flow worker --metrics-port`.

`families.py` says what is reported, `collector.py` reads it, `exposition.py` serves it. Most numbers are counters that
the scripts move together with the state they speak of (I7), so they are exact, survive every restart, and are the same
whichever process is asked. Nothing here writes to Redis.
"""

from __future__ import annotations

from .collector import Collector
from .exposition import render, serve
from .families import NAMES

__all__ = ["NAMES", "Collector", "render", "serve"]
