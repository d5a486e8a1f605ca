"""What one worker makes of a run that goes on in several places, of which others have the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowlib.capture import Recorder
from flowlib.codec import encode
from flowlib.held import HeldJob
from flowlib.journal import RUN
from flowlib.model import Memo
from flowlib.records import Claim
from flowlib.retry import DEFAULTS
from flowlib.store import Store
from flowlib.testing import AFTER, check_invariants, cut, faulty_wire
from flowlib.wire import script
from tests.patience import until

from .conftest import Desk


class Hands:
    """A worker that plays, by hand, a run of steps `each[0]` to `each[3]`, of which any two may be open at a time."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def take(self) -> None:
        claim = until(self._claim)
        self.job = HeldJob(self.store, claim, Recorder(claim.lease.run))
        self.each = [self.job.journal.ask(RUN, f"each[{n}]", "target") for n in range(4)]

    def _claim(self) -> Claim | None:
        claim = self.store.claim_job(self.name, f"exec-{self.name}", 60_000, "desk", ["flow"])
        return claim if isinstance(claim, Claim) else None

    def fork(self, *numbers: int) -> bool:
        """Whether there is something to go on with."""
        return self.job.fork([(self.each[n], DEFAULTS, None) for n in numbers], "flow", may_stay=True)

    def commit(self, number: int) -> None:
        self.job.commit(self.each[number], Memo(encode(number, where="value")), "ok", 0.001)

    def open(self, *numbers: int) -> list[int]:
        """Of these, by all that this worker has heard."""
        return [n for n in numbers if self.each[n].key not in self.job.journal.memos]


@pytest.fixture
def other(desk: Desk) -> Iterator[Hands]:
    store = Store(desk.store.url)
    yield Hands(store, "bert")
    store.close()


def test_what_others_have_done_while_a_reply_was_lost_is_not_done_again(desk: Desk, other: Hands) -> None:
    """I3: they have done all that was left, but for the one step that is ours; so it looks as if nobody was ever there."""

    def meanwhile(wire: Any) -> None:
        other.take()
        other.commit(1)
        assert other.fork(0, 2)
        other.commit(2)
        assert other.fork(0, 3)
        other.commit(3)
        assert not other.fork(0)
        wire._connection._sock.recv(65_536)  # the reply
        cut(wire)

    desk.start()
    anna = Hands(desk.store, "anna")
    anna.take()
    desk.store.client.script_load(script("fork_run").source)
    desk.use_wire(faulty_wire(meanwhile, 1, AFTER))
    assert anna.fork(0, 1)
    anna.commit(0)
    assert anna.open(1, 2, 3) == [1, 2, 3]  # it has heard of none of them
    assert anna.job.forked  # so that it asks before it goes on
    assert anna.fork(1, 2)
    assert anna.open(1, 2, 3) == [3]
    assert anna.fork(3)
    assert anna.open(1, 2, 3) == []
    assert anna.job.complete(encode(6, where="result"), []) == ""
    desk.store.wire.settle()
    (run,) = desk.runs.list()
    assert (run.status, run.recorded) == ("completed", 4)
    assert check_invariants(desk.store) == []
