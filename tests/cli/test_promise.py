"""`flow promise`: what a run waits for is settled from a terminal; `flow show` tells of children and promises."""

from __future__ import annotations

import pytest

from flowlib import Event
from flowlib.testing import check_invariants
from tests.cases.case import SYNC, Case
from tests.cli.conftest import Flow
from tests.patience import until


@pytest.fixture
def case(redis_url: str):  # type: ignore[no-untyped-def]
    case = Case(SYNC, redis_url)
    yield case
    case.close()


def test_a_promise_is_settled_by_its_token_once(flow: Flow, case: Case) -> None:
    """Resolved as JSON, or rejected with a reason; and a child is shown with its parent."""

    @case.function(on="child")
    def child(event: Event, step):  # type: ignore[no-untyped-def]
        promise = step.promise("answer")
        step.run("mail", lambda: case.ledger.append(promise.token))
        return promise.result()

    @case.function()
    def parent(event: Event, step):  # type: ignore[no-untyped-def]
        return step.invoke("ask", "child", {})

    parents = []
    for settle in (("resolve", '{"ok": true}'), ("reject", "no money")):
        parents.append(case.send())
        token = until(lambda: len(case.ledger) == len(parents) and case.ledger[-1])
        said = flow("promise", settle[0], token, settle[1], apart=True)
        assert "is re" in said.out
        assert "settled before" in flow("promise", "resolve", token).err
        case.ended(parents[-1])
    assert case.app.runs.get(parents[0]).result == {"ok": True}
    shown = flow("show", parents[0]).out
    (first,) = [run for run in case.app.runs.list(function="child") if run.parent == parents[0]]
    assert f"invoked  run {first.id}" in shown
    assert f"run {parents[0]}" in flow("show", first.id).out
    assert "Rejected: no money" in flow("show", parents[1]).out
    assert flow("show", first.id, "--json").document["parent"] == parents[0]
    assert check_invariants(case.app.store) == []
