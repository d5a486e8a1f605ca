"""One operation that the function asked for; as a context manager, one attempt of its body.

Owns the body's surroundings: its deadline, its duration, whose context it runs in. What an outcome means is the frame's
business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Protocol

from .codec import annotation_of, decode
from .deadline import BodyStopped, Deadline
from .errors import Interrupt, StepFailed
from .journal import Op
from .model import Memo
from .retry import Options

body: ContextVar[StepCall | None] = ContextVar("flow_body", default=None)  # the call whose body runs in this context


class Surroundings(Protocol):
    """What an attempt needs of its frame."""

    deadline: Deadline | None
    in_loop: bool

    @property
    def memos(self) -> dict[str, Memo]: ...
    @property
    def listening(self) -> bool: ...
    def enter(self, call: StepCall) -> None: ...
    def leave(self) -> None: ...
    def commit(self, call: StepCall, seconds: float) -> None: ...
    def fail(self, call: StepCall, error: BaseException, seconds: float) -> None: ...
    def stopped(self, call: StepCall, reason: str, seconds: float) -> None: ...


_UNREAD = object()


class StepCall:
    __slots__ = ("_began", "_deadline", "_frame", "_outside", "_value", "events", "op", "options", "result", "target")

    _outside: Token[StepCall | None]

    def __init__(self, frame: Surroundings, op: Op, target: Callable[..., Any] | None, options: Options) -> None:
        self._frame = frame
        self.op = op
        self.target = target
        self.options = options
        self.result: Any = None
        self.events: Sequence[Any] = ()  # to be sent with the memo
        self._value: Any = _UNREAD

    @property
    def open(self) -> bool:
        return self.op.key not in self._frame.memos

    def attempt(self) -> AbstractContextManager[None]:
        return self

    def set(self, result: Any, events: Sequence[Any] = ()) -> None:
        self.result, self.events = result, events

    def value(self) -> Any:
        """What was stored, decoded to the callee's return annotation (I8); raises StepFailed for a stored error."""
        memo = self._frame.memos[self.op.key]
        if memo.error is not None:
            error = memo.error
            raise StepFailed(self.op.id, error.type, error.message, error.traceback, error.attempt)
        if self._value is _UNREAD:
            self.read(memo.value)
        return self._value

    def read(self, encoded: bytes) -> None:
        """Decode it to the callee's return annotation. Raises PayloadError when it does not fit."""
        where = f"step {self.op.id!r}: result"
        self._value = None if self.target is None else decode(encoded, annotation_of(self.target), where=where)

    def __enter__(self) -> None:
        self._frame.enter(self)
        self._outside = body.set(self)
        self._deadline = self._frame.deadline = Deadline(self.options.timeout, self._frame.in_loop)
        self._began = time.perf_counter()
        self._deadline.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        try:
            self._deadline.__exit__(kind, error, at)
        except BodyStopped as late:  # the alarm rang just after the body's last line
            self._deadline.__exit__(kind, error, at)
            error = late
        seconds = time.perf_counter() - self._began
        self._frame.deadline = None
        body.reset(self._outside)
        self._frame.leave()
        if error is None:
            self._frame.commit(self, seconds)
        elif self._deadline.reason is not None and isinstance(error, BodyStopped | asyncio.CancelledError):
            self._frame.stopped(self, self._deadline.reason, seconds)
        elif isinstance(error, Interrupt | BodyStopped) or not self._frame.listening:
            return False
        else:
            self._frame.fail(self, error, seconds)
        return True
