"""Middleware: what an app wraps around sending, around its functions and steps, and around all data that is stored.

    app = App("orders", middleware=[Encryption({"2026": key}), LogContext()])

Those of an app are entered in the order in which they are declared and left in reverse. A hook that nobody has overridden
costs nothing. Knows no Redis and no RQ; that the hooks are called once per real execution is the frame's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from flowlib.codec import decode, encode
from flowlib.errors import ConfigError, Interrupt, PayloadError
from flowlib.journal import WAIT, id_of
from flowlib.model import Event, Memo
from flowlib.sealed import Open, is_sealed, seal

if TYPE_CHECKING:
    from .claim_check import ClaimCheck
    from .encryption import Encryption
    from .log_context import LogContext
    from .tracing import Tracing

__all__ = ["ClaimCheck", "Encryption", "LogContext", "Middleware", "RunInfo", "StepInfo", "Tracing"]

_HOMES = {"ClaimCheck": "claim_check", "Encryption": "encryption", "LogContext": "log_context", "Tracing": "tracing"}


if not TYPE_CHECKING:  # which would take any name for one that is here

    def __getattr__(name: str) -> Any:
        """Each needs a library of its own, which nobody else has to have."""
        from importlib import import_module

        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as its middleware sees it; `meta` is what `send` hooks have put beside its event."""

    app: str
    function: str
    run_id: str
    event_name: str
    event_id: str
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One attempt of a step's body. `kind` is "run" or "send"."""

    run: RunInfo
    id: str
    kind: str
    attempt: int


class Middleware:
    """Override the hooks that you need. Those that return a context manager are entered before and left after.

    An error that a hook raises is one of what it is around: of the sending, of the function, of the step's attempt.

    >>> class Timing(Middleware):
    ...     @contextmanager
    ...     def step(self, step):
    ...         began = time.monotonic()
    ...         yield
    ...         histogram.observe(time.monotonic() - began, step=step.id)
    """

    name = ""  # of one that encodes: stored with what it has made, and never to be changed

    def send(self, event: Event[Any], meta: dict[str, str]) -> AbstractContextManager[Any]:
        """Around the sending of an event, in a producer or a function; that of `app.call` is `flow/invoke`. What is put into
        `meta` travels beside the event, and with the children of the runs that it starts.
        """
        del event, meta
        return nullcontext()

    def start(self, run: RunInfo) -> AbstractContextManager[Any]:
        """Around the first call of a run's function, once, until it first stops; where its worker dies, once more."""
        del run
        return nullcontext()

    def call(self, run: RunInfo) -> AbstractContextManager[Any]:
        """Around each call of the function, replays too: for what must be there while its code runs, as log context."""
        del run
        return nullcontext()

    def step(self, step: StepInfo) -> AbstractContextManager[Any]:
        """Around each attempt of a step's body; never for what is recorded."""
        del step
        return nullcontext()

    def encode(self, data: bytes) -> bytes | None:
        """What is stored instead: of an event's data, a step's value, a function's result. None: `data` as it is."""
        del data
        return None

    def decode(self, payload: bytes) -> bytes:
        """The `data` of which `encode` has made that. Raises PayloadError for what can never be read."""
        del payload
        raise NotImplementedError


class Hooks:
    """Those of an app's middleware that somebody has overridden. Raises ConfigError."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        for each in middleware:
            if not isinstance(each, Middleware):
                raise ConfigError(f"middleware {each!r}: must be an instance of a subclass of flowlib.Middleware")
        self.sends = _overridden(middleware, "send")
        self.starts = _overridden(middleware, "start")
        self.calls = _overridden(middleware, "call")
        self.steps = _overridden(middleware, "step")
        coders = [
            each
            for each in middleware
            if type(each).encode is not Middleware.encode or type(each).decode is not Middleware.decode
        ]
        self.sealing = Sealing(coders) if coders else None


def _overridden(middleware: Sequence[Middleware], name: str) -> list[Callable[..., AbstractContextManager[Any]]]:
    base = getattr(Middleware, name)
    return [getattr(each, name) for each in middleware if getattr(type(each), name) is not base]


def entered(hooks: Sequence[Callable[..., AbstractContextManager[Any]]], *told: Any) -> ExitStack:
    """All of them, in order. If one raises, those before it are left again."""
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook(*told))
        return stack.pop_all()
    raise AssertionError("a hook has eaten an error")


def left(stack: ExitStack, error: BaseException | None) -> BaseException | None:
    """In reverse. The error to go on with: what they were told, whatever they make of it, unless one raises another.

    That a function stops at a place, and goes on from there later, is no error to anybody.
    """
    shown = None if isinstance(error, Interrupt) else error
    try:
        stack.__exit__(None if shown is None else type(shown), shown, None if shown is None else shown.__traceback__)
    except BaseException as raised:
        return raised if error is None or isinstance(error, Exception) else error
    return error


@contextmanager
def within(hooks: Sequence[Callable[..., AbstractContextManager[Any]]], *told: Any) -> Iterator[None]:
    stack = entered(hooks, *told)
    try:
        yield
    except BaseException as error:
        raised = left(stack, error)
        if raised is not error and raised is not None:
            raise raised from None
        raise
    raised = left(stack, None)
    if raised is not None:
        raise raised


class Sealing:
    """What the coders of an app make of encoded values, and back: each layer says who has made it."""

    def __init__(self, coders: Sequence[Middleware]) -> None:
        self._coders = list(coders)
        self._named = {each.name: each for each in coders}
        for each in coders:
            if not each.name or not each.name.isascii() or len(each.name) > 100:
                raise ConfigError(f"middleware {each!r}: one that encodes needs a name, of 1 to 100 ASCII characters")
        if len(self._named) < len(coders):
            raise ConfigError("middleware: two that encode have one name: give each instance its own")

    def seal(self, data: bytes) -> bytes:
        for coder in self._coders:
            made = coder.encode(data)
            if made is not None:
                data = seal(coder.name, made)
        return data

    def open(self, by: str, payload: bytes) -> bytes:
        coder = self._named.get(by)
        if coder is None:
            raise PayloadError(f"it is sealed by {by!r}: that has to be in the middleware= of whoever reads it")
        return coder.decode(payload)

    def memos(self, stored: dict[str, Memo], unreadable: Callable[[Exception], NoReturn]) -> dict[str, Memo]:
        """They are opened when they are asked for; `unreadable` is called for one that cannot be."""
        return _Memos(stored, self.open, unreadable)


class _Memos(dict[str, Memo]):
    """Memos as they are stored, of which each is opened when it is first asked for: most are only carried about."""

    def __init__(self, stored: dict[str, Memo], open: Open, unreadable: Callable[[Exception], NoReturn]) -> None:
        super().__init__(stored)
        self._open, self._unreadable = open, unreadable
        self._opened: set[str] = set()

    def __getitem__(self, key: str) -> Memo:
        memo = super().__getitem__(key)
        if memo.error is None and key not in self._opened:
            if is_sealed(memo.value) or memo.kind == WAIT:  # an event is in clear, and its data are as they were sent
                memo = self[key] = self._clear(key, memo)
            self._opened.add(key)
        return memo

    def _clear(self, key: str, memo: Memo) -> Memo:
        try:
            value = decode(memo.value, open=self._open, where=f"step {id_of(key)!r}: what is recorded")
            return Memo(encode(value), None, memo.kind)
        except Exception as error:
            self._unreadable(error)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if super().__contains__(key) else default
