"""Waits for events: registered, found, delivered and forgotten by the scripts, whoever comes first or again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py

from flowlib import App, Event
from flowlib.codec import decode
from flowlib.dispatch import Dispatcher
from flowlib.journal import WAIT
from flowlib.model import Memo
from flowlib.outcome import SUPERSEDED, make_job
from flowlib.records import Lease, event_value, pack_memo, read_asks
from flowlib.wait import Wait

from .conftest import LEFT, LOCATION, Desk

HOUR_MS = 3_600_000.0
KEY_A = {"key": "a"}


class Waits:
    """A desk with a dispatcher, and runs that have come to their second step, the wait `w`."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        self.store.join_events("desk")
        self.app = App("sender").connect(store=self.store)
        self.dispatcher = Dispatcher("desk", {}, LOCATION, self.store, "reader", idle_ms=0)

    def holding(self, event_id: str = "event") -> Lease:
        """A run whose step a is recorded."""
        lease = self.desk.at_step(event_id=event_id)
        assert self.desk.commit(lease) == "recorded"
        return lease

    def register(self, lease: Lease, match: Any = KEY_A, ms: float = HOUR_MS, name: str = "it", more: Any = ()) -> str:
        wait = Wait(name, match, ms, None)
        told = (wait.name, wait.fields, wait.digest, wait.match, ms, *more)
        spec = make_job("desk", "errand", lease.run, LOCATION, "1:w", WAIT, None, "flow")
        return self.store.chain_job(lease, self.desk.job(lease), "1:a", LEFT, spec, sleep_ms=f"{ms}", wait=told)

    def waiting(self, event_id: str = "event", **how: Any) -> Lease:
        """A run that waits."""
        lease = self.holding(event_id)
        assert self.register(lease, **how) == "scheduled"
        return lease

    def send(self, *events: Event[Any]) -> list[Any]:
        self.app.send(list(events))
        return self.dispatcher.fresh()

    def tell(self, data: Any = KEY_A, id: str = "it-1", name: str = "it") -> list[Any]:
        """An event, sent and dispatched."""
        entries = self.send(Event(name, data, id))
        self.dispatcher.dispatch(entries)
        return entries

    def memo(self, lease: Lease) -> Any:
        """The id of the event that is recorded, None for a timeout, or `no memo`."""
        raw: Any = self.store.client.hget(self.store.keys.memo(lease.run), "1:w")
        if raw is None:
            return "no memo"
        value = decode(raw[1:])
        return value if value is None else value["id"]

    def fire(self) -> None:
        """The wait's time has come."""
        timers, client = self.store.keys.timers, self.store.client
        jobs: Any = client.zrange(timers, 0, -1)
        client.zadd(timers, dict.fromkeys(jobs, 1))
        self.store.fire_due()

    def time_out(self, lease: Lease) -> str:
        return self.desk.commit(lease, None, "w", seconds=None)

    @property
    def registered(self) -> list[str]:
        """What is left of waits in Redis."""
        stored = self.desk.stored()
        return [key for key in stored if any(f":{kind}:" in key for kind in ("waits", "fields", "waiters"))]


@pytest.fixture
def waits(desk: Desk) -> Iterator[Waits]:
    yield Waits(desk)
    assert desk.faults() == []


# -- one winner ------------------------------------------------------------------------------------------------------


def test_the_event_comes_first(waits: Waits) -> None:
    """BEHAVIOURS 56, 63: the timeout finds nothing; the job is the next one of its queue."""
    lease = waits.waiting()
    waits.desk.start("other")
    assert waits.desk.faults() == []
    waits.tell()
    assert (waits.memo(lease), waits.registered) == ("it-1", [])
    assert waits.store.fire_due() == (0, -1)
    claim = waits.desk.claim()
    assert (claim.lease.run, claim.step, claim.kind) == (lease.run, "1:w", "wait")
    assert "1:w" in claim.memos
    assert claim.record["bytes"] == str(claim.bytes).encode()


def test_the_timeout_comes_first(waits: Waits) -> None:
    """BEHAVIOURS 63: once a worker has taken the job, no event is heard."""
    waits.waiting()
    waits.fire()
    lease = waits.desk.claim("bert").lease
    assert waits.registered == []
    waits.tell()
    assert waits.memo(lease) == "no memo"
    assert waits.time_out(lease) == "recorded"
    waits.tell()
    assert waits.memo(lease) is None


def test_an_event_that_comes_between_the_timer_and_the_worker_wins(waits: Waits) -> None:
    """BEHAVIOURS 63: the job is in its queue once."""
    lease = waits.waiting()
    waits.fire()
    waits.tell()
    assert waits.memo(lease) == "it-1"
    claim = waits.desk.claim()
    assert "1:w" in claim.memos
    assert waits.store.claim_job("bert", "exec-x", 1000, "desk", ["flow"]) == "idle"


def test_a_worker_that_dies_at_the_timeout_leaves_it_to_the_next_and_to_no_event(waits: Waits) -> None:
    """BEHAVIOURS 63, 142: who took the job first has decided."""
    waits.waiting()
    waits.fire()
    waits.desk.claim("bert", lease_ms=0)
    assert len(waits.store.reap()) == 1
    waits.tell()
    lease = waits.desk.claim("carl").lease
    assert waits.time_out(lease) == "recorded"


def test_an_event_that_is_delivered_again_does_nothing(waits: Waits) -> None:
    """BEHAVIOURS 62: also not to the run's next wait for the same."""
    waits.waiting()
    entries = waits.tell()
    after = waits.desk.stored()
    waits.dispatcher.dispatch(entries)
    assert waits.desk.stored() == after
    lease = waits.desk.claim().lease
    spec = make_job("desk", "errand", lease.run, LOCATION, "2:w", WAIT, None, "flow")
    wait = Wait("it", KEY_A, HOUR_MS, None)
    told = (wait.name, wait.fields, wait.digest, wait.match, HOUR_MS)
    assert waits.store.chain_job(lease, lease.job, "1:w", LEFT, spec, sleep_ms="3600000", wait=told) == "scheduled"
    after = waits.desk.stored()
    waits.dispatcher.dispatch(entries)
    assert waits.desk.stored() == after


def test_an_event_from_before_the_wait_that_is_dispatched_after_it_does_not_count(waits: Waits) -> None:
    """BEHAVIOURS 66: the dispatcher may be late."""
    early = waits.send(Event("it", KEY_A, "early"))
    lease = waits.waiting()
    waits.dispatcher.dispatch(early)
    assert waits.memo(lease) == "no memo"
    waits.tell(id="late")
    assert waits.memo(lease) == "late"


def test_registering_again_when_the_reply_was_lost_changes_nothing(waits: Waits) -> None:
    """I7. Also when the event has come since."""
    lease = waits.waiting()
    after = waits.desk.stored()
    assert waits.register(lease) == "scheduled"
    assert waits.desk.stored() == after
    waits.tell()
    after = waits.desk.stored()
    assert waits.register(lease) == "scheduled"
    assert waits.desk.stored() == after


def test_who_has_lost_the_lease_registers_nothing(waits: Waits) -> None:
    """I2."""
    lease = waits.holding()
    waits.store.client.zrem(waits.store.keys.leases, lease.name)
    assert waits.register(lease) == "fenced"
    assert waits.registered == []
    waits.desk.house.reconcile(suspicion=0)


# -- what is left ------------------------------------------------------------------------------------------------------


def cancelled(waits: Waits, lease: Lease) -> None:
    assert waits.store.cancel_run(lease.run, "enough")[0] == "cancelled"
    waits.tell()
    assert waits.memo(lease) == "no memo"


def cancelled_when_due(waits: Waits, lease: Lease) -> None:
    waits.fire()
    cancelled(waits, lease)


def its_job_was_deleted(waits: Waits, lease: Lease) -> None:
    """By somebody with RQ's tools: the run waits on, and has its event."""
    job = waits.desk.job(lease)
    waits.store.client.delete(waits.store.keys.rq_job(job))
    waits.store.client.zrem("rq:scheduled:flow", job)
    waits.tell()
    assert waits.memo(lease) == "it-1"
    waits.desk.house.reconcile(suspicion=0)
    waits.desk.house.reconcile(suspicion=0)
    assert "1:w" in waits.desk.claim().memos


def its_timer_was_lost(waits: Waits, lease: Lease) -> None:
    """The reconciler puts it back; the wait goes on."""
    waits.store.client.zrem(waits.store.keys.timers, waits.desk.job(lease))
    assert waits.desk.house.reconcile(suspicion=0) == [lease.run]
    assert waits.desk.runs.get(lease.run).state == "waiting"
    waits.tell()
    assert waits.memo(lease) == "it-1"


@pytest.mark.parametrize(
    "end", [cancelled, cancelled_when_due, its_job_was_deleted, its_timer_was_lost], ids=lambda end: end.__name__
)
def test_nothing_of_a_wait_is_left(waits: Waits, end: Callable[[Waits, Lease], None]) -> None:
    """BEHAVIOURS 98; I4."""
    end(waits, waits.waiting())
    assert waits.registered == []


def test_waits_by_several_lists_of_fields_are_found_each_by_its_own(waits: Waits) -> None:
    by_key = waits.waiting("one")
    by_both = waits.waiting("two", match={"key": "a", "n.m": 1})
    by_none = waits.waiting("three", match={})
    other = waits.waiting("four", match={"key": "b"})
    waits.tell({"key": "a", "n": {"m": 2}}, id="first")
    assert [waits.memo(lease) for lease in (by_key, by_none)] == ["first", "first"]
    assert [waits.memo(lease) for lease in (by_both, other)] == ["no memo", "no memo"]
    waits.tell({"key": "a", "n": {"m": 1}}, id="second")
    waits.tell({"key": "b"}, id="third")
    assert [waits.memo(lease) for lease in (by_both, other)] == ["second", "third"]
    assert waits.registered == []


def test_of_many_that_wait_each_gets_the_first_event_and_the_oldest_is_at_the_front(waits: Waits) -> None:
    """BEHAVIOURS 53: in more than one script. An event that has to come again holds back those after it."""
    leases = [waits.waiting(f"{number:03}") for number in range(105)]
    waits.dispatcher.dispatch(waits.send(Event("it", KEY_A, "first"), Event("it", KEY_A, "second")))
    assert {waits.memo(lease) for lease in leases} == {"first"}
    assert waits.desk.claim().lease.run in {leases[0].run, leases[100].run}
    assert waits.registered == []
    assert waits.dispatcher.abandoned()[1] == []


def asked_of(redis: redis_py.Redis, act: Callable[[], Any]) -> list[list[str]]:
    """The commands that this takes, those within scripts too, each with its first key."""
    with redis.monitor() as monitor:
        act()
        redis.echo("over")

        def heard() -> list[str]:
            told: Any = monitor.next_command()
            return str(told["command"]).split(" ")[:2]

        told = iter(heard, ["ECHO", "over"])
        return [[command.upper(), *key] for command, *key in told]


def test_an_event_costs_no_more_where_two_hundred_times_as_many_wait(waits: Waits, redis: redis_py.Redis) -> None:
    """One look finds whom it is for, and nobody looks at all that wait."""
    leases: list[Lease] = []

    def cost(n: int, among: int) -> Counter[str]:
        leases.extend(waits.waiting(f"{n}", match={"key": n}) for n in range(len(leases), among))
        asked = asked_of(redis, lambda: waits.tell({"key": n}, id=f"it-{n}"))
        assert waits.memo(leases[n]) == f"it-{n}"
        assert {command for command, *key in asked if key == ["flow:waits:desk"]} == {"HGET", "HDEL"}
        waits.desk.claim()  # else its job is before those of the runs to come
        return Counter(command for command, *_ in asked)

    cost(3, among=10)  # from here on the dispatcher knows by what they are matched, and the server the scripts
    few = cost(5, among=10)
    assert cost(1000, among=2000) == few
    assert waits.store.client.hlen("flow:waits:desk") == 2000 - 3


def test_an_event_that_nobody_can_read_wakes_nobody_and_blocks_nothing(waits: Waits) -> None:
    lease = waits.waiting(match={})
    fields: Any = {"id": "bad", "name": "it", "data": b"\xc1", "ts": "0"}
    waits.store.client.xadd(waits.store.keys.events, fields)
    waits.dispatcher.dispatch(waits.dispatcher.fresh())
    assert waits.memo(lease) == "no memo"
    assert waits.dispatcher.abandoned()[1] == []
    waits.tell()
    assert waits.memo(lease) == "it-1"


# -- looking back ------------------------------------------------------------------------------------------------------


def test_a_wait_that_has_not_looked_at_all_events_is_not_registered(waits: Waits) -> None:
    """BEHAVIOURS 66: nothing falls between looking and registering."""
    lease = waits.holding()
    waits.send(Event("it", KEY_A, "first"), Event("other", {}))
    looked, more, ((found, _),) = waits.store.find_events("it", "0-0")
    assert more is False
    waits.send(Event("other", {}))
    before = waits.desk.stored()
    assert waits.register(lease, more=(0, "0-0")) == "behind"
    assert waits.desk.stored() == before
    assert found < looked
    assert waits.register(lease, more=(0, looked)) == "scheduled"  # what came since has another name
    assert waits.desk.runs.get(lease.run).state == "waiting"


def test_a_wait_that_has_found_its_event_is_over_at_once(waits: Waits) -> None:
    """BEHAVIOURS 66; and whoever says so again is told the same."""
    lease = waits.holding()
    memo = pack_memo(Memo(event_value(("first", "it", b"\x80", 5000))))
    assert waits.register(lease, more=(0, "0-0", memo, "first")) == "scheduled"
    assert (waits.memo(lease), waits.registered) == ("first", [])
    after = waits.desk.stored()
    assert waits.register(lease, more=(0, "0-0", memo, "first")) == "scheduled"
    assert waits.desk.stored() == after
    assert waits.desk.claim().step == "1:w"


def test_events_are_looked_at_in_parts(waits: Waits) -> None:
    waits.send(*(Event("it" if number % 2 else "other", number) for number in range(10)))
    seen, after, more = [], "0-0", True
    while more:
        after, more, found = waits.store.find_events("it", after, at_most=3)
        seen += [decode(fields[b"data"]) for _, fields in found]
    assert seen == [1, 3, 5, 7, 9]


# -- a function that is asked --------------------------------------------------------------------------------------------


ASKS = (None, None, None, None, 1)  # the rest of what a wait tells: nothing but that it asks


def back(waits: Waits, lease: Lease, until_ms: float, looked: str, found: Any = (None, None)) -> str:
    """The run has come back to its wait, and has looked up to that event."""
    wait = Wait("it", KEY_A, HOUR_MS, None)
    told = (wait.name, wait.fields, wait.digest, wait.match, HOUR_MS, None, looked, *found, 1)
    spec = make_job("desk", "errand", lease.run, LOCATION, "1:w", WAIT, None, "flow")
    return waits.store.chain_job(
        lease, lease.job, "", SUPERSEDED, spec, sleep_ms=f"{HOUR_MS}", until_ms=f"{until_ms}", wait=told
    )


def test_an_event_wakes_a_run_that_asks_and_decides_nothing(waits: Waits) -> None:
    """I4: as often as it comes, the job is in its queue once; what has come is looked at from where the run was."""
    waits.waiting(more=ASKS)
    before, _, _ = waits.store.find_events("it", "0-0")
    waits.tell(id="first")
    waits.tell(id="second")
    assert waits.registered == []
    claim = waits.desk.claim()
    assert "1:w" not in claim.memos
    asks = read_asks(claim.record["asks"])
    assert asks is not None
    assert (asks[0], asks[2]) == ("1:w", before)
    looked, _, found = waits.store.find_events("it", before)
    assert [fields[b"id"] for _, fields in found] == [b"first", b"second"]
    assert back(waits, claim.lease, asks[1], before) == "behind"
    assert back(waits, claim.lease, asks[1], looked) == "scheduled"
    assert waits.desk.runs.get(claim.lease.run).steps[-1].until == pytest.approx(asks[1] / 1000)
    waits.tell(id="third")
    assert waits.memo(waits.desk.claim().lease) == "no memo"


def test_a_run_that_asks_and_whose_time_is_over_stays_where_it_is(waits: Waits) -> None:
    """BEHAVIOURS 57: unless an event has come that nobody has looked at."""
    waits.waiting(more=ASKS)
    waits.fire()
    lease = waits.desk.claim().lease
    waits.tell(id="late")
    assert back(waits, lease, 5.0, "0-0") == "behind"
    looked, _, _ = waits.store.find_events("it", "0-0")
    before = waits.desk.stored()
    assert back(waits, lease, 5.0, looked) == "over"
    assert waits.desk.stored() == before
    assert waits.time_out(lease) == "recorded"


def test_what_a_run_that_asks_has_found_is_recorded_and_it_is_over(waits: Waits) -> None:
    """BEHAVIOURS 63: also when its time is over by then."""
    waits.waiting(more=ASKS)
    waits.tell(id="it")
    lease = waits.desk.claim().lease
    memo = pack_memo(Memo(event_value(("it", "it", b"\x80", 5000))))
    assert back(waits, lease, 5.0, "0-0", (memo, "it")) == "scheduled"
    assert (waits.memo(lease), waits.registered) == ("it", [])
    assert "1:w" in waits.desk.claim().memos


@pytest.mark.parametrize("claimed", [False, True], ids=["queued", "on a worker"])
def test_a_run_that_is_woken_and_lost_on_its_way_is_put_back_at_once(waits: Waits, claimed: bool) -> None:
    """I4, BEHAVIOURS 142: it does not sleep on; the event is there to be looked at."""
    lease = waits.waiting(more=ASKS)
    waits.tell()
    if claimed:
        waits.desk.claim(lease_ms=0)
        assert len(waits.store.reap()) == 1
    else:
        waits.store.client.delete("rq:queue:flow")
        assert waits.desk.house.reconcile(suspicion=0) == [lease.run]
    assert waits.desk.claim().step == "1:w"


def test_a_run_that_asks_and_is_cancelled_leaves_nothing(waits: Waits) -> None:
    """BEHAVIOURS 98."""
    asleep, woken = waits.waiting("one", more=ASKS, match={"key": "b"}), waits.waiting("two", more=ASKS)
    waits.tell()
    for lease in (asleep, woken):
        assert waits.store.cancel_run(lease.run, "enough")[0] == "cancelled"
    assert waits.registered == []
