"""Waiting for a Redis that is away when a worker starts, as it does later on; and saying so, but not all the time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import AuthenticationError, AuthorizationError, ConnectionError, RedisError, TimeoutError

from flowlib.errors import ServerError
from flowlib.wire import explain

log = logging.getLogger("flowlib.worker")

PAUSE = 0.5  # seconds before Redis is asked again
REMIND = 60.0  # seconds after which the same is said again

T = TypeVar("T")


def passes(error: BaseException | None) -> bool:
    """Whether waiting may help: nobody answers, or not yet, as while it loads its data."""
    away = isinstance(error, ConnectionError | TimeoutError)
    return away and not isinstance(error, AuthenticationError | AuthorizationError)


def insist(
    act: Callable[[], T],
    url: str,
    *,
    may_wait: Callable[[BaseException | None], bool] = passes,
    pause: Callable[[float], object] = time.sleep,
) -> T:
    """What `act` returns, as soon as Redis lets it. Raises what is not to be waited for; a signal may end the process."""
    said, remind_at = "", 0.0
    while True:
        try:
            return act()
        except (RedisError, ServerError) as error:
            reason = error.__context__ if isinstance(error, ServerError) else error  # a ServerError explains it
            if not may_wait(reason):
                raise
            told = str(error if isinstance(error, ServerError) else explain(error, url))
        if told != said or time.monotonic() > remind_at:
            log.warning("%s: waiting for it", told)
            said, remind_at = told, time.monotonic() + REMIND
        pause(PAUSE)
