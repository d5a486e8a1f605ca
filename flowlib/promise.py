"""A promise: what a run waits for until somebody outside settles it, by a token that tells run, step and a secret.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Any

from .errors import NotFound, WaitTimeout
from .wait import LONGEST_SLEEP, Told, after


class Pending(Told):
    def __init__(self, step_id: str, timeout: timedelta | float | None) -> None:
        delay = LONGEST_SLEEP if timeout is None else after(step_id, "timeout", timeout)
        super().__init__(delay_ms=max(0.0, delay.total_seconds() * 1000))
        self._seconds = delay.total_seconds()

    def args(self, run: str, key: str, retries: int) -> tuple[Any, ...]:
        del retries  # its token stays the same
        return ("flow/promise", "", f"{run}/{key}", "{}", self.delay_ms, None, None, None, None, None, None)

    def timed_out(self, step_id: str) -> Exception:
        return WaitTimeout(step_id, self._seconds, "nobody had settled the promise")


def secret_key(key: str) -> str:
    """Of the memo of a promise's secret."""
    return f"=promise:{key}"


def settled_key(key: str) -> str:
    """Of the memo of what it was settled with, which may come before it is waited for."""
    return f"=settled:{key}"


def make_token(run: str, key: str, secret: str) -> str:
    step = urlsafe_b64encode(key.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    return f"{run}.{step}.{secret}"


def read_token(token: str) -> tuple[str, str, str]:
    """The run, the key of the step and the secret. Raises NotFound for what cannot be a token."""
    try:
        run, step, secret = token.split(".")
        key = urlsafe_b64decode(step + "=" * (-len(step) % 4)).decode("utf-8", "surrogatepass")
    except (AttributeError, TypeError, ValueError):
        raise unknown_promise(token) from None
    if len(run) != 26 or not run.isalnum():
        raise unknown_promise(token)
    return run, key, secret


def unknown_promise(token: object) -> NotFound:
    return NotFound(f"promise {token!r:.120} does not exist: its run has expired, or the token is not whole")
