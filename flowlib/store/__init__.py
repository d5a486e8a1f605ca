"""The only package that speaks Redis: one typed method per transition, each one `.lua` file in one round trip.

Owns connections and what goes over them; decides nothing. Reading for people (lists, timelines) is in `runs.py`.
"""

from __future__ import annotations

import redis

from .events import EventStore, Sent
from .house import HouseStore
from .jobs import STEP_EDGES, JobStore

__all__ = ["STEP_EDGES", "RedisError", "Sent", "Store"]

RedisError = redis.RedisError


class Store(EventStore, JobStore, HouseStore):
    """Transitions on one Redis. Each thread gets a connection of its own; `patience` is how long to wait for Redis."""
