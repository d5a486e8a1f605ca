"""What a run says: log records and prints made inside its function, kept for its history, silent while it is replayed.

Owns one logging handler, one logging filter and one stand-in for `sys.stdout`, all per process and installed once; which
run is speaking is a context variable, so threads and coroutines keep their own. Stores nothing: the engine drains the
lines and sends them along with the next transition, or every now and then.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Any, TextIO, cast

import msgpack

from .journal import id_of

MAX_LINE = 16 * 1024
MAX_PENDING = 10_000

speaking: ContextVar[Recorder | None] = ContextVar("flow_speaking", default=None)


Line = tuple[float, str, str, str, str, int]  # when, level, logger, text, step, attempt


class Recorder:
    """The lines of one run that are not yet stored. `live` is False while the function repeats what was seen before."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.live = False
        self.step = ""
        self.attempt = 1
        self._lines: list[Line] = []
        self._drained: list[Line] = []
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        self._lost = 0

    def add(self, level: str, logger: str, text: str) -> None:
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}… ({len(text)} characters)"
        with self._lock:
            if len(self._lines) < MAX_PENDING:
                self._lines.append((time.monotonic(), level, logger, text, self.step, self.attempt))
            else:
                self._lost += 1

    def drain(self) -> bytes:
        """All lines so far, packed, for a transition; not before those that are stored apart just now."""
        with self._storing:
            self._drained = self._take()
            return _pack(self._drained)

    def take_back(self) -> None:
        """What was drained last has not been stored: it comes first the next time."""
        with self._storing, self._lock:
            self._lines[:0], self._drained = self._drained, []

    def store_apart(self, store: Callable[[bytes], object]) -> None:
        """Have `store` take the lines so far, if there are any. A transition meanwhile waits: none may stand behind it."""
        with self._storing:
            lines = self._take()
            try:
                if lines:
                    store(_pack(lines))
            except BaseException:
                with self._lock:
                    self._lines[:0] = lines
                raise

    def _take(self) -> list[Line]:
        if not self._lines and not self._lost:
            return []
        with self._lock:
            lines, self._lines = self._lines, []
            lost, self._lost = self._lost, 0
        if lost:
            told = f"… {lost} lines dropped"
            lines.append((time.monotonic(), "WARNING", "flowlib", told, self.step, self.attempt))
        return lines


def _pack(lines: list[Line]) -> bytes:
    """As the scripts take them: each line with its age in ms, because only the server's clock counts."""
    if not lines:
        return b""
    now = time.monotonic()
    packed = [[(now - at) * 1000, *rest] for at, *rest in lines]
    return cast(bytes, msgpack.packb(packed, unicode_errors="surrogatepass"))


STEP_LOGGER = "flowlib.step"


def _is_ours(logger: str) -> bool:
    """What the engine says of a run is in the history already, in better form."""
    return logger.startswith(("flowlib.", "rq."))


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        recorder = speaking.get()
        if recorder is not None and recorder.live and (record.name == STEP_LOGGER or not _is_ours(record.name)):
            try:
                recorder.add(record.levelname, record.name, self.format(record))
            except Exception:
                self.handleError(record)


class RunFilter(logging.Filter):
    """For other handlers: mutes replays, and gives each record `run`, `step` and `attempt`."""

    def filter(self, record: logging.LogRecord) -> bool:
        recorder = speaking.get()
        record.run = recorder.run if recorder else ""
        record.step = id_of(recorder.step) if recorder else ""
        record.attempt = recorder.attempt if recorder else 0
        return recorder is None or recorder.live


class _Stdout:
    """Prints go on to where they went before, and whole lines into the history of the run that speaks."""

    def __init__(self, under: TextIO) -> None:
        self._under = under
        self._partial: dict[int, str] = {}

    def write(self, text: str) -> int:
        recorder = speaking.get()
        if recorder is None:
            return self._under.write(text)
        if not recorder.live:
            return len(text)
        *lines, rest = (self._partial.pop(id(recorder), "") + text).split("\n")
        for line in lines:
            recorder.add("PRINT", "stdout", line)
        if rest:
            self._partial[id(recorder)] = rest
        return self._under.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self, recorder: Recorder) -> None:
        if rest := self._partial.pop(id(recorder), ""):
            recorder.add("PRINT", "stdout", rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)


def install() -> None:
    """Once per process, when it begins to run steps. Calling it again only catches handlers added meanwhile."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Handler) for handler in root.handlers):
        root.addHandler(_Handler())
        logging.getLogger(STEP_LOGGER).setLevel(logging.INFO)
    for handler in root.handlers:
        if not isinstance(handler, _Handler) and not any(isinstance(f, RunFilter) for f in handler.filters):
            handler.addFilter(RunFilter())
    _stand_in()


def _stand_in() -> None:
    if not isinstance(sys.stdout, _Stdout):
        sys.stdout = cast(TextIO, _Stdout(sys.stdout))


def begin(recorder: Recorder) -> Token[Recorder | None]:
    """From here on this context speaks for `recorder`. Whoever put another stdout in place meanwhile is listened to."""
    _stand_in()
    return speaking.set(recorder)


def finish(recorder: Recorder) -> None:
    """A print without a line end is a line too when its run stops speaking."""
    if isinstance(sys.stdout, _Stdout):
        sys.stdout.finish(recorder)
