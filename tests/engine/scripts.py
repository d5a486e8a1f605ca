"""The methods of `model_of_runs.Model`, done by the real scripts in a real Redis; and what is stored, in the model's words."""

from __future__ import annotations

from typing import Any

import msgpack

from flowlib.codec import encode
from flowlib.journal import BODILESS, RUN, SLEEP
from flowlib.model import Memo
from flowlib.outcome import NOTHING, SUPERSEDED, make_job, of_error
from flowlib.records import Claim, End, JobSpec, Lease, pack_memo, read_asks
from flowlib.testing import Stored

from .conftest import ENDED, ERROR, LEFT, LOCATION, Desk
from .model_of_runs import Held, Model

LABEL = "a"
LONG = 3_600_000  # ms: nothing runs out by itself within an example


class Scripts:
    def __init__(self, desk: Desk) -> None:
        self.desk, self.store, self.client = desk, desk.store, desk.store.client
        self.ids: list[str] = []  # of all events so far
        self.store._call("name_label", "desk", "errand", LABEL, key=self.store.keys.metrics("desk"))

    # -- transitions -------------------------------------------------------------------------------------------------

    def start(self, run: str) -> bool:
        return bool(self.desk.start(event_id=run, run=run)[0])

    def claim(self, worker: str, exec: str) -> object:
        claim = self.store.claim_job(worker, exec, LONG, "desk", ["flow"])
        if not isinstance(claim, Claim):
            return claim
        memos = {step: memo.value.decode() for step, memo in claim.memos.items()}
        return claim.lease.job, claim.step, claim.attempt, claim.calls, claim.losses, memos, self._asks(claim)

    def _asks(self, claim: Claim) -> tuple[str, bool, int]:
        step, until, looked = read_asks(claim.record.get("asks")) or ("", 0, "0-0")
        return step, until < self.client.time()[0] * 1000, self.number(looked)

    def set_asks(self, name: str, asks: tuple[str, int, int]) -> None:
        step, until, looked = asks
        packed = msgpack.packb((step, until, self.id(looked)))
        self.client.hset(self.store.keys.run(name), "asks", packed)

    def id(self, number: int) -> str:
        return self.ids[number - 1] if number else "0-0"

    def number(self, id: str) -> int:
        """Of that event: the first is 1."""
        return 0 if id == "0-0" else self.ids.index(id) + 1

    def commit(self, held: Held, memo: str, new: bool, kind: str, after: str) -> str:
        packed = pack_memo(Memo(memo.encode()))
        more: dict[str, Any] = {"spec": spec_of(held, held.step, kind), "left": left_of(held)} if new else {}
        command = self.store.commit_step(
            lease_of(held), held.at, held.step, packed, ENDED, total=len(packed), attempt=held.attempt, outcome="ok",
            seconds=None if kind in BODILESS else 0.01, label=LABEL, lines=b"",
            after=after, **more,
        )  # fmt: skip
        return self.desk.verdict_on(command)

    def place(self, held: Held, to: str) -> str:
        spec = spec_of(held, to, RUN)
        return self.store.place_job(
            lease_of(held), held.at, held.after, left_of(held), spec, age_ms=0, losses=held.losses
        )

    def chain(self, held: Held, to: str, kind: str) -> str:
        spec, sleep_ms = spec_of(held, to, kind), str(LONG) if kind == SLEEP else ""
        return self.store.chain_job(lease_of(held), held.at, held.after, left_of(held), spec, sleep_ms=sleep_ms)

    def fail(self, held: Held, level: str, delay: bool) -> str:
        return self.store.fail_attempt(
            lease_of(held), held.at, held.step, ERROR, level=level, attempt=held.attempt, delay_ms=delay * LONG,
            outcome="retry", seconds=0.01, label=LABEL, lines=b"", recorded=held.after,
        )  # fmt: skip

    def finish(self, held: Held) -> str:
        ended = LEFT if held.recorded else of_error(ERROR)
        result = encode("done", where="result")
        command = self.store.finish_run(lease_of(held), held.at, held.after, ended, "completed", result=result)
        return self.desk.verdict_on(command)

    def release(self, held: Held, delay: bool) -> str:
        return self.store.release_job(lease_of(held), "shutdown", job=held.at, delay_ms=delay * LONG)

    def show(self, held: Held) -> None:
        self.store.show_job(lease_of(held), held.at)

    def renew(self, leases: list[str]) -> list[str]:
        return self.store.renew_leases("", LONG, 60, leases)[1]

    def cancel(self, name: str, token: str) -> tuple[str, ...]:
        return tuple(part.decode() for part in self.store._call("cancel_run", name, "enough", token))

    def reap(self, worker: str, blameless: bool) -> list[tuple[str, str]]:
        return self.store.reap(worker=worker, blameless=blameless)

    def fire(self) -> int:
        return self.store.fire_due()[0]

    def reconcile(self, name: str) -> bool:
        record = Stored(self.store).runs[name]
        step, kind = record["step"], record["kind"]
        return self.store.reconcile_run(name, make_job("desk", "errand", name, LOCATION, step, kind, None, "flow"))

    # -- what RQ's tools do ------------------------------------------------------------------------------------------

    def lose(self, name: str) -> None:
        self.client.lrem("rq:queue:flow", 0, name)
        self.client.zrem("flow:timers", name)
        self.client.zrem("rq:scheduled:flow", name)

    def delete(self, name: str) -> None:
        self.client.lrem("rq:queue:flow", 0, name)
        self.client.zrem("rq:scheduled:flow", name)
        self.client.delete(f"rq:job:{name}")

    def deliver(self, name: str) -> None:
        self.client.rpush("rq:queue:flow", name)

    def requeue(self, name: str) -> None:
        self.client.hset(f"rq:job:{name}", "status", "queued")
        self.client.rpush("rq:queue:flow", name)


def lease_of(held: Held) -> Lease:
    return Lease(held.worker, held.exec, held.claimed, held.run, "desk", "errand", "flow")


def spec_of(held: Held, step: str, kind: str) -> JobSpec:
    return make_job("desk", "errand", held.run, LOCATION, step, kind, None, "flow")


def left_of(held: Held) -> End:
    if held.recorded:
        return LEFT
    return NOTHING if held.at == held.run else SUPERSEDED


def differences(model: Model, stored: Stored) -> list[str]:
    """Where all that is stored is not what the model says: nowhere, if the scripts keep their promises."""
    queue, keys = stored.values.get("rq:queue:flow", []), stored.values
    pairs: dict[str, tuple[object, object]] = {
        "queue": (model.queue, queue),
        "timers": (set(model.timers), set(stored.timers)),
        "leases": (set(model.leases), set(stored.leases)),
        "memo bytes": (model.memo_bytes, int(keys.get("flow:metrics:desk", {}).get("memo_bytes|errand||", 0))),
        "runs": (set(model.runs), set(stored.runs)),
        "jobs": (set(), stored.jobs.keys() - model.jobs.keys()),
        "unfinished": (
            {name for name, run in model.runs.items() if run.status == "running"},
            set(keys.get("flow:active:desk", {})),
        ),
    }
    for name, run in model.runs.items():
        told = stored.runs[name]
        said = run.status, run.state, run.job, run.step, run.kind, str(run.attempt), str(run.bytes), run.due > 0
        heard = *(told[f] for f in ("status", "state", "job", "step", "kind", "attempt", "bytes")), told["due"] != ""
        pairs[f"run {name}"] = said, heard
        memos = {step: f"v{memo}" for step, memo in run.memos.items()}
        pairs[f"memos of {name}"] = memos, keys.get(f"flow:memo:{name}", {})
        if run.status == "running":
            pairs[f"is the job of {name} there"] = run.job in model.jobs, run.job in stored.jobs
    for name, job in stored.jobs.items():
        its = model.jobs.get(name)
        if its is not None:
            counted = (job.get("flow_attempt", "1"), job.get("flow_calls", "1"), job.get("flow_losses", "0"))
            said_of = its.status, its.lease, str(its.attempt), str(its.calls), str(its.losses)
            pairs[f"job {name}"] = said_of, (job.get("status"), job.get("flow_lease", ""), *counted)
    return [f"{what}: {is_} is stored, not {ought}" for what, (ought, is_) in pairs.items() if ought != is_]
