"""`desk`: the acts of a worker done one by one, by hand, without a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

import pytest

from flowlib import App
from flowlib.codec import encode
from flowlib.journal import ENTRY, RUN, SLEEP
from flowlib.model import ErrorInfo, HistoryEntry, Memo
from flowlib.outcome import make_job, of_entry, of_memo
from flowlib.records import Claim, Dispatched, End, JobSpec, Lease, pack_memo
from flowlib.runs import Runs
from flowlib.store import Store
from flowlib.testing import Stored, check_invariants
from flowlib.ulid import ulid
from flowlib.wire import Packed, Wire
from flowlib.worker.housekeeping import Housekeeper

LOCATION = "nowhere:app"
ENDED = of_memo(Memo(encode(1, where="value")))
LEFT: End = ("", "", ENDED[2])  # it has ended with its memo
ERROR = ErrorInfo("ValueError", "it failed", "", "a", 1)

app = App("desk")


@app.function(on="go")
def errand(event: Any, step: Any) -> None:
    """Declared, and never called: the tests do what its worker would do."""


class Desk:
    """One store, and one function whose steps are `a`, `b`, …; a verdict is what the script replied."""

    def __init__(self, url: str, patience: float = 10.0) -> None:
        self.store = Store(url, patience=patience)
        self.store.register_app("desk", app.functions)
        self.function = app.functions["errand"]
        self.runs = Runs(lambda: self.store, "desk", app.functions)
        self.house = Housekeeper(self.store, "house", event_retention_ms=0)
        self._numbers = count(1)

    # -- a job's life ------------------------------------------------------------------------------------------------

    def start(self, event_id: str = "event", run: str = "") -> Any:
        """The reply to its start: [1 or 0, run id]."""
        run = run or ulid(1_700_000_000_000, event_id.encode().ljust(10)[:10])
        job = make_job("desk", "errand", run, LOCATION, ENTRY, RUN, None, "flow")
        event = (event_id, "go", encode({}, where="data"), 0)
        start = self.store.start(self.function, run, event, LOCATION, job)
        told: Dispatched = ("0-1", "go", [start], "go", event_id, {}, b"", (), 0, ())
        return self.store.send_all([self.store.dispatch_events("desk", [told])])[0][0]

    def claim(self, worker: str = "anna", lease_ms: int = 60_000) -> Claim:
        claim = self.store.claim_job(worker, f"exec-{next(self._numbers)}", lease_ms, "desk", ["flow"])
        assert isinstance(claim, Claim), claim
        return claim

    def at_step(
        self, step: str = "a", *, event_id: str = "event", worker: str = "anna", lease_ms: int = 60_000
    ) -> Lease:
        """A new run, and the lease of its first step's job."""
        self.start(event_id)
        lease = self.claim(worker).lease
        assert self.push(lease, step, recorded="") == "queued"
        return self.claim(worker, lease_ms).lease

    def commit(self, lease: Lease, value: Any = 1, step: str = "a", *, seconds: float | None = 0.01) -> str:
        return self.verdict_on(self.committing(lease, value, step, seconds=seconds))

    def committing(self, lease: Lease, value: Any = 1, step: str = "a", *, seconds: float | None = 0.01) -> Packed:
        memo = pack_memo(Memo(encode(value, where="value")))
        return self.store.commit_step(
            lease, self.job(lease), f"1:{step}", memo, ENDED, total=len(memo), attempt=1, outcome="ok", seconds=seconds,
            label=step, lines=b"",
        )  # fmt: skip

    def commit_next(self, lease: Lease, step: str = "b") -> str:
        """The next step in place, over before its job was made."""
        memo, spec = pack_memo(Memo(encode(2, where="value"))), self._spec(lease, step, RUN)
        return self.verdict_on(
            self.store.commit_step(
                lease, self.job(lease), f"1:{step}", memo, ENDED, total=2 * len(memo), attempt=1, outcome="ok",
                seconds=0.01, label="a", lines=b"", left=LEFT, spec=spec,
            )
        )  # fmt: skip

    def place(self, lease: Lease, to: str = "b", recorded: str = "a") -> str:
        """The next job, at once with the same worker, under the same lease."""
        spec = self._spec(lease, to, RUN)
        return self.store.place_job(lease, self.job(lease), f"1:{recorded}", LEFT, spec, age_ms=0, losses=0)

    def verdict_on(self, packed: Packed) -> str:
        return str(self.store.wire.call(packed).decode())

    def push(self, lease: Lease, to: str = "b", recorded: str = "a") -> str:
        return self.store.chain_job(lease, *self._next(lease, to, recorded, RUN))

    def sleep(self, lease: Lease, to: str = "nap", recorded: str = "a", ms: int = 60_000) -> str:
        return self.store.chain_job(lease, *self._next(lease, to, recorded, SLEEP), sleep_ms=f"{ms}")

    def _next(self, lease: Lease, to: str, recorded: str, kind: str) -> tuple[str, str, End, JobSpec]:
        """The job, what must be recorded, how it ends, and the next one; `recorded` is empty for a run's first job."""
        spec = self._spec(lease, to, kind)
        if not recorded:
            return lease.job, "", of_entry(ENTRY), spec
        return lease.job, f"1:{recorded}", LEFT, spec

    def _spec(self, lease: Lease, to: str, kind: str) -> JobSpec:
        return make_job("desk", "errand", lease.run, LOCATION, f"1:{to}", kind, None, "flow")

    def job(self, lease: Lease) -> str:
        """At which the run is."""
        found = self.store.client.hget(self.store.keys.run(lease.run), "job")
        return "" if found is None else cast(bytes, found).decode()

    def fail(self, lease: Lease, *, level: str = "step", attempt: int = 1, delay_ms: int = 60_000) -> str:
        return self.store.fail_attempt(
            lease, lease.job, "1:a", ERROR, level=level, attempt=attempt, delay_ms=delay_ms, outcome="retry", seconds=0.01,
            label="a", lines=b"",
        )  # fmt: skip

    def finish(self, lease: Lease, recorded: str = "a") -> str:
        result, step = encode("done", where="result"), f"1:{recorded}" if recorded else ""
        return self.verdict_on(self.store.finish_run(lease, self.job(lease), step, LEFT, "completed", result=result))

    def use_wire(self, wire: type[Wire]) -> None:
        """From now on, for what the store sends."""
        self.store.wire.close()
        self.store._local.wire = wire(self.store.client.connection_pool, patience=10.0)

    # -- looking -----------------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, Any]:
        """All that is stored, to be compared: two equal pictures mean that nothing was written between them."""
        return Stored(self.store).values

    def faults(self) -> list[str]:
        return check_invariants(self.store)

    def history(self, run: str, *kinds: str) -> list[HistoryEntry]:
        return [entry for entry in self.runs.history(run) if not kinds or entry.kind in kinds]


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    desk = Desk(redis_url)
    yield desk
    desk.store.close()


@pytest.fixture
def just_booted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on `time.monotonic` is as on a machine that has just booted: it counts from 0."""
    real = time.monotonic

    def boot() -> None:
        booted = real()
        monkeypatch.setattr(time, "monotonic", lambda: real() - booted)

    return boot
