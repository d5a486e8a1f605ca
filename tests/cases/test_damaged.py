"""What nobody can ever read, in the stream: it is said once, and holds nothing else up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowlib import App, Ending, Event, matching, trigger
from flowlib.codec import encode
from flowlib.middleware import ClaimCheck, Encryption
from flowlib.sealed import seal
from flowlib.testing import check_invariants
from flowlib.worker.housekeeping import Housekeeper
from tests.cases.case import Case, only_sync
from tests.patience import until

KEY = bytes(range(32))

DAMAGED = [
    seal("aes-gcm", each) for each in (b"", b"\x09", b"\x03new", b"\x03newshort", b"\x03new" + bytes(40), b"\x01\xff")
]
DAMAGED += [seal("claim-check", each) for each in (b"", b"\xff", b"../../etc/passwd")]
DAMAGED += [b"\xc7\x00\x0b", b"\xd4\x0b\x05", b"\xc1"]


@only_sync
def test_an_event_whose_data_are_damaged_fails_its_run_and_holds_no_other_event_up(case: Case, tmp_path: Path) -> None:
    """Nothing of it can get better; so nobody waits for that."""
    case.use_middleware([Encryption({"new": KEY}), ClaimCheck(str(tmp_path))])

    @case.function(on=["damaged", trigger("test", when=lambda event: True)], retries=3, cancel_on=matching("stop", "n"))
    def f(event: Event[Any], step: Any) -> Any:
        return event.data["n"]

    @case.function(on="note")
    def g(event: Event[Any], step: Any) -> Any:
        yield step.wait_for_event("it", "damaged", match={"n": 1}, timeout=60)

    waits = case.send(event=Event("note", {}))
    until(lambda: case.app.runs.get(waits).state == "waiting")
    store = case.app.store
    store.send_events(
        [(f"{name}-{n}", name, data, 0, "") for n, data in enumerate(DAMAGED) for name in ("damaged", "test")]
    )
    assert case.run({"n": 7}).result == 7
    ended = [case.ended(case.app.runs.of_event(f"damaged-{n}")[0]) for n in range(len(DAMAGED))]
    for run in ended:
        assert (run.status, run.error and run.error.type, run.attempt) == ("failed", "PayloadError", 1)
    assert case.app.runs.get(waits).state == "waiting"
    assert ended[-1].event.data == "<1 bytes that are damaged>"
    assert case.app.runs.list(match={"n": 1}) == []


@only_sync
def test_an_invocation_that_is_none_starts_nothing_and_holds_no_event_up(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any: ...

    case.start()
    wrong: list[Any] = [7, [], ["case"], ["case", ["f"], "r", "", True, b""], ["case", "f", 7, "", True, b""], {}]
    case.app.store.send_events([(f"i-{n}", "flow/invoke", encode(each), 0, "") for n, each in enumerate(wrong)])
    assert case.run().status == "completed"
    assert len(case.app.runs.list()) == 1


@pytest.mark.parametrize("readers", [[], [Encryption({"other": KEY})]], ids=["no-middleware", "another-key"])
@only_sync
def test_that_a_run_has_failed_is_told_also_if_that_is_because_nobody_can_open_its_data(
    case: Case, readers: Any
) -> None:
    """BEHAVIOURS 42."""
    case.use_middleware(readers)
    told: list[Any] = []

    def handler(event: Event[Ending], step: Any) -> None:
        told.append((event.data.error and event.data.error.type, event.data.event.data))

    @case.function(retries=0, on_failure=handler)
    def f(event: Event[Any], step: Any) -> Any: ...

    case.start()
    sent = App("elsewhere", middleware=[Encryption({"new": KEY})]).connect(store=case.app.store)
    (run,) = until(lambda: case.app.runs.of_event(sent.send(Event("test", {}, id="sealed"))))
    assert case.ended(run).status == "failed"
    until(lambda: told)
    assert told == [("PayloadError", "<33 bytes, sealed by aes-gcm>")]


@only_sync
def test_an_event_is_not_lost_though_somebody_has_deleted_the_jobs_that_wait_for_it(case: Case) -> None:
    """BEHAVIOURS 56; I4: also of those that wait side by side."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        first, second = (step.expect_event(f"wait-{n}", "told", match={"n": n}, timeout=3600) for n in range(2))
        return [found.id for found in step.gather(first, second)]

    run = case.send()
    store = case.app.store
    until(lambda: store.client.hlen(f"{store.keys.prefix}:waits:case") == 2)
    store.client.delete(*(store.keys.rq_job(f"{run}-wait-{n}") for n in range(2)))
    case.app.send([Event("told", {"n": n}, id=f"told-{n}") for n in range(2)])
    until(lambda: len(case.entries(run, "recorded")) == 2)
    house = Housekeeper(store, "the test", event_retention_ms=0)
    until(lambda: house.reconcile(suspicion=0.0) or case.app.runs.get(run).finished)
    assert case.ended(run).result == ["told-0", "told-1"]
    assert check_invariants(store) == []
