"""What people outside do while a storm goes on: they are written to by steps, and settle, cancel, retry, replay and call.

A body writes its letter into a file beside the ledger, and may write it again when it is tried again. Whoever reads it
does what it says as soon as that can be done, through Redis' failures, and once more when Redis has forgotten it.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from flowlib import App, Called, FlowError, NotFound, PromiseSettled, RunEnded, RunTimeout, ServerError
from flowlib.model import FAILED

from .ledger import PATH

What = Literal["settle", "cancel", "retry", "replay", "revise", "call"]
REASON = "by hand"


def write_letter(what: What, whom: str, about: str) -> None:
    """`whom`: a run, or a promise's token; `about`: the id of the run's event."""
    file = os.open(_letters(Path(os.environ[PATH])), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{what} {whom} {about}\n".encode())
    finally:
        os.close(file)


def answer_to(token: str) -> tuple[bool, str]:
    """Whether the promise of this token is resolved, else it is rejected, and with what."""
    digest = hashlib.sha256(token.encode()).digest()
    return digest[0] % 3 > 0, digest[:8].hex()


def is_mended(about: str) -> bool:
    """What has failed the runs of this event."""
    return _mended(Path(os.environ[PATH]), about).exists()


class People:
    """`forgotten` tells how often Redis has forgotten what it had confirmed."""

    def __init__(self, app: App, notes: Path, seed: int, forgotten: Callable[[], int]) -> None:
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self._app = app
        self._notes, self._chance, self._forgotten = notes, random.Random(seed), forgotten
        self._do = {
            "settle": self._settle, "cancel": self._cancel, "retry": self._retry, "replay": self._replay,
            "revise": self._revise, "call": self._call,
        }  # fmt: skip
        self._calls: dict[str, Called[Any]] = {}
        self._open: dict[tuple[str, str, str], float] = {}  # letter -> when it is looked at
        self._answered: set[tuple[str, str, str]] = set()
        self._read = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Nothing is left to do for them."""
        path = _letters(self._notes)
        return not self._open and self._read == (path.stat().st_size if path.exists() else 0)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._app.store.close()

    def _work(self) -> None:
        forgotten = 0
        while not self._over.wait(0.01):
            self._fetch()
            if (now := self._forgotten()) > forgotten:  # what is done may be undone
                forgotten = now
                self._open |= dict.fromkeys(self._answered, 0.0)
                self._calls.clear()
            for letter in [letter for letter, at in self._open.items() if at <= time.monotonic()]:
                self._answer(letter)

    def _fetch(self) -> None:
        path = _letters(self._notes)
        if not path.exists():
            return
        with path.open("rb") as letters:
            letters.seek(self._read)
            for line in letters:
                what, whom, about = line.decode().split()
                if (what, whom, about) not in self._answered | self._open.keys():
                    self._open[what, whom, about] = time.monotonic() + self._chance.choice([0.0, 0.02, 0.2])
            self._read = letters.tell()

    def _answer(self, letter: tuple[str, str, str]) -> None:
        what, whom, about = letter
        try:
            if not self._do[what](whom, about):
                self._open[letter] = time.monotonic() + 0.1
                return
            self._answered.add(letter)
            self.done[what] += 1
            del self._open[letter]
        except ServerError:
            pass
        except NotFound:  # Redis has forgotten it, and whom it was about
            del self._open[letter]
        except FlowError as error:
            self.faults.append(f"{letter}: {error!r}")
            del self._open[letter]

    # -- each tells whether it is done -------------------------------------------------------------------------------

    def _settle(self, token: str, about: str) -> bool:
        resolved, answer = answer_to(token)
        settle = self._app.promises.resolve if resolved else self._app.promises.reject
        try:
            settle(token, answer)
            settle(token, answer)
        except (PromiseSettled, RunEnded):
            return True
        if not self._forgotten():
            self.faults.append(f"the promise {token} was settled twice")
        return True

    def _cancel(self, run: str, about: str) -> bool:
        with suppress(RunEnded):
            self._app.runs.cancel(run, REASON)
        return True

    def _retry(self, run: str, about: str) -> bool:
        if self._app.runs.get(run).status == FAILED:
            _mended(self._notes, about).touch()
            self._app.runs.retry(run)
        return _mended(self._notes, about).exists()

    def _replay(self, run: str, about: str) -> bool:
        if self._app.runs.get(run).status != FAILED:
            return False
        _mended(self._notes, about).touch()
        self._app.runs.replay(run, from_step="charge")
        return True

    def _revise(self, run: str, about: str) -> bool:
        """As if the step had not failed."""
        if self._app.runs.get(run).status != FAILED:
            return False
        self._app.runs.replay(run, from_step="charge", set={"charge": 3})
        return True

    def _call(self, run: str, about: str) -> bool:
        called = self._calls[about] = self._calls.get(about) or self._app.call("growing", {"nap": 0.05})
        try:
            result = called.result(timeout=0)
        except RunTimeout:
            return False
        if result != called.run_id:
            self.faults.append(f"the call {called.run_id} has returned {result!r}")
        return True


def _letters(notes: Path) -> Path:
    return Path(f"{notes}.letters")


def _mended(notes: Path, about: str) -> Path:
    return Path(f"{notes}.mended.{about}")
