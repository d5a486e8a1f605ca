"""A run that another run invokes: its id, the event that has it begin, what its parent waits for.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from .codec import decode, encode
from .errors import ConfigError, WaitTimeout
from .function import NAME, Function, declared_as
from .journal import id_of
from .triggers import check_event_data
from .ulid import ulid_of
from .wait import LONGEST_SLEEP, Told, after

INVOKE_EVENT = "flow/invoke"


class Invocation(NamedTuple):
    """What the event tells; `parent` is "" when a producer calls. One that is `detached` does not depend on its parent."""

    app: str
    function: str
    run: str
    parent: str
    detached: bool
    data: bytes

    def encode(self) -> bytes:
        return encode(tuple(self))


def read_invocation(data: bytes) -> Invocation:
    """Raises PayloadError for what is none."""
    return Invocation(*decode(data, tuple[str, str, str, str, bool, bytes]))


def child_of(run: str, key: str, retries: int) -> str:
    """The same step of the same run has the same child, whoever begins it; when the run is retried, it has a new one."""
    return run[:10] + ulid_of(0, run, key, str(retries))[10:]


class Child(Told):
    def __init__(
        self, app: str, function: str, data: bytes, timeout: timedelta, detached: bool, seal: Callable[[bytes], bytes]
    ) -> None:
        super().__init__(delay_ms=max(0.0, timeout.total_seconds() * 1000))
        self.app, self.function = app, function
        self.detached = detached
        self._data = data
        self._seal = seal  # not before it is needed: most calls of a replay are for children that have ended
        self._seconds = timeout.total_seconds()

    def args(self, run: str, key: str, retries: int) -> tuple[Any, ...]:
        child = child_of(run, key, retries)
        data = check_event_data(f"step {id_of(key)!r}: data", self._seal(self._data))
        event = Invocation(self.app, self.function, child, run, self.detached, data).encode()
        begun = (child, event, self.app, self.function, int(self.detached))
        return ("flow/child", "", child, "{}", self.delay_ms, None, None, None, None, None, begun)

    def timed_out(self, step_id: str) -> Exception:
        then = "it goes on" if self.detached else "it was cancelled"
        return WaitTimeout(step_id, self._seconds, f"function {self.app}/{self.function} had not ended: {then}")


def make_child(
    step_id: str,
    function: str | Callable[..., Any],
    data: Any,
    timeout: timedelta | float | None,
    detached: bool,
    own_app: str,
    seal: Callable[[bytes], bytes],
) -> Child:
    """What the user asked for. Raises ConfigError, and PayloadError for data that cannot be stored or do not fit."""
    app, name, encoded = call_of(f"step {step_id!r}", function, data, own_app)
    delay = LONGEST_SLEEP if timeout is None else after(step_id, "timeout", timeout)
    return Child(app, name, encoded, delay, detached, seal)


def call_of(where: str, function: str | Callable[..., Any], data: Any, own_app: str) -> tuple[str, str, bytes]:
    """App and name of the function that is meant, and its data as they are stored. Raises ConfigError and PayloadError."""
    if isinstance(function, str):
        app, slash, name = function.rpartition("/")
        if not NAME.fullmatch(name) or (slash and not NAME.fullmatch(app)):
            raise ConfigError(f"{where}: {function!r:.120} is no function's name: say 'function', or 'app/function'")
        return app or own_app, name, encode(data, where=f"{where}: data")
    found = _only(where, function)
    encoded = encode(data, where=f"{where}: data")
    if found.triggers:
        decode(encoded, found.triggers[0].type, where=f"{where}: data")
    return found.app, found.name, encoded


def _only(where: str, body: Callable[..., Any]) -> Function:
    found = declared_as(body)
    if len(found) != 1:
        named = getattr(body, "__qualname__", repr(body))
        why = "is declared more than once" if found else "is not declared with @app.function"
        raise ConfigError(f"{where}: {named} {why}: say the name of a function, as in 'app/function'")
    return found[0]
