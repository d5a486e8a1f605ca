"""`flow check`: which unfinished runs new code would break, before it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowlib import App, Event
from flowlib.testing import Stored
from tests.cli.conftest import Flow
from tests.patience import until

CODE = """
from dataclasses import dataclass
from typing import Any
from flowlib import App, AsyncStep, Event, EventType, Step
app = App("orders")

def price() -> {type}:
    return 7

@dataclass
class Order:
    id: {id}

@app.function(on=EventType("placed", Order), name="{name}", retries=0)
def order(event: Event[Order], step: Step) -> None:
    print("not to be seen")
    step.now()
    {new}
    step.{first}
    step.run("price", price)
    {late}
    step.wait_for_event("paid", "paid", match={{"order": event.data.id}})
    raise RuntimeError("behind the place where it stands")

@app.function(on="asked", name="question")
async def question(event: Event[Any], step: AsyncStep) -> None:
    await step.run("price", price)
    await step.{nap}
"""
SAME = {"type": "int", "id": "int", "name": "order", "new": "", "first": "sleep('rest', 0.01)", "late": "",
        "nap": "sleep('night', 3600)"}  # fmt: skip
SAFE = {
    "the-same": {},
    "a-step-more": {"new": "step.run('new', price)"},
    "a-step-less": {"first": "now()"},
    "a-patch": {"new": "assert not step.patched('p')"},
}
BROKEN = {
    "another-kind": ({"first": "run('rest', price)"}, ["step 'rest' began as 'sleep' and is now 'run'"]),
    "another-kind-where-it-stands": ({"nap": "wait_for_event('night', 'x')"}, ["step 'night' began as 'sleep'"]),
    "another-type": ({"type": "list[str]"}, ["step 'price': result: expected list"] * 2),
    "another-event": ({"id": "str"}, ["event 'o1': data.id: expected str"]),
    "an-error-between": ({"late": "{}['x']"}, ["KeyError: 'x'"]),
    "a-function-gone": ({"name": "new"}, ["app 'orders' has no function 'order': it would be parked"]),
}


def deploy(**changes: str) -> None:
    Path("orders.py").write_text(CODE.format(**{**SAME, **changes}))


@pytest.fixture
def unfinished(flow: Flow, redis_url: str) -> Any:
    """Two runs that wait, one of them in an async function; `unfinished()` is all that is stored."""
    deploy()
    app = App("orders", redis_url=redis_url)
    app.send([Event("placed", {"id": 1}, id="o1"), Event("asked", {}, id="q1")])

    def states() -> dict[str, str]:
        assert flow("worker", "orders:app", "--burst").code == 0  # the sleep may be over only when one has ended
        return {run.function: run.state for run in app.runs.list()}

    until(lambda: states() == {"order": "waiting", "question": "sleeping"})
    yield lambda: Stored(app.store).values
    app.store.close()


def test_what_would_break_is_listed_and_nothing_is_run_or_changed(flow: Flow, unfinished: Any) -> None:
    before = unfinished()
    for name, changes in SAFE.items():
        deploy(**changes)
        said = flow("check", "orders:app", apart=True)
        assert (said.code, said.out) == (0, "app orders: 2 unfinished runs, none would break\n"), (name, said)
    for name, (changes, problems) in BROKEN.items():
        deploy(**changes)
        said = flow("check", "orders:app", "--json", apart=True)
        broken = said.document["broken"]
        assert (said.code, said.document["checked"], len(broken)) == (1, 2, len(problems)), (name, said)
        for found, problem in zip(broken, problems, strict=True):
            assert problem in found["problem"], name
    assert unfinished() == before
    said = flow("check", "orders:app", apart=True)
    assert said.out.splitlines()[0].split() == ["RUN", "FUNCTION", "AT", "PROBLEM"]
    assert said.err == "app orders: 2 unfinished runs, 1 would break\n"


BESIDE = """
from typing import Any
from flowlib import App, Event, Step
app = App("orders")

@app.function(on="split")
def split(event: Event[Any], step: Step) -> None:
    quick = step.submit("quick", len, "quick")
    {beside}
    quick.result()
"""


def test_a_step_that_is_open_beside_others_and_is_left_out_is_named(flow: Flow, redis_url: str) -> None:
    """BEHAVIOURS 91, before a deploy."""
    same = BESIDE.format(beside="step.timer('old', 3600)")
    Path("orders.py").write_text(same)
    app = App("orders", redis_url=redis_url)
    app.send(Event("split", {}))

    def state() -> list[str]:
        assert flow("worker", "orders:app", "--burst").code == 0
        return [run.state for run in app.runs.list()]

    until(lambda: state() == ["sleeping"])
    assert flow("check", "orders:app", apart=True).code == 0
    Path("orders.py").write_text(BESIDE.format(beside="pass"))
    said = flow("check", "orders:app", "--json", apart=True)
    assert (said.code, len(said.document["broken"])) == (1, 1)
    assert "step 'old' was submitted, and the function does not ask for it" in said.document["broken"][0]["problem"]
    app.store.close()


UNDOES = """
from typing import Any
from flowlib import App, Event, NonRetriable, Step
app = App("orders")

@app.function(on="paid")
def pay(event: Event[Any], step: Step) -> None:
    step.run("pay", len, "pay")
    step.on_rollback(print)
    raise NonRetriable("as before")
"""


def test_a_run_that_undoes_what_it_has_done_may_raise_what_it_likes(flow: Flow, redis_url: str) -> None:
    Path("orders.py").write_text(UNDOES)
    app = App("orders", redis_url=redis_url)
    app.send(Event("paid", {}))

    def undoes() -> bool:
        assert flow("worker", "orders:app", "--burst", "--max-jobs", "1").code == 0
        runs = app.runs.list()
        return bool(runs) and any(entry.kind == "undoing" for entry in app.runs.history(runs[0].id))

    until(undoes)
    assert [run.status for run in app.runs.list()] == ["running"]
    said = flow("check", "orders:app", apart=True)
    assert (said.code, said.out) == (0, "app orders: 1 unfinished runs, none would break\n"), said
    app.store.close()


def test_with_no_run_there_is_nothing_to_break(flow: Flow) -> None:
    deploy()
    assert flow("check", "orders:app", apart=True).out == "app orders: 0 unfinished runs, none would break\n"


def test_an_app_that_cannot_be_imported_is_refused(flow: Flow) -> None:
    said = flow("check", "nowhere:app", apart=True)
    assert (said.code, said.out) == (1, "")
    assert "there is no module 'nowhere'" in said.err
