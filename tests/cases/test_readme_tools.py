"""README's five lines for each tool: taken from the page and run, word for word; only hours and days are made short."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flowlib
from flowlib import AsyncStep, Event, NonRetriable, Step, middleware
from flowlib.cli import main
from flowlib.middleware import StepInfo
from flowlib.testing import check_invariants
from tests.cases.case import SYNC, Case
from tests.patience import until

PAGE = (Path(__file__).parents[2] / "README.md").read_text()
(SECTION,) = re.findall(r"^## Each tool in five lines\n(.*?)^## ", PAGE, flags=re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", SECTION, flags=re.DOTALL)
DECLARED = [block for block in BLOCKS if block.startswith(("@app.function", "def ", "class "))]
EVERYWHERE = {"run", "sleep", "run_id", "attempt", "log"}  # of a step: on the page long before
SHORT = {"timedelta(days=30)": "timedelta(seconds=0.05)", '"0 3 * * *"': '"* * * * * *"'}


class Tools:
    """The page's functions, and the plain ones that it leaves to the reader, which note what they are called with."""

    def __init__(self, case: Case, short: Mapping[str, str]) -> None:
        self.case, self.app, self.noted = case, case.app, list[str]()
        self.names: dict[str, Any] = {
            **{name: getattr(flowlib, name) for name in flowlib.__all__}, "app": case.app, "asyncio": asyncio, "Any": Any,
            "timedelta": timedelta, "Iterator": Iterator, "contextmanager": contextmanager, "StepInfo": StepInfo, "time": time,
            "datetime": datetime, "UTC": UTC, "new_key": secrets.token_bytes(32), "old_key": secrets.token_bytes(32),
            **{name: getattr(middleware, name) for name in middleware.__all__},
            **{name: self.plain(name) for name in ("mail", "label", "reserve", "release")},
            **{name: self.plain(name, of="order") for name in ("pack", "bill")}, "download": self.download,
        }  # fmt: skip
        for block in DECLARED:
            for long, brief in short.items():
                block = block.replace(long, brief)
            self.say(block)

    def plain(self, name: str, of: str = "") -> Callable[[Any], str]:
        def body(what: Any) -> str:
            said = f"{name} {what.get(of, '') if of else what}"
            self.noted.append(said)
            if "full" in said:
                raise NonRetriable(f"{said}: there is none")
            return f"{name.removesuffix('e')}ed {what.get(of, '') if of else what}"

        return body

    def download(self, url: str) -> str:
        raise NonRetriable(f"no {url}")

    def say(self, block: str, **names: Any) -> None:
        exec(compile(block, "README.md", "exec"), self.names | names if names else self.names)

    def call(self, part: str, **names: Any) -> None:
        """The block that is no declaration and has this in it."""
        (block,) = [block for block in BLOCKS if block not in DECLARED and part in block]
        self.say(block, **names)

    def flow(self, command: str, **modules: str) -> str:
        """The command of the page that begins so, with other names for its modules."""
        (line,) = [line for line in COMMANDS if line.startswith(command)]
        for module, real in modules.items():
            line = line.replace(f"{module}:", f"{real}:")
        said = CliRunner(env={"FLOW_REDIS_URL": self.app.store.url}).invoke(main, _words(line))
        assert said.exit_code == 0, said.output
        return said.output

    def run(self, event: str, data: Any, **settings: Any) -> flowlib.Run:
        return self.case.ended(self.begin(event, data, **settings))

    def begin(self, event: str, data: Any, **settings: Any) -> str:
        """The first run that the event starts."""
        sent = self.app.send(Event(event, data, **settings))
        runs = until(lambda: self.app.runs.of_event(sent))
        return str(runs[0])

    def waits(self, run: str, state: str = "waiting") -> None:
        until(lambda: self.app.runs.get(run).state == state)


def _words(line: str) -> list[str]:
    import shlex

    return shlex.split(line, comments=True)[1:]


@pytest.fixture
def tools(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Tools]:
    case = Case(SYNC, redis_url, name="shop")
    made = Tools(case, getattr(request, "param", {}))
    case.start()
    yield made
    assert check_invariants(case.app.store) == []
    case.close()


def short(*long: str) -> Any:
    return pytest.mark.parametrize("tools", [{each: SHORT[each] for each in long}], indirect=True, ids=["short"])


def test_each_takes_about_five_lines_and_none_is_missing() -> None:
    for block in BLOCKS:
        for part in re.split(r"\n\n", block):
            assert len(part.strip().splitlines()) <= 6, part
    code = "\n".join(BLOCKS)
    tools = {name for face in (Step, AsyncStep) for name in dir(face) if not name.startswith("_")} - EVERYWHERE
    assert {name for name in tools if f".{name}(" not in code} == set()
    others = {"trigger", "cron", "matching", "run_failed", "Ending", *middleware.__all__} - {"RunInfo"}
    assert {name for name in others if name not in code} == set()


def test_steps_side_by_side(tools: Tools) -> None:
    run = tools.run("order.placed", {"order": 7, "total": 5, "items": ["a", "b"]})
    assert run.result == ["packed 7", "labeled a", "labeled b"], run.error
    assert sorted(tools.noted) == ["bill 7", "label a", "label b", "mail billed 7", "pack 7"]


def test_coroutines(tools: Tools) -> None:
    run = tools.run("report.asked", {"names": ["x", "y"], "order": 7})
    assert run.result == ["labeled x", "labeled y", "packed 7"], run.error


def test_the_first_of_several(tools: Tools) -> None:
    left = tools.begin("cart.left", {"cart": 7})
    tools.waits(left)
    tools.run("order.placed", {"cart": 7, "order": 7, "total": 5, "items": []})
    assert tools.case.ended(left).result == "bought"


def test_wait_for_an_event(tools: Tools) -> None:
    claimed = tools.begin("expense.claimed", {"id": 7, "boss": "eve"})
    tools.waits(claimed)
    tools.app.send([Event("expense.decided", {"id": n, "verdict": f"verdict {n}"}) for n in (6, 7)])
    assert tools.case.ended(claimed).result == "verdict 7"


def test_one_event_of_several_kinds(tools: Tools) -> None:
    due = tools.begin("invoice.due", {"id": 7, "customer": "ada"})
    tools.waits(due)
    tools.app.send([Event("invoice.waived", {"id": n}) for n in (6, 7)])
    until(lambda: {step.id: step.status for step in tools.app.runs.get(due).steps}.get("large") == "waiting")
    tools.app.send([Event("deposit.made", {"amount": amount}) for amount in (99, 101)])
    assert tools.case.ended(due).result == "invoice.waived 101"


def test_a_promise(tools: Tools) -> None:
    asked = tools.begin("expense.is_large", {})
    tools.waits(asked)
    (noted,) = tools.noted
    tools.call("app.promises.resolve", token=noted.removeprefix("mail "))
    assert tools.case.ended(asked).result is True


def test_another_function(tools: Tools) -> None:
    run = tools.run("order.paid", {"order": 7, "items": []})
    assert run.result == "billed 7packed 7", run.error
    tools.call("app.call")


def test_events_that_a_function_sends(tools: Tools) -> None:
    run = tools.run("account.made", {"mail": "ada@example.com"})
    (joined, crm) = run.result
    assert crm == "crm-7"
    (watching,) = until(lambda: tools.app.runs.of_event(joined))
    assert tools.case.ended(watching).result == "labeled user/joined"


@short("timedelta(days=30)")
def test_time_and_chance(tools: Tools) -> None:
    run = tools.run("trial.begun", {})
    code = run.result.removeprefix("mailed ")
    assert [word.split()[1] for word in tools.noted] == [code, code]
    assert tools.noted[0].split()[2] in ("a", "b")


def test_triggers(tools: Tools) -> None:
    small, large = (tools.app.send(Event("order.placed", {"order": n, "total": n, "items": []})) for n in (100, 101))
    until(lambda: len(tools.app.runs.of_event(large)) == 2 and len(tools.app.runs.of_event(small)) == 1)
    (watching,) = tools.app.runs.list(function="watch")
    assert (watching.event.id, tools.case.ended(watching.id).result) == (large, "labeled order.placed")


@short('"0 3 * * *"')
def test_cron(tools: Tools) -> None:
    (first, *_) = until(lambda: tools.app.runs.list(function="nightly", status="completed"))
    run = tools.app.runs.get(first.id)
    assert datetime.strptime(run.result, "labeled of %d.%m.%Y").date() == run.event.data["tick"].date()


def test_handlers_and_time_limits(tools: Tools) -> None:
    run = tools.run("import.asked", {"url": "http://nowhere"})
    assert (run.status, run.error and run.error.message) == ("failed", "no http://nowhere")
    until(lambda: any(line.startswith("mail fetch failed: ErrorInfo(") for line in tools.noted))


def test_ends_of_runs(tools: Tools) -> None:
    failed = tools.app.call("shop/invoice", {"order": "full"}).run_id
    (called,) = until(lambda: tools.app.runs.list(function="call-the-office"))
    tools.case.ended(called.id)
    assert tools.noted[-1].startswith(f"mail {failed} of shop: ErrorInfo(")
    tools.run("import.asked", {"url": "http://nowhere"})
    assert [run.id for run in tools.app.runs.list(function="call-the-office")] == [called.id]


def test_later(tools: Tools) -> None:
    tools.call("ts=datetime.now")
    (run,) = until(lambda: tools.app.runs.list(function="trial"))
    tools.waits(run.id, "sleeping")
    assert tools.noted == []


def test_cancelled_by_events_or_by_hand(tools: Tools) -> None:
    runs = [tools.begin("order.shipped", {"id": n, "customer": name}) for n, name in enumerate(["bob", "ada", "eve"])]
    for run in runs:
        tools.waits(run, "sleeping")
    tools.app.send(Event("order.returned", {"order": 0}))
    assert tools.case.ended(runs[0]).status == "cancelled"
    tools.flow("flow cancel")
    assert [tools.app.runs.get(run).status for run in runs] == ["cancelled", "cancelled", "running"]


def test_undo(tools: Tools) -> None:
    bad = tools.run("trip.booked", {"flight": "LH 1", "hotel": "full"})
    assert (bad.status, bad.error and bad.error.message) == ("failed", "reserve full: there is none")
    assert tools.noted == ["reserve LH 1", "reserve full", "release reserved LH 1"]


def test_again(tools: Tools) -> None:
    failed = tools.run("import.asked", {"url": "http://nowhere"})
    booked = tools.run("trip.booked", {"flight": "LH 1", "hotel": "Ritz"})
    assert (failed.status, booked.result) == ("failed", ["reserved LH 1", "reserved Ritz"])
    tools.call("app.runs.retry", failed=failed.id, booked=booked.id)
    assert tools.case.ended(failed.id).retried == 1
    (replayed,) = tools.app.runs.get(booked.id).replays
    assert tools.case.ended(replayed).result == ["reserved LH 2", "reserved Ritz"]
    tools.case.ended(tools.begin("trip.booked", {"flight": "LH 1", "hotel": "Ritz"}))
    tools.flow("flow replay last")
    (newest, *_) = tools.app.runs.list(function="book")
    assert tools.case.ended(newest.id).result == ["reserved LH 3", "reserved Ritz"]


def test_changed_code(tools: Tools) -> None:
    run = tools.run("parcel.sent", {"order": 7, "parcel": "P-7"})
    assert run.result == "packed 7", run.error
    assert tools.noted == ["label P-7", "pack 7"]
    tools.begin("expense.claimed", {"id": 7, "boss": "eve"})
    assert tools.flow("flow check", shop=tools.app.location.partition(":")[0]) == (
        "app shop: 1 unfinished runs, none would break\n"
    )


def test_middleware(tools: Tools) -> None:
    _use_that_of(tools, tools.names["timed"])
    tools.run("parcel.sent", {"order": 7, "parcel": "P-7"})
    assert any(re.fullmatch(r"mail send took \d\.\d{3} s", line) for line in tools.noted), tools.noted


def test_middleware_that_is_built_in(tools: Tools) -> None:
    tools.call("Encryption(")
    _use_that_of(tools, tools.names["sealed"])
    run = tools.run("parcel.sent", {"order": 7, "parcel": "P-7"})
    assert run.result == "packed 7", run.error
    client, keys = tools.app.store.client, tools.app.store.keys
    for stored in (client.hgetall(keys.memo(run.id)), client.hgetall(keys.run(run.id)), client.xrange(keys.events)):
        assert not re.search("P-7|packed", str(stored))


def _use_that_of(tools: Tools, app: flowlib.App) -> None:
    """From the next worker on, which takes the place of the one that there is."""
    tools.case.use_middleware_of(app)
    tools.case.start()
    for worker, _ in tools.case._workers[:1]:
        worker.stop()
