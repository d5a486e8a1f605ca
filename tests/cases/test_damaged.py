"""What nobody can ever read, in the stream: it is said once, and holds nothing else up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowlib import Event, matching, trigger
from flowlib.codec import encode
from flowlib.middleware import ClaimCheck, Encryption
from flowlib.sealed import seal
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
