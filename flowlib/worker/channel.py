"""One channel of Redis, listened to for as long as a worker lives; a connection that has gone silent is noticed as well.

Who only listens never learns that the other end is gone. So the server is asked for a sign of life every few seconds,
and without one there is a new subscription. What was said meanwhile is not heard. Knows nothing of what messages mean.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import redis

_ASK = 1.0  # seconds without a word after which the server is asked for one
_SILENCE = 2.0  # seconds that it has for its answer; looked at only after reading, for it may be us who were held up


class Channel:
    """For one thread; `hang_up` may come from another."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._name = name
        self._pubsub: Any = None
        self._heard = self._asked = 0.0

    def subscribe(self) -> None:
        """Returns when Redis knows; raises RedisError."""
        self._pubsub = self._client.pubsub()
        self._heard = self._asked = time.monotonic()
        try:
            self._pubsub.subscribe(self._name)
            if self._pubsub.get_message(timeout=_ASK + _SILENCE) is None:
                raise redis.TimeoutError(f"no answer to the subscription of {self._name}")
        except BaseException:
            self.close()
            raise

    def hear(self, seconds: float) -> bytes | None:
        """The next message, or None after so many seconds, or sooner. Raises RedisError; the next call subscribes again."""
        if self._pubsub is None:
            self.subscribe()
            return None  # what was said before is to be looked for
        try:
            if self._asked <= self._heard < time.monotonic() - _ASK:
                self._asked = time.monotonic()
                self._pubsub.ping()
            said = self._pubsub.get_message(timeout=min(seconds, _ASK))
            if said is None and self._heard < self._asked < time.monotonic() - _SILENCE:
                raise redis.TimeoutError(f"channel {self._name} is silent")
        except BaseException:
            self.close()
            raise
        if said is None:
            return None
        self._heard = time.monotonic()
        return said["data"] if said["type"] == "message" else None

    def hang_up(self) -> None:
        """Lets a `hear` that waits return now."""
        if (pubsub := self._pubsub) is not None:
            with contextlib.suppress(redis.RedisError):
                pubsub.unsubscribe()

    def close(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None
