"""What is put right again: jobs that lost their place, runs that are cancelled in any state, workers that died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import current_timestamp

from flowlib.codec import encode
from flowlib.model import Memo
from flowlib.records import Lease, pack_memo
from flowlib.server import Server
from flowlib.store import Store
from flowlib.wire import FOREVER, Packed, Wire
from flowlib.worker.housekeeping import ABSENCE, Housekeeper
from tests.patience import until

from .conftest import Desk

State = Callable[[Desk], str]


def queued(desk: Desk) -> str:
    lease = desk.at_step()
    desk.commit(lease)
    desk.push(lease, "b")
    return lease.run


def started(desk: Desk) -> str:
    lease = desk.at_step()
    desk.store.show_job(lease, lease.job)
    return lease.run


def placed(desk: Desk) -> str:
    lease = desk.at_step()
    desk.commit(lease)
    desk.place(lease, "b")
    return lease.run


def sleeping(desk: Desk) -> str:
    lease = desk.at_step()
    desk.commit(lease)
    desk.sleep(lease)
    return lease.run


def retrying(desk: Desk) -> str:
    lease = desk.at_step()
    desk.fail(lease)
    return lease.run


def failed_between_steps(desk: Desk) -> str:
    lease = desk.at_step()
    desk.commit(lease)
    desk.fail(lease, level="function")
    return lease.run


def released(desk: Desk) -> str:
    lease = desk.at_step()
    desk.store.release_job(lease, "unknown function", delay_ms=60_000)
    return lease.run


STATES: list[State] = [queued, started, placed, sleeping, retrying, failed_between_steps, released]
states = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)


def job_of(desk: Desk, run: str) -> str:
    job = desk.store.client.hget(desk.store.keys.run(run), "job")
    assert isinstance(job, bytes)
    return job.decode()


# -- cancel ----------------------------------------------------------------------------------------------------------


@states
def test_a_cancelled_run_leaves_nothing_that_could_move_it(desk: Desk, state: State) -> None:
    """BEHAVIOURS 98: neither in a queue, nor in timers, nor on a worker, nor in RQ's registries."""
    run = state(desk)
    job = job_of(desk, run)
    assert desk.store.cancel_run(run, "why not")[:2] == ("cancelled", job)
    stored = desk.stored()
    places = ("flow:leases", "flow:timers", "rq:queue:flow", "rq:scheduled:flow", "rq:wip:flow", "rq:failed:flow")
    assert [place for place in places if any(job in entry for entry in stored.get(place, ()))] == []
    assert not [key for key in stored if key.startswith(("rq:execution:", "rq:executions:"))]
    assert stored[f"rq:job:{job}"]["status"] == "canceled"
    assert desk.runs.get(run).reason == "why not"
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"
    assert desk.faults() == []


# -- reap ------------------------------------------------------------------------------------------------------------


def test_a_dead_workers_job_goes_to_the_front_and_its_loss_uses_up_no_attempt(desk: Desk) -> None:
    """BEHAVIOURS 37, 39, 142: counted apart, and shown."""
    lost = desk.at_step(lease_ms=0)
    desk.start("younger")
    assert desk.store.reap() == [(lost.job, "anna")]
    again = desk.claim("bert")
    assert (again.lease.job, again.attempt, again.losses) == (lost.job, 1, 1)
    (step,) = desk.runs.get(lost.run).steps
    assert [(a.number, a.outcome, a.worker) for a in step.attempts] == [(1, "lost", "anna"), (1, "running", "bert")]
    assert desk.faults() == []


def test_a_lease_that_is_renewed_is_not_reaped_and_one_that_is_lost_is_told(desk: Desk) -> None:
    """BEHAVIOURS 131, 132."""
    kept, lost = desk.at_step(event_id="kept", lease_ms=0), desk.at_step(event_id="lost", lease_ms=0)
    desk.store.renew_leases("anna", 60_000, 60, [kept.name])
    assert desk.store.reap() == [(lost.job, "anna")]
    _, told = desk.store.renew_leases("anna", 60_000, 60, [kept.name, lost.name])
    assert told == [lost.name]
    assert desk.faults() == []


def test_a_heartbeat_tells_rq_of_what_was_done_and_of_nothing_else(desk: Desk) -> None:
    """BEHAVIOURS 131."""
    client, worker = desk.store.client, desk.store.keys.rq_worker("anna")
    client.hset(worker, "birth", "now")
    desk.store.renew_leases("anna", 60_000, 60, [], (0, 0, 0.0))
    assert client.hkeys(worker) == [b"birth", b"last_heartbeat"]
    desk.store.renew_leases("anna", 60_000, 60, [], (2, 1, 0.5))
    counted: Any = client.hmget(worker, "successful_job_count", "failed_job_count", "total_working_time")
    assert counted == [b"2", b"1", b"0.5"]


def test_a_lease_of_a_recorded_step_is_reaped_and_its_body_needs_not_run_again(desk: Desk) -> None:
    """BEHAVIOURS 143; I3: whoever claims the job gets the memo with it."""
    lost = desk.at_step(lease_ms=0)
    desk.commit(lost)
    desk.store.reap()
    assert desk.claim("bert").memos.keys() == {"1:a"}


@pytest.mark.parametrize("how_many", [30, 31, 32, 33, 400])
def test_a_claim_brings_all_memos_however_many(desk: Desk, how_many: int) -> None:
    """I3: of many, the worker fetches them itself."""
    lease = desk.at_step(lease_ms=0)
    memos = fill_memos(desk, lease, how_many)
    desk.store.reap()
    claim = desk.claim("bert")
    assert {key: memo.value for key, memo in claim.memos.items()} == memos
    assert claim.bytes == sum(1 + len(value) for value in memos.values())


def test_a_run_whose_many_memos_are_gone_meanwhile_is_not_played_without_them(desk: Desk) -> None:
    """I3: it was forgotten, or a replica took over that has not got them."""
    lease = desk.at_step(lease_ms=0)
    fill_memos(desk, lease, 400)
    desk.store.reap()

    class Forgetful(Wire):
        def call_all(self, batch: list[Packed]) -> list[Any]:
            if any(script is None for _, script in batch):
                desk.store.client.delete(desk.store.keys.memo(lease.run))
            return super().call_all(batch)

    desk.use_wire(Forgetful)
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"


def fill_memos(desk: Desk, lease: Lease, how_many: int) -> dict[str, bytes]:
    """Memos of so many steps before, as if they had been recorded one by one."""
    memos = {f"1:s{number}": encode("x" * 40) for number in range(how_many)}
    stored: dict[Any, Any] = {key: pack_memo(Memo(value)) for key, value in memos.items()}
    desk.store.client.hset(desk.store.keys.memo(lease.run), mapping=stored)
    desk.store.client.hset(desk.store.keys.run(lease.run), "bytes", sum(map(len, stored.values())))
    return memos


def test_what_a_worker_had_that_was_ended_on_purpose_is_handed_back_without_a_loss(desk: Desk) -> None:
    """BEHAVIOURS 37. Other workers' jobs stay where they are."""
    lease = desk.at_step()
    other = desk.at_step(event_id="other", worker="bert")
    assert desk.store.reap(worker="anna", blameless=True) == [(lease.job, "anna")]
    again = desk.claim("carl")
    assert (again.lease.job, again.attempt, again.losses, again.overdue) == (lease.job, 1, 0, False)
    assert desk.commit(other) == "recorded"
    assert desk.faults() == []


def test_of_a_worker_that_was_killed_for_one_lease_only_that_one_is_overdue_until_its_attempt_has_failed(
    desk: Desk,
) -> None:
    """Also when whoever claimed it first died before it could say so."""
    guilty, other = desk.at_step(), desk.at_step(event_id="other")
    desk.store.reap(worker="anna", blameless=True, overdue=[guilty.name])
    claims = {claim.lease.run: claim for claim in (desk.claim("bert"), desk.claim("bert"))}
    assert {run: claim.overdue for run, claim in claims.items()} == {guilty.run: True, other.run: False}
    desk.store.reap(worker="bert")
    claims = {claim.lease.run: claim for claim in (desk.claim("carl"), desk.claim("carl"))}
    assert {run: claim.overdue for run, claim in claims.items()} == {guilty.run: True, other.run: False}
    assert desk.fail(claims[guilty.run].lease, delay_ms=0) == "retrying"
    assert desk.claim("dora").overdue is False
    assert desk.faults() == []


def test_a_supervisor_renews_the_leases_of_all_its_workers_and_keeps_them_registered(desk: Desk) -> None:
    """BEHAVIOURS 131: for those that cannot do it themselves."""
    client, leases = (
        desk.store.client,
        [desk.at_step(event_id=name, worker=name, lease_ms=0) for name in ("anna", "bert")],
    )
    for name in ("anna", "bert"):
        client.hset(f"rq:worker:{name}", "birth", "today")
        client.expire(f"rq:worker:{name}", 5)
    assert desk.store.renew_leases("", 60_000, 60, [leases[0].name, "gone:1", leases[1].name]) == (False, ["gone:1"])
    assert desk.store.reap() == []
    assert [client.ttl(f"rq:worker:{name}") > 5 for name in ("anna", "bert")] == [True, True]
    assert client.keys("rq:worker:") == []


# -- timers ----------------------------------------------------------------------------------------------------------


def test_timers_fire_the_earliest_first_to_the_front_and_only_those_that_are_due(desk: Desk) -> None:
    """BEHAVIOURS 50: and once."""
    runs = {}
    for event_id in ("late", "soon", "far"):
        lease = desk.at_step(event_id=event_id)
        desk.commit(lease)
        desk.sleep(lease)
        runs[event_id] = lease.run
    desk.start("younger")
    desk.store.client.zadd(desk.store.keys.timers, {f"{runs['late']}-nap": 2, f"{runs['soon']}-nap": 1})
    fired, wait = desk.store.fire_due()
    assert fired == 2
    assert 50_000_000 < wait <= 60_000_000
    assert desk.store.fire_due()[0] == 0
    assert [desk.claim().lease.job for _ in range(2)] == [f"{runs['soon']}-nap", f"{runs['late']}-nap"]
    assert desk.runs.get(runs["far"]).state == "sleeping"
    assert desk.faults() == []


def test_a_sleep_that_a_fast_rq_scheduler_has_queued_goes_back_to_its_time(desk: Desk) -> None:
    """BEHAVIOURS 150: an hour early, by RQ's own means. RQ's registry and our timers have it as before."""
    lease = desk.at_step()
    desk.commit(lease)
    desk.sleep(lease)
    job, before = f"{lease.run}-nap", desk.stored()
    registry = ScheduledJobRegistry("flow", connection=desk.store.client, serializer=JSONSerializer)
    assert registry.get_jobs_to_schedule(current_timestamp() + 3600) == [job]
    queue = Queue("flow", connection=desk.store.client, serializer=JSONSerializer)
    with desk.store.client.pipeline() as pipe:
        queue._enqueue_job(Job.fetch(job, desk.store.client, JSONSerializer), pipeline=pipe)
        registry.remove(job, pipeline=pipe)
        pipe.execute()
    assert desk.store.claim_job("anna", "exec-early", 60_000, "desk", ["flow"]) == "idle"
    after = desk.stored()
    assert {key for key in after if after[key] != before.get(key)} <= {f"rq:job:{job}", "rq:worker:anna", "rq:queues"}
    assert desk.runs.get(lease.run).state == "sleeping"
    assert desk.faults() == []


def test_a_stray_rq_scheduler_cannot_run_a_sleep_twice(desk: Desk) -> None:
    """It pushes the job of RQ's mirror too, when that is due. The later delivery finds another status."""
    lease = desk.at_step()
    desk.commit(lease)
    desk.sleep(lease, ms=0)
    while desk.store.fire_due()[0] == 0:
        pass
    desk.store.client.rpush("rq:queue:flow", f"{lease.run}-nap")
    desk.claim()
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"


# -- reconcile -------------------------------------------------------------------------------------------------------


def without_its_job(desk: Desk, run: str) -> None:
    desk.store.client.delete(f"rq:job:{job_of(desk, run)}")


def without_its_queue(desk: Desk, run: str) -> None:
    desk.store.client.delete("rq:queue:flow")


def without_its_timer(desk: Desk, run: str) -> None:
    desk.store.client.delete(desk.store.keys.timers)


def without_its_lease(desk: Desk, run: str) -> None:
    desk.store.client.delete(desk.store.keys.leases)


def without_anything(desk: Desk, run: str) -> None:
    desk.store.client.delete("rq:queue:flow", desk.store.keys.timers, desk.store.keys.leases, "rq:scheduled:flow")
    without_its_job(desk, run)


@pytest.mark.parametrize(
    ("state", "damage"),
    [
        (queued, without_its_job), (queued, without_its_queue), (queued, without_anything),
        (started, without_its_lease), (started, without_anything), (placed, without_its_lease),
        (sleeping, without_its_timer), (sleeping, without_its_job), (sleeping, without_anything),
        (retrying, without_its_timer), (retrying, without_its_job), (retrying, without_anything),
        (released, without_its_timer),
    ],
    ids=lambda each: each.__name__,
)  # fmt: skip
def test_a_run_that_nothing_would_move_is_found_and_put_back(desk: Desk, state: State, damage: Callable) -> None:
    """I4, whoever broke it; a sleep and a back-off keep their time, a step keeps its attempt."""
    run = state(desk)
    before = desk.runs.get(run)
    damage(desk, run)
    assert desk.faults() != []
    assert desk.house.reconcile(suspicion=0.0) == [run]
    assert desk.faults() == []
    if state in (sleeping, retrying):
        assert desk.store.fire_due()[0] == 0
        desk.store.client.zadd(desk.store.keys.timers, {job_of(desk, run): 0})
        assert desk.store.fire_due()[0] == 1
    claim = desk.claim("bert")
    assert (claim.lease.run, claim.attempt) == (run, before.attempt)
    assert desk.faults() == []


@states
def test_a_run_that_something_will_move_is_left_alone(desk: Desk, state: State) -> None:
    state(desk)
    before = desk.stored()
    assert desk.house.reconcile(suspicion=0.0) == []
    assert desk.stored() == before


def test_a_run_is_put_back_only_when_it_has_looked_stranded_for_a_while(desk: Desk) -> None:
    """RQ's own moves take several commands: a job may be between two places for a moment."""
    run = queued(desk)
    without_its_queue(desk, run)
    assert desk.house.reconcile(suspicion=3600.0) == []
    assert desk.house.reconcile(suspicion=0.0) == [run]


def test_a_lease_without_a_job_is_forgotten(desk: Desk) -> None:
    lease: Lease = desk.at_step(lease_ms=0)
    desk.store.client.delete(f"rq:job:{lease.job}")
    assert desk.store.reap() == []
    assert desk.house.reconcile(suspicion=0.0) == [lease.run]
    assert desk.faults() == []


def test_a_run_cancelled_after_its_job_was_deleted_never_changes(desk: Desk) -> None:
    """I2, I6: its worker knows nothing of either."""
    lease = desk.at_step()
    desk.store.client.delete(f"rq:job:{lease.job}")
    assert desk.store.cancel_run(lease.run, "enough")[0] == "cancelled"
    assert (desk.commit(lease), desk.push(lease), desk.finish(lease)) == ("fenced",) * 3
    assert desk.faults() == []


def test_what_is_left_of_a_deleted_job_is_nobodys_job(desk: Desk) -> None:
    """Its worker handed it back, not knowing that it was deleted: who claims drops it, and its run is put back."""
    lease = desk.at_step()
    desk.store.client.delete(f"rq:job:{lease.job}")
    assert desk.store.release_job(lease, "shutdown") == "released"
    assert desk.store.claim_job("bert", "exec-b", 60_000, "desk", ["flow"]) == "idle"
    assert desk.store.client.llen("rq:queue:flow") == 0
    assert desk.house.reconcile(suspicion=0.0) == [lease.run]
    assert desk.claim("bert").lease.run == lease.run


def test_a_job_that_was_shown_while_it_replayed_is_not_shown_any_more_when_its_run_goes_on(desk: Desk) -> None:
    """RQ's tools would take it for started for a day."""
    lease = desk.at_step()
    desk.commit(lease)
    desk.store.release_job(lease, "shutdown")
    lease = desk.claim().lease
    desk.store.show_job(lease, lease.job)
    assert desk.store.client.zcard("rq:wip:flow") == 1
    assert desk.commit_next(lease) == "recorded"
    assert desk.store.client.zcard("rq:wip:flow") == 0
    assert desk.finish(lease, "b") == "finished"
    assert desk.faults() == []


def server_ms(desk: Desk) -> float:
    seconds, micros = cast(Any, desk.store.client.time())
    return float(1000 * seconds + micros / 1000)


def over_at(desk: Desk, lease: Lease) -> float:
    return cast(float, desk.store.client.zscore(desk.store.keys.leases, lease.name))


def test_on_a_machine_that_has_just_booted_the_dead_are_buried_at_once(
    desk: Desk, just_booted: Callable[[], None]
) -> None:
    """I4, I5: the first look is at all, whatever the clock says that durations are measured by; it begins there at 0."""
    lease = desk.at_step(lease_ms=1)
    until(lambda: server_ms(desk) > over_at(desk, lease))
    just_booted()
    desk.house._keep_house()
    assert desk.claim("bert").lease.job == lease.job
    assert desk.faults() == []


@pytest.mark.parametrize("at_work", [False, True])
def test_when_redis_is_back_who_lives_is_heard_before_the_dead_are_buried(fresh_server: Server, at_work: bool) -> None:
    """DESIGN §7: during an outage nobody can renew a lease, so that none has been renewed says nothing. I4."""
    desk = Desk(fresh_server.url)
    house = Housekeeper(Store(fresh_server.url, patience=FOREVER), "house", event_retention_ms=0)
    if at_work:
        house._keep_house()
    alive, dead = desk.at_step(event_id="one", lease_ms=1), desk.at_step(event_id="two", worker="bert", lease_ms=1)
    fresh_server.kill()
    round = threading.Thread(target=house._keep_house)
    round.start()
    time.sleep(2 * ABSENCE)  # for so long there is no Redis
    fresh_server.restart()
    round.join()
    assert desk.store.renew_leases("anna", 60_000, 60, [alive.name]) == (False, [])

    def buried(lease: Lease) -> bool:
        with suppress(redis.ConnectionError):  # of before
            house._keep_house()
        return desk.store.client.zscore(desk.store.keys.leases, lease.name) is None

    assert not buried(dead)
    until(lambda: buried(dead))
    assert not buried(alive)
    assert desk.faults() == []
    desk.store.close()
    house.store.close()
