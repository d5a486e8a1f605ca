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
from typing import Any, NoReturn, Protocol

from .codec import annotation_of, decode, decoder
from .deadline import BodyStopped, Deadline
from .errors import Interrupt, StepFailed
from .journal import Op
from .model import ErrorInfo, Memo
from .retry import Options

body: ContextVar[StepCall | None] = ContextVar("flow_body", default=None)  # the call whose body runs in this context


class Surroundings(Protocol):
    """What an attempt needs of its frame."""

    deadline: Deadline | None

    @property
    def memos(self) -> dict[str, Memo]: ...
    @property
    def listening(self) -> bool: ...
    def enter(self, call: StepCall) -> None: ...
    def leave(self, error: BaseException | None) -> BaseException | None: ...
    def commit(self, call: StepCall, seconds: float) -> None: ...
    def fail(self, call: StepCall, error: BaseException, seconds: float) -> None: ...
    def stopped(self, call: StepCall, reason: str, seconds: float) -> None: ...


_UNREAD = object()


# Of what steps return, by the id of what they call, which is kept.
Decoders = dict[int, tuple[Any, Callable[[bytes], Any]]]


class Known:
    """A step that is recorded, and not by this job: most of what a replay asks for, so it is no more than its value."""

    __slots__ = ("_decoders", "_id", "_memo", "_target", "key")
    open = False

    def __init__(
        self,
        key: str,
        step_id: str,
        target: Callable[..., Any] | None,
        memo: Memo,
        decoders: Decoders,
    ) -> None:
        self.key = key
        self._id = step_id
        self._target = target
        self._memo = memo
        self._decoders = decoders

    def attempt(self) -> NoReturn:
        raise RuntimeError(f"step {self._id!r} is recorded: it is never tried again")

    def set(self, *_: Any, **__: Any) -> NoReturn:
        self.attempt()

    def value(self) -> Any:
        """As that of a StepCall."""
        return value_of(self._id, self._target, self._memo, self._decoders)


def value_of(step_id: str, target: Callable[..., Any] | None, memo: Memo, decoders: Decoders) -> Any:
    """What is stored, decoded to the callee's return annotation (I8); raises StepFailed for a stored error."""
    if memo.error is not None:
        raise _failed(step_id, memo.error)
    if target is None:
        return None
    try:
        known = decoders.get(id(target))
        if known is None:
            known = decoders[id(target)] = target, decoder(annotation_of(target))
        return known[1](memo.value)
    except Exception:  # now it has to say what and where, which takes a third of a replay
        return decode(memo.value, annotation_of(target), where=f"step {step_id!r}: result")


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
    def key(self) -> str:
        return self.op.key

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
            raise _failed(self.op.id, memo.error)
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
        self._deadline = self._frame.deadline = Deadline(self.options.timeout)
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
        error = self._frame.leave(error)
        if error is None:
            self._frame.commit(self, seconds)
        elif self._deadline.reason is not None and isinstance(error, BodyStopped | asyncio.CancelledError):
            self._frame.stopped(self, self._deadline.reason, seconds)
        elif isinstance(error, Interrupt | BodyStopped) or not self._frame.listening:
            return False
        else:
            self._frame.fail(self, error, seconds)
        return True


def _failed(step_id: str, error: ErrorInfo) -> StepFailed:
    return StepFailed(step_id, error.type, error.message, error.traceback, error.attempt)
