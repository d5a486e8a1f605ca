"""A slot that takes up a run again reads of its many memos only the new ones, and is given nothing but what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack
import pytest

from flowlib.codec import encode
from flowlib.model import Memo
from flowlib.outcome import make_job
from flowlib.records import Lease, pack_memo, unpack_memo
from flowlib.store import Store, recalled
from flowlib.store.recalled import Recollection
from flowlib.wire import Packed, Wire
from tests.engine.conftest import ENDED, ERROR, LEFT, LOCATION, Desk

MANY = 40
Act = Callable[[Desk, Lease], None]


class Slot:
    """A store with a memory, as a worker's slot has one; it counts how often all memos of a run were read."""

    def __init__(self, desk: Desk) -> None:
        slot = self

        class Counting(Wire):
            def call_all(self, batch: list[Packed]) -> list[Any]:
                slot.reads += sum(b"HGETALL" in packed for packed, script in batch if script is None)
                return super().call_all(batch)

        self.reads = 0
        self.store: Store = desk.store.alone()
        self.store._local.wire = Counting(desk.store.client.connection_pool, patience=1.0)

    def claim(self, desk: Desk, run: str) -> Lease:
        """The run's job; what came with it is what is stored."""
        desk.store.client.hset(desk.store.keys.run(run), "bytes", 2000)
        claim = self.store.claim_job("anna", f"slot-{next(desk._numbers)}", 0, "desk", ["flow"])
        assert not isinstance(claim, str), claim
        stored: Any = desk.store.client.hgetall(desk.store.keys.memo(run))
        assert claim.memos == {key.decode(): unpack_memo(memo) for key, memo in stored.items()}
        assert claim.bytes == sum(map(len, stored.values()))
        desk.store.reap()
        return claim.lease


def many_memos(desk: Desk) -> str:
    """A run with so many, its job in the queue."""
    lease = desk.at_step(lease_ms=0)
    memo = pack_memo(Memo(encode("x" * 40)))
    desk.store.client.hset(desk.store.keys.memo(lease.run), mapping={f"1:s{n}": memo for n in range(MANY)})
    desk.store.reap()
    return lease.run


def nothing(desk: Desk, lease: Lease) -> None:
    pass


def a_step(desk: Desk, lease: Lease) -> None:
    assert desk.commit(lease) == "recorded"


def steps(desk: Desk, lease: Lease) -> None:
    assert desk.commit(lease) == "recorded"
    assert desk.commit_next(lease) == "recorded"


def a_line(desk: Desk, lease: Lease) -> None:
    desk.store.add_lines(lease, lines(1))


def many_lines(desk: Desk, lease: Lease) -> None:
    for _ in range(3):
        desk.store.add_lines(lease, lines(100))


def a_value(desk: Desk, lease: Lease) -> None:
    note = desk.store.note_value(lease, "=now:1", pack_memo(Memo(encode(1))), "")
    assert desk.store.wire.call(note) == b"recorded"


def a_loss(desk: Desk, lease: Lease) -> None:
    """A server that comes back without its last second, and is told another memo in its place."""
    keys, client = desk.store.keys, desk.store.client
    length = client.llen(keys.history(lease.run))
    client.ltrim(keys.history(lease.run), 0, 2)
    client.hdel(keys.memo(lease.run), "1:s0")
    client.hset(keys.memo(lease.run), "1:t0", pack_memo(Memo(encode("other"))))
    desk.store.add_lines(lease, lines(int(length)))


def lines(many: int) -> bytes:
    return cast(bytes, msgpack.packb([[0.0, "INFO", "test", "a line", "1:a", 1]] * many))


@pytest.mark.parametrize(
    ("meanwhile", "reads"),
    [(nothing, 0), (a_step, 0), (steps, 0), (a_line, 0), (many_lines, 1), (a_value, 1), (a_loss, 1)],
)
def test_a_slot_is_given_what_is_stored_and_reads_all_of_it_only_where_it_must(
    desk: Desk, meanwhile: Act, reads: int
) -> None:
    """I3."""
    run, slot = many_memos(desk), Slot(desk)
    slot.claim(desk, run)
    assert slot.reads == 1
    lease = desk.claim("bert", lease_ms=0).lease
    meanwhile(desk, lease)
    desk.store.reap()
    for _ in range(2):
        slot.claim(desk, run)
    assert slot.reads == 1 + reads


def test_a_memo_that_was_replaced_is_read_anew(desk: Desk) -> None:
    """I1 but for a retry, which takes back the memo of an error: the slot has seen that one."""
    run, slot = many_memos(desk), Slot(desk)
    lease = desk.claim("bert", lease_ms=0).lease
    failed = desk.store.commit_step(
        lease, desk.job(lease), "1:a", pack_memo(Memo(error=ERROR)), ENDED, total=2000, attempt=1, outcome="failed",
        seconds=0.01, label="a", lines=b"",
    )  # fmt: skip
    assert desk.verdict_on(failed) == "recorded"
    desk.store.reap()
    slot.claim(desk, run)
    lease = desk.claim("bert", lease_ms=0).lease
    end = desk.store.finish_run(lease, desk.job(lease), "1:a", LEFT, "failed", error=ERROR)
    assert desk.verdict_on(end) == "finished"
    spec = make_job("desk", "errand", run, LOCATION, "1:a", "run", None, "flow")
    assert desk.store.retry_run(run, "token", spec) == ("retried", "1:a")
    assert desk.commit(desk.claim("bert", lease_ms=0).lease, "now it works") == "recorded"
    desk.store.reap()
    slot.claim(desk, run)
    assert slot.reads == 2


def test_what_a_slot_remembers_is_bounded_and_the_run_played_least_lately_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recalled, "MOST_BYTES", 100)
    recollection = Recollection()
    for run, size in (("a", 40), ("b", 40), ("c", 40), ("d", 101)):
        recollection.keep(run, recalled.Recalled({}, size, b"", 1, b""))
        if run == "c":
            assert recollection.take("a") is None
            found = recollection.take("b")
            assert found is not None
            recollection.keep("b", found)
    assert [run for run in "abcd" if recollection.take(run)] == []
