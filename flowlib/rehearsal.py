"""How an unfinished run would fare with this code: its function is replayed over its memos, up to where it stands.

No body runs, nothing is sent and nothing is written. What is outside steps runs, as it does at every replay.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from .asking import vanished
from .attempt import StepCall
from .engine import Engine
from .errors import Interrupt, StepFailed
from .frame import Frame
from .function import Function
from .held import HeldJob
from .journal import ENDING, Place, id_of
from .middleware import Hooks
from .model import Memo
from .records import Claim, Lease, text, unpack_memo
from .retry import Options
from .store import Store
from .wait import Due


class _Silent(HeldJob):
    """A job that nobody has claimed: what the function asks for between its steps is made up."""

    def keep_value(self, key: str, memo: Memo, clear: Memo | None = None) -> None:
        self.journal.record(key, clear or memo)

    def drop(self, steps: Sequence[str]) -> bool:
        del steps
        return True


class Rehearsal(Frame):
    def __init__(self, engine: Engine, fn: Function, claim: Claim) -> None:
        super().__init__(engine, fn, claim, by_rq=False)
        journal, open = self.job.journal, self.job.open
        self.job = _Silent(engine.store, claim, self.recorder)
        self.job.journal, self.job.open = journal, open
        self._hooked = None

    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> StepCall:
        """What is not known yet is where the run stands; when that would be due is of no interest."""
        del due
        self.guard(step_id)
        op = self.job.journal.ask(kind, step_id, target)
        if self.job.journal.place(op) is not Place.KNOWN:
            self._unwind()
        return StepCall(self, op, target, options)

    def _advance(self, call: StepCall) -> None:
        del call
        mine = self._wants.get(self.job.journal.mine)
        if mine is not None:
            self.job.journal.place(mine.call.op)  # is it still of that kind?
        self._unwind()

    def problem(self, open: Sequence[str]) -> BaseException | None:
        """What the function raises before it has come to where the run stands; or which of the `open` steps it leaves out.

        One that undoes what it has done may raise whatever it likes.
        """
        if ENDING in self.memos:
            return None
        try:
            with _unheard():
                self._call_function()
            return next((vanished(step) for step in open if step not in self.memos), None)
        except Interrupt:
            pass
        except BaseException as error:
            # a step that had failed before fails its function with the old code, too
            return error if self.alive and not isinstance(error, StepFailed) else None
        return self._fatal


@contextmanager
def _unheard() -> Iterator[None]:
    """What the function logs or prints has been heard when it really ran."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)


def rehearse(store: Store, function: Function, run_id: str, hooks: Hooks | None) -> tuple[str, str] | None:
    """The step at which the run stands, and what would become of it; '' for nothing wrong. None: it has ended meanwhile."""
    with store.client.pipeline() as pipe:
        pipe.hgetall(store.keys.run(run_id))
        pipe.hgetall(store.keys.memo(run_id))
        pipe.hkeys(store.keys.open(run_id))
        stored, packed, open = pipe.execute()
    record = {key.decode(): value for key, value in stored.items()}
    if record.get("status") != b"running":
        return None
    lease = Lease("", "", record["job"].decode(), run_id, function.app, function.name, record["queue"].decode())
    memos = {text(key): unpack_memo(memo) for key, memo in packed.items()}
    claim = Claim(lease, text(record["step"]), record["kind"].decode(), 1, 1, 0, 0.0, record, memos, 0)
    engine = Engine(store, "", lease_ms=0, rng=random.Random(0), hooks=hooks)
    try:
        error = Rehearsal(engine, function, claim).problem([text(step) for step in open])
    finally:
        engine.close()
    return id_of(claim.step), "" if error is None else f"{type(error).__name__}: {error}"
