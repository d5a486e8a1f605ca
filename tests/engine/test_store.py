"""Every transition by itself: its reply may be lost, its sender may be late, Redis may be full or have lost its scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from flowlib import ServerError
from flowlib.journal import ENTRY, RUN
from flowlib.outcome import of_entry
from flowlib.records import Claim, Lease
from flowlib.server import Server
from flowlib.testing import AFTER, BEFORE, cut, faulty_wire
from flowlib.wire import Script

from .conftest import Desk

Act = Callable[[Desk, Lease], str]

# What the holder of step a's job may do, each as (does it need the memo of a, the act, its verdict).
ACTS: dict[str, tuple[bool, Act, str]] = {
    "commit_step": (False, lambda desk, lease: desk.commit(lease), "recorded"),
    "commit_step in place": (True, lambda desk, lease: desk.commit_next(lease), "recorded"),
    "place_job": (True, lambda desk, lease: desk.place(lease), "placed"),
    "chain_job": (True, lambda desk, lease: desk.push(lease), "queued"),
    "chain_job to a sleep": (True, lambda desk, lease: desk.sleep(lease), "scheduled"),
    "fail_attempt with a back-off": (False, lambda desk, lease: desk.fail(lease), "retrying"),
    "fail_attempt without": (False, lambda desk, lease: desk.fail(lease, delay_ms=0), "retrying"),
    "fail_attempt between steps": (True, lambda desk, lease: desk.fail(lease, level="function"), "retrying"),
    "finish_run": (True, lambda desk, lease: desk.finish(lease), "finished"),
}
acts = pytest.mark.parametrize("name", ACTS)


# -- a lost reply: the same call comes again -------------------------------------------------------------------------


@acts
def test_a_transition_that_comes_again_gets_the_same_verdict_and_writes_nothing(desk: Desk, name: str) -> None:
    """Its reply was lost. I1, I7."""
    needs_memo, act, verdict = ACTS[name]
    lease = desk.at_step()
    if needs_memo:
        assert desk.commit(lease) == "recorded"
    assert act(desk, lease) == verdict
    after = desk.stored()
    assert act(desk, lease) == verdict
    assert desk.stored() == after
    assert desk.faults() == []


def test_start_run_that_comes_again_names_the_run_of_the_first_time(desk: Desk) -> None:
    """BEHAVIOURS 117; I5: another run id makes no difference, the event id decides."""
    started, run = desk.start("event")
    assert started == 1
    after = desk.stored()
    assert desk.start("event") == [0, run]
    assert desk.start("event", run="01ANOTHERRUNANOTHERRUN0000") == [0, run]
    assert desk.stored() == after
    assert desk.start("other")[0] == 1


def test_a_release_that_comes_again_writes_nothing(desk: Desk) -> None:
    lease = desk.at_step()
    assert desk.store.release_job(lease, "shutdown") == "released"
    after = desk.stored()
    assert desk.store.release_job(lease, "shutdown") == "fenced"
    assert desk.stored() == after
    assert desk.claim().attempt == 1
    assert desk.faults() == []


def test_a_cancel_that_comes_again_says_that_it_is_done(desk: Desk) -> None:
    """BEHAVIOURS 101; I6."""
    lease = desk.at_step()
    assert desk.store.cancel_run(lease.run, "why not") == ("cancelled", lease.job, "anna")
    after = desk.stored()
    assert desk.store.cancel_run(lease.run, "again") == ("ended", "cancelled")
    assert desk.stored() == after
    assert desk.store.cancel_run("01NOSUCHRUN", "") == ("unknown",)
    assert desk.stored() == after


def claim_again(desk: Desk, lease_ms: int = 60_000) -> Claim:
    """The same call, with the same execution id, whenever it comes."""
    claim = desk.store.claim_job("anna", "exec-1", lease_ms, "desk", ["flow"])
    assert isinstance(claim, Claim)
    return claim


def test_a_claim_that_comes_again_gets_the_same_job_and_writes_nothing(desk: Desk) -> None:
    """Nothing else is taken, and the lease of the first time need not run out. I4, I7."""
    desk.start("one")
    desk.start("two", run="01ANOTHERRUNANOTHERRUN0000")
    lease, after = claim_again(desk).lease, desk.stored()
    assert claim_again(desk).lease == lease
    assert desk.stored() == after
    assert desk.store.claim_job("anna", "exec-2", 60_000, "desk", ["flow"]) != "idle"
    assert desk.faults() == []


def test_a_claim_that_comes_late_when_its_sender_has_gone_on_in_place_writes_nothing(desk: Desk) -> None:
    """Its first job keeps the end that it had. I7."""
    desk.start()
    lease = claim_again(desk).lease
    assert desk.store.place_job(lease, lease.job, "", of_entry(ENTRY), desk._spec(lease, "a", RUN), age_ms=0, losses=0)
    assert desk.commit(lease) == "recorded"
    assert desk.commit_next(lease) == "recorded"
    after = desk.stored()
    assert desk.store.claim_job("anna", "exec-1", 60_000, "desk", ["flow"]) == "idle"
    assert desk.stored() == after


def test_a_claim_that_comes_again_after_its_lease_was_lost_takes_what_is_there(desk: Desk) -> None:
    """I2: it is a new lease."""
    desk.start()
    claim_again(desk, lease_ms=0)
    assert len(desk.store.reap()) == 1
    assert claim_again(desk).losses == 1
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"
    assert desk.faults() == []


def test_a_claim_that_comes_again_when_its_job_has_been_deleted_finds_nothing(desk: Desk) -> None:
    desk.start()
    store, again = desk.store, ("anna", "exec-1", 60_000, "desk", ["flow"])
    claim = store.claim_job(*again)
    assert isinstance(claim, Claim)
    store.client.delete(store.keys.rq_job(claim.lease.job))
    assert store.claim_job(*again) == "idle"


def test_a_claim_that_nobody_knows_of_is_put_back_when_its_lease_runs_out(desk: Desk) -> None:
    """Nobody knows of the lease, so nobody renews it. BEHAVIOURS 39; I4."""
    desk.start()
    unheard = desk.claim(lease_ms=0)
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"
    assert desk.store.reap() == [(unheard.lease.job, "anna")]
    assert desk.store.reap() == []
    again = desk.claim("bert")
    assert (again.lease.job, again.attempt, again.losses) == (unheard.lease.job, 1, 1)
    assert desk.faults() == []


def test_an_entry_that_is_twice_in_a_queue_is_run_once(desk: Desk) -> None:
    """A producer's or RQ's own resend of a push."""
    _, run = desk.start()
    desk.store.client.rpush("rq:queue:flow", run)
    assert f"job {run.decode()}: 2 times in its queue" in desk.faults()
    desk.claim()
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"
    assert desk.faults() == []


@acts
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_connection_that_breaks_on_the_way_changes_nothing(desk: Desk, name: str, when: str, at: int) -> None:
    """BEHAVIOURS 146; I1: what was not answered is sent again, in order, and done once. A memo takes three commands."""
    needs_memo, act, verdict = ACTS[name]
    lease = desk.at_step()
    if needs_memo:
        desk.commit(lease)
    desk.use_wire(faulty_wire(cut, at, when))
    assert act(desk, lease) == verdict
    assert desk.faults() == []
    assert len(desk.history(lease.run, "recorded")) == needs_memo + name.startswith("commit_step")


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("at", [1, 2])
def test_a_memo_on_a_connection_that_breaks_is_sent_again_before_the_run_goes_on(
    desk: Desk, when: str, at: int
) -> None:
    """I9: the memo is posted, the next transition follows it."""
    lease = desk.at_step()
    desk.use_wire(faulty_wire(cut, at, when))
    desk.store.wire.post(desk.committing(lease), lambda _: None)
    assert desk.place(lease) == "placed"
    assert desk.runs.outputs(lease.run) == {"a": 1}
    assert desk.faults() == []


# -- a late report: the lease is lost --------------------------------------------------------------------------------


@acts
def test_who_has_lost_the_lease_writes_nothing(desk: Desk, name: str) -> None:
    """BEHAVIOURS 40, 132; I2: neither while nobody has the job, nor when another worker has it."""
    needs_memo, act, _ = ACTS[name]
    late = desk.at_step(lease_ms=0)
    if needs_memo:
        assert desk.commit(late) == "recorded"
    assert desk.store.reap() == [(late.job, "anna")]
    before = desk.stored()
    if name != "commit_step":
        assert act(desk, late) == "fenced"
        assert desk.stored() == before
    desk.claim("bert")
    before = desk.stored()
    if name == "commit_step":
        assert act(desk, late) == "fenced"
    assert desk.store.release_job(late, "shutdown") == "fenced"
    assert act(desk, late) == "fenced" or needs_memo
    assert desk.stored() == before


def test_two_workers_on_one_step_give_one_memo_and_both_are_traced(desk: Desk) -> None:
    """BEHAVIOURS 39, 40, 147; I1, I2."""
    zombie = desk.at_step(lease_ms=0, worker="anna")
    desk.store.reap()
    heir = desk.claim("bert").lease
    assert heir.job == zombie.job
    assert desk.commit(zombie, "of the zombie") == "fenced"
    assert desk.commit(heir, "of the heir") == "recorded"
    assert desk.commit(zombie, "of the zombie") == "fenced"
    assert desk.place(zombie) == "fenced"
    assert desk.place(heir) == "placed"
    assert desk.runs.outputs(heir.run) == {"a": "of the heir"}
    told = [(e.kind, e.worker) for e in desk.history(heir.run, "claimed", "lost", "recorded") if e.step == "1:a"]
    assert told == [("claimed", "anna"), ("lost", "anna"), ("claimed", "bert"), ("recorded", "bert")]
    assert desk.faults() == []


def test_of_two_workers_that_end_a_run_at_once_one_does_and_its_end_is_told_once(desk: Desk) -> None:
    """BEHAVIOURS 46, 47; I2, I6: also if neither hears of it, and says so again."""
    desk.store.client.hset(desk.store.keys.listeners, "desk", "\nflow/run.finished\nflow/run.completed\n")
    zombie = desk.at_step(lease_ms=0, worker="anna")
    desk.commit(zombie)
    desk.store.reap()
    heir = desk.claim("bert").lease
    line, verdicts = threading.Barrier(2), list[str]()

    def end(lease: Lease) -> None:
        line.wait(15)
        verdicts.extend(desk.finish(lease) for _ in range(2))

    threads = [threading.Thread(target=end, args=[lease]) for lease in (zombie, heir)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(verdicts) == ["fenced"] * 2 + ["finished"] * 2
    entries: Any = desk.store.client.xrange(desk.store.keys.events)
    assert sorted(fields[b"name"] for _, fields in entries) == [b"flow/run.completed", b"flow/run.finished"]
    assert desk.faults() == []


def test_the_first_memo_wins_also_against_its_own_writer(desk: Desk) -> None:
    """I1."""
    lease = desk.at_step()
    assert desk.commit(lease, "first") == "recorded"
    after = desk.stored()
    desk.commit(lease, "second")
    assert desk.stored() == after
    assert desk.runs.outputs(lease.run) == {"a": "first"}


def test_nothing_can_be_done_to_a_run_that_has_ended(desk: Desk) -> None:
    """I6."""
    desk.commit(desk.at_step(event_id="other"))  # which gives step a its label in the metrics
    lease = desk.at_step()
    desk.store.cancel_run(lease.run, "")
    before = desk.stored()
    for name, (_, act, _) in ACTS.items():
        assert act(desk, lease) == "fenced", name
    assert desk.stored() == before


# -- Redis restarted: its scripts are gone ---------------------------------------------------------------------------


@acts
def test_scripts_that_redis_has_lost_are_loaded_again(desk: Desk, name: str) -> None:
    """As after a restart. BEHAVIOURS 146."""
    needs_memo, act, verdict = ACTS[name]
    lease = desk.at_step()
    if needs_memo:
        desk.commit(lease)
    desk.store.client.script_flush()
    assert act(desk, lease) == verdict
    assert desk.faults() == []


@pytest.mark.parametrize("known", ["place_job", None])
def test_a_memo_whose_script_was_missing_is_sent_again_before_the_run_goes_on(desk: Desk, known: str | None) -> None:
    """The memo is posted, its reply is read with that of the next transition. I9: nothing goes on without it."""
    lease = desk.at_step()
    desk.store.client.script_flush()
    if known is not None:
        desk.store.client.script_load(Script(known).source)
    desk.store.wire.post(desk.committing(lease), lambda _: None)
    assert desk.place(lease) == "placed"
    assert desk.runs.outputs(lease.run) == {"a": 1}
    assert desk.faults() == []


def test_a_run_does_not_go_on_without_its_memo(desk: Desk) -> None:
    """I9: whoever lost the memo on the way is told so, and nothing is written."""
    lease = desk.at_step()
    before = desk.stored()
    assert desk.place(lease) == "unrecorded"
    assert desk.finish(lease) == "unrecorded"
    assert desk.stored() == before


# -- Redis full ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_desk(fresh_server: Server) -> Iterator[Desk]:
    desk = Desk(fresh_server.url, patience=0.3)
    yield desk
    desk.store.close()


def fill(desk: Desk) -> None:
    desk.store.client.config_set("maxmemory", 1)


def test_a_full_redis_refuses_new_runs_and_events_and_keeps_nothing_of_them(small_desk: Desk) -> None:
    """I10: back-pressure at the door."""
    small_desk.start("taken")
    before = small_desk.stored()
    fill(small_desk)
    with pytest.raises(OutOfMemoryError):
        small_desk.start("refused")
    with pytest.raises(ServerError, match="full and refuses new work: raise maxmemory; nothing was stored"):
        small_desk.store.send_events([("id", "go", b"\x80", 0, "")])
    with pytest.raises(OutOfMemoryError):
        small_desk.claim()
    small_desk.store.client.config_set("maxmemory", 0)
    assert small_desk.stored() == before
    assert small_desk.start("refused")[0] == 1


def test_who_sends_to_a_replica_is_told_what_to_name_instead(small_desk: Desk) -> None:
    """I10: as after a failover that the address does not know of."""
    before = small_desk.stored()
    small_desk.store.client.replicaof("127.0.0.1", 1)  # where nobody is
    with pytest.raises(ServerError, match=r"is a replica, which takes no writes: .*redis\+sentinel://"):
        small_desk.store.send_events([("id", "go", b"\x80", 0, "")])
    small_desk.store.client.replicaof("NO", "ONE")
    assert small_desk.stored() == before


@acts
def test_a_run_that_is_under_way_goes_on_when_redis_is_full(small_desk: Desk, name: str) -> None:
    """BEHAVIOURS 37: finished work is recorded, and an attempt is used up by the step's own errors only."""
    needs_memo, act, verdict = ACTS[name]
    lease = small_desk.at_step()
    fill(small_desk)
    if needs_memo:
        assert small_desk.commit(lease) == "recorded"
    assert act(small_desk, lease) == verdict
    small_desk.store.client.config_set("maxmemory", 0)
    assert small_desk.faults() == []


def test_a_full_redis_can_still_be_tidied(small_desk: Desk) -> None:
    """Dead workers' jobs go back, timers fire, runs are cancelled, leases renewed."""
    small_desk.start("lost")
    lost = small_desk.claim(lease_ms=0).lease
    small_desk.start("asleep")
    held = small_desk.claim().lease
    small_desk.sleep(held, recorded="", ms=0)
    fill(small_desk)
    assert small_desk.store.reap() == [(lost.job, "anna")]
    assert small_desk.store.fire_due()[0] == 1
    assert small_desk.store.cancel_run(lost.run, "full")[0] == "cancelled"
    assert small_desk.store.renew_leases("anna", 1000, 60, [held.name]) == (False, [held.name])
    assert small_desk.store.keep_house("anna", 3000)
    small_desk.store.client.config_set("maxmemory", 0)
    assert small_desk.faults() == []
