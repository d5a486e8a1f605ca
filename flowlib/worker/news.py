"""Word that there may be work, from the one who watches the queues to the slots that are idle.

Whoever finds work passes the word on, as there may be more. The watcher looks again only when an idle slot has tried and
found nothing: a queue whose head nobody is free to take must not be asked again and again. Knows no Redis.
"""

from __future__ import annotations

import threading

_MOMENT = 0.5  # seconds; a main thread that waits must come up now and then for signals


class News:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._idle = 0
        self._words = 0  # on their way to idle slots
        self._trying: set[int] = set()  # threads that have had word and not said yet what came of it
        self._over = False

    def found(self) -> None:
        """In a slot: it has work, so there may be more for another."""
        with self._changed:
            self._trying.discard(threading.get_ident())
            self._tell()

    def wait(self) -> None:
        """In a slot that has found nothing: until there is word."""
        with self._changed:
            self._trying.discard(threading.get_ident())
            self._idle += 1
            self._changed.notify_all()
            while not self._words and not self._over:
                self._changed.wait()
            self._words = max(0, self._words - 1)
            self._idle -= 1
            self._trying.add(threading.get_ident())

    def tell(self) -> None:
        """To one idle slot."""
        with self._changed:
            self._tell()

    def until_idle(self) -> bool:
        """In the watcher: until a slot is idle and none is trying. False when all is over."""
        with self._changed:
            while not self._over and (not self._idle or self._words or self._trying):
                self._changed.wait(_MOMENT)
            return not self._over

    def end(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _tell(self) -> None:
        if self._words < self._idle:
            self._words += 1
            self._changed.notify_all()
