"""`flow promise`: what a run waits for is settled from a terminal; `flow show` tells of children and promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowlib import Event
from flowlib.middleware import Encryption
from flowlib.testing import Stored, check_invariants
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


def test_of_many_that_are_cancelled_one_may_be_the_child_of_another(flow: Flow, case: Case) -> None:
    """BEHAVIOURS 97, 98: it has ended with that, which is what was asked for."""

    @case.function(on="child")
    def child(event: Event, step):  # type: ignore[no-untyped-def]
        step.wait_for_event("never", "never")

    @case.function()
    def parent(event: Event, step):  # type: ignore[no-untyped-def]
        return step.invoke("ask", "child", {})

    case.send()
    until(lambda: [run.state for run in case.app.runs.list()] == ["waiting"] * 2)
    said = flow("cancel", "--status", "waiting", "--yes", apart=True)
    assert (said.code, len(said.out.splitlines())) == (0, 2), said
    assert {run.status for run in case.app.runs.list()} == {"cancelled"}


SEALED = """
from flowlib import App
from flowlib.middleware import Encryption
app = App("case", middleware=[Encryption({"new": bytes(range(32))})])
"""


def test_what_is_said_on_the_command_line_is_sealed_as_the_app_does(flow: Flow, case: Case) -> None:
    """BEHAVIOURS 128: values of promises, and memos that are given to a replay."""
    Path("sealed_app.py").write_text(SEALED)
    case.use_middleware([Encryption({"new": bytes(range(32))})])

    @case.function()
    def f(event: Event, step):  # type: ignore[no-untyped-def]
        promise = step.promise("answer")
        step.run("mail", lambda: case.ledger.append(promise.token))
        return [promise.result(), step.run("look", lambda: "secret")]

    run = case.send()
    token = until(lambda: case.ledger and case.ledger[0])
    assert flow("promise", "resolve", token, '"ada@example.com"', "--app", "sealed_app:app").code == 0
    assert case.ended(run).result == ["ada@example.com", "secret"]
    said = flow("replay", run, "--from", "look", "--set", 'look="bob@example.com"', "--app", "sealed_app:app", "--json")
    assert case.ended(said.document["id"]).result == ["ada@example.com", "bob@example.com"]
    stored = repr(Stored(case.app.store).values)
    assert "@example.com" not in stored
