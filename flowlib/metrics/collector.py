"""`Collector`: what `prometheus_client` asks for the numbers.

Owns a connection of its own, with short patience: a scrape is to say that Redis is down, not to wait for it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable

import redis
from prometheus_client.core import Metric
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowlib.address import connect
from flowlib.store import Store
from flowlib.wire import explain

from .families import FAMILIES, REDIS_UP, SCRAPE_SECONDS
from .reading import Reading

log = logging.getLogger("flowlib.metrics")

CACHED = 1.0  # seconds for which a reading is good enough: several scrapers cost Redis no more than one
TIMEOUT = 2.0  # seconds; with the one retry well below the 10 that Prometheus waits


class Collector:
    """For a registry of your own.

    >>> registry.register(Collector(app.store))
    """

    def __init__(self, store: Store) -> None:
        self._url, self._keys = store.url, store.keys
        self._client = connect(
            store.url,
            store.keys,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 1),  # for a connection that has died since the last scrape
            decode_responses=True,
            encoding_errors="backslashreplace",
        )
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = -math.inf
        self._was_up = True

    def describe(self) -> Iterable[Metric]:
        """All families, without asking Redis."""
        return [family.metric({}) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """All families with their samples; nothing but `flow_redis_up` when Redis does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at >= CACHED:
                self._metrics = self._read()
                self._read_at = time.monotonic()
            return self._metrics

    def close(self) -> None:
        self._client.close()

    def _read(self) -> list[Metric]:
        began = time.perf_counter()
        try:
            values = Reading(self._client, self._keys).values
        except redis.RedisError as error:
            if self._was_up:
                log.warning("metrics: %s", explain(error, self._url))
            self._was_up = False
            return [REDIS_UP.metric({(): 0})]
        self._was_up = True
        values[REDIS_UP][()] = 1
        values[SCRAPE_SECONDS][()] = time.perf_counter() - began
        return [family.metric(values[family]) for family in FAMILIES]
