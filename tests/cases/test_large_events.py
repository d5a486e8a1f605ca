"""Events of nearly the greatest size, several in one `send`: each starts its run, which gets all of its data."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

from flowlib import Event
from flowlib.middleware import ClaimCheck
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place
from tests.cases.test_sealing import all_that_is_stored, files
from tests.patience import until

MOST = 512 * 1024  # bytes of an event's data
MB = 1024 * 1024
EIGHT = range(8)


def blob(n: int, size: int) -> bytes:
    """Another one for each n, in which no part is like another."""
    return random.Random(n).randbytes(size)


def weighing(case: Case) -> None:
    """A function that says what its data are, as its step has had them and as it has them in a further pass."""

    def weigh(data: Any) -> str:
        case.ledger.append(data["n"])
        return sha256(data["blob"]).hexdigest()

    @case.function(on="weigh")
    def f(event: Event[Any], step: Any) -> Any:
        weighed = yield step.run("weigh", weigh, event.data)
        yield step.sleep("nap", 0.01)
        return [event.data["n"], weighed, sha256(event.data["blob"]).hexdigest()]


def send_eight(case: Case, size: int) -> None:
    """All in one `send`; all have ended, with the data of their own event, when this returns."""
    case.start()
    sent = case.app.send([Event("weigh", {"n": n, "blob": blob(n, size)}) for n in EIGHT])
    until(lambda: all(case.app.runs.of_event(event) for event in sent))
    runs = [case.ended(case.app.runs.of_event(event)[0]) for event in sent]
    assert {run.status for run in runs} == {"completed"}
    digests = [sha256(blob(n, size)).hexdigest() for n in EIGHT]
    assert [run.result for run in runs] == [[n, digests[n], digests[n]] for n in EIGHT]
    assert sorted(case.ledger) == list(EIGHT)
    assert check_invariants(case.app.store) == []


def test_eight_events_of_nearly_the_greatest_size_start_each_its_run_with_all_of_its_data(case: Case) -> None:
    """BEHAVIOURS 17, as far as there is such a thing: a run has one event, and larger data are kept apart, as below."""
    weighing(case)
    send_eight(case, MOST - 20)


@in_place
def test_eight_events_of_a_megabyte_that_are_kept_apart_start_each_its_run_with_all_of_its_data(
    case: Case, tmp_path: Path
) -> None:
    """BEHAVIOURS 17, 129."""
    case.use_middleware([ClaimCheck(f"file://{tmp_path}/kept")])
    weighing(case)
    send_eight(case, MB)
    assert len(files(tmp_path)) == len(EIGHT)
    assert len(all_that_is_stored(case)) < MB
