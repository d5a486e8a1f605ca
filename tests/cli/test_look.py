"""`flow runs`, `show`, `logs`, `cancel` and `functions` on runs of every kind."""

from __future__ import annotations

import json
import re
import threading
from datetime import datetime

import pytest

from flowlib import Event
from flowlib.testing import check_invariants
from tests.cli import shop
from tests.cli.conftest import Flow, Said, Shop
from tests.patience import until

CLOCK = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_the_newest_first_with_what_became_of_them(flow: Flow, at_work: Shop) -> None:
    good, bad, held = at_work.order("good"), at_work.order("bad", valid=False), at_work.hold()
    said = flow("runs")
    head, *lines = said.out.splitlines()
    assert head.split() == ["RUN", "FUNCTION", "STATUS", "STARTED", "TOOK", "EVENT", "WHAT"]
    assert [line.split()[:3] for line in lines] == [
        [held, "shop/hold-the-door", "running"],
        [bad.id, "shop/fulfil", "failed"],
        [good.id, "shop/fulfil", "completed"],
    ]
    assert lines[0].endswith("  opened  hold")
    assert lines[1].endswith("  bad     check: NonRetriable: this order")
    assert lines[2].endswith("  good")


def test_a_narrow_terminal_gets_whole_ids_and_less_of_the_rest(
    flow: Flow, at_work: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [at_work.order(f"a-rather-long-event-id-{n}", valid=False).id for n in range(2)]
    for width, heads in ((200, 7), (100, 7), (75, 6), (60, 5)):
        monkeypatch.setenv("COLUMNS", str(width))
        head, *lines = flow("runs").out.splitlines()
        assert len(head.split()) == heads, head
        assert [line[:26] for line in lines] == runs[::-1]
        assert max(map(len, lines)) <= max(width, 66)


FILTERS = [
    (["--status", "failed"], ["bad"]),
    (["--status", "running"], ["opened"]),
    (["--function", "fulfil"], ["bad", "good"]),
    (["--function", "fulfil", "--status", "completed"], ["good"]),
    (["--event", "good"], ["good"]),
    (["--event", "shop/opened"], ["opened"]),
    (["--since", "1h", "--limit", "2"], ["opened", "bad"]),
    (["--since", "2999-01-01"], []),
]


def test_runs_are_filtered(flow: Flow, at_work: Shop) -> None:
    at_work.order("good")
    at_work.order("bad", valid=False)
    at_work.hold()
    for arguments, expected in FILTERS:
        found = flow("runs", "--json", *arguments).document
        assert [run["event"]["id"] for run in found] == expected, arguments


def test_no_runs_is_no_error(flow: Flow) -> None:
    said = flow("runs")
    assert (said.code, said.out) == (0, "")
    assert "no runs" in said.err
    assert flow("runs", "--json").document == []


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_tells_a_run_from_its_event_to_its_result(flow: Flow, at_work: Shop) -> None:
    """41, 117: attempts, errors and outputs of each step are there to see."""
    run = at_work.order("o1", items=2, failures=1)
    said = flow("show", run.id)
    lines = said.out.splitlines()
    assert lines[0] == f"Run {run.id}  shop/fulfil  completed"
    assert "shop/order.placed  o1" in lines[1]
    assert '"items": 2' in lines[2]
    assert '{"packed": 2}' in lines[4]
    assert row(said, "charge").count("▓") >= 1
    assert "┄" in row(said, "charge")
    assert "2x" in row(said, "charge")
    assert "─" in row(said, "rest")
    assert [line.split()[0] for line in lines if line.startswith("pack")] == ["pack"] * 4  # two rows, two steps
    assert "    ConnectionError: the bank is closed  again at" in said.out
    assert "in charge" in said.out  # the traceback
    assert '    → "paid"' in said.out


def test_show_tells_why_a_run_has_failed(flow: Flow, at_work: Shop) -> None:
    run = at_work.order("o1", valid=False)
    said = flow("show", run.id)
    assert said.out.splitlines()[0].endswith("failed")
    assert "error    NonRetriable: this order  in step check, attempt 1" in said.out
    assert said.out.count('raise NonRetriable("this order') == 1


def test_show_of_a_run_that_is_running(flow: Flow, at_work: Shop) -> None:
    said = flow("show", at_work.hold())
    assert "▶" in row(said, "hold")
    assert "so far" in said.out


def test_show_takes_the_beginning_of_an_id_and_last(flow: Flow, at_work: Shop) -> None:
    first, last = at_work.order("o1").id, at_work.order("o2").id
    unique = next(first[:n] for n in range(1, 27) if not last.startswith(first[:n]))
    assert flow("show", unique).out.startswith(f"Run {first} ")
    assert flow("show", unique.lower()).out.startswith(f"Run {first} ")
    assert flow("show", "last").out.startswith(f"Run {last} ")


def test_show_as_json_has_everything(flow: Flow, at_work: Shop) -> None:
    run = at_work.order("o1", items=1, failures=1, valid=False)
    told = flow("show", run.id, "--json").document
    assert (told["id"], told["status"], told["function"]) == (run.id, "failed", "fulfil")
    assert told["data"] == {"id": "o1", "items": 1, "failures": 1, "valid": False}
    steps = {step["id"]: step for step in told["steps"]}
    assert list(steps) == ["charge", "pack", "rest", "check"]
    assert [attempt["outcome"] for attempt in steps["charge"]["attempts"]] == ["retry", "ok"]
    assert steps["charge"]["attempts"][0]["error"]["type"] == "ConnectionError"
    assert steps["charge"]["output"] == "paid"
    assert steps["check"]["error"]["message"] == "this order\nis not valid"
    began, ended = (datetime.fromisoformat(told[name]) for name in ("created", "ended"))
    assert began < ended


def test_long_values_are_cut_unless_asked_for(flow: Flow, at_work: Shop) -> None:
    run = at_work.order("o" * 200)
    assert ("o" * 200 in flow("show", run.id).out) == ("o" * 200 in flow("show", run.id, "--full").out)
    many = at_work.order("many", items=60)
    short, full = flow("show", many.id).out, flow("show", many.id, "--full").out
    assert "pack (2)" not in short
    assert "earlier steps: --full" in short
    assert "pack (60)" in short
    assert "pack (2)" in full


def row(said: Said, step: str) -> str:
    """A step's row of the timeline: the first line that begins with it."""
    return next(line for line in said.out.splitlines() if line.startswith(f"{step} "))


def test_show_tells_what_a_run_waits_for_and_what_has_come(flow: Flow, at_work: Shop) -> None:
    """BEHAVIOURS 61."""
    run = at_work.bill("bill-1")
    assert [line["id"] for line in flow("runs", "--json", "--status", "waiting").document] == [run]
    said = flow("show", run).out
    assert re.search(r"^payment  waiting  until \S+$", said, re.MULTILINE), said
    assert re.search(
        r'^  waits for  shop/bill.paid  match {"bill": "bill-1"}  since \S+  at most 1m 0s', said, re.MULTILINE
    )
    at_work.app.send(Event("shop/bill.paid", {"bill": "bill-1", "by": "Ada"}, id="payment-1"))
    until(lambda: at_work.app.runs.get(run).finished)
    said = flow("show", run).out
    assert "at most 1m 0s  found payment-1" in said
    assert '"data": {"bill": "bill-1", "by": "Ada"}' in said
    assert "shop/thanks  at most 0 ms  timed out" in said
    payment, thanks = flow("show", "--json", run).document["steps"]
    assert (payment["wait"]["match"], payment["wait"]["found"]) == ({"bill": "bill-1"}, "payment-1")
    assert (thanks["wait"]["event"], thanks["wait"]["timed_out"]) == ("shop/thanks", True)


def test_cancel_ends_a_run_that_waits(flow: Flow, at_work: Shop) -> None:
    """BEHAVIOURS 98."""
    run = at_work.bill("bill-1")
    assert flow("cancel", run).code == 0
    assert check_invariants(at_work.app.store) == []
    assert "payment  cancelled" in flow("show", run).out


# -- logs --------------------------------------------------------------------------------------------------------------


def test_logs_show_each_attempt_with_what_it_said_and_what_became_of_it(flow: Flow, at_work: Shop) -> None:
    """126: logs and prints, of every attempt, once."""
    run = at_work.order("o1", failures=1, valid=False)
    told = CLOCK.sub("TIME", flow("logs", run.id).out).splitlines()
    worker = at_work.worker.name
    assert told == [
        f"── charge, attempt 1, on {worker}",
        "TIME INFO     charging o1",
        "── TIME charge, attempt 1: failed: ConnectionError: the bank is closed; again at TIME",
        f"── charge, attempt 2, on {worker}",
        "TIME INFO     charging o1",
        "TIME PRINT    paid \N{SNOWMAN}",
        "── TIME check, attempt 1: failed for good: NonRetriable: this order",
        f"── check, attempt 1, on {worker}",
        "TIME WARNING  no good: this order",
        "                      is not valid",
        "── TIME the run has failed: NonRetriable: this order",
    ]


def test_logs_of_one_step(flow: Flow, at_work: Shop) -> None:
    run = at_work.order("o1", valid=False)
    lines = [json.loads(line) for line in flow("logs", run.id, "--step", "charge", "--json").out.splitlines()]
    assert [(line["kind"], line["level"], line["text"]) for line in lines] == [
        ("log", "INFO", "charging o1"),
        ("log", "PRINT", "paid \N{SNOWMAN}"),
    ]
    assert {(line["step"], line["attempt"], line["worker"]) for line in lines} == {("charge", 1, at_work.worker.name)}


def test_logs_follow_a_run_to_its_end(flow: Flow, at_work: Shop) -> None:
    run = at_work.hold()
    heard: list[Said] = []
    following = threading.Thread(target=lambda: heard.append(flow("logs", run, "-f")))
    following.start()
    following.join(0.5)
    assert following.is_alive(), heard
    shop.gate.set()
    following.join(20)
    (said,) = heard
    assert [said.out.count(line) for line in ("the gate is closed", "the gate is open", "the run has completed")] == [
        1
    ] * 3


def test_logs_say_what_the_history_has_lost(flow: Flow, at_work: Shop) -> None:
    """The history is bounded, and never silently so."""
    run = at_work.order("o1")
    store = at_work.app.store
    store.client.lpop(store.keys.history(run.id), 2)
    store.client.hset(store.keys.run(run.id), "dropped", 2)
    assert flow("logs", run.id).out.startswith("… 2 of the oldest entries were dropped\n")
    assert json.loads(flow("logs", run.id, "--json").out.splitlines()[0]) == {"kind": "dropped", "entries": 2}
    assert "2 of the oldest entries of its history were dropped" in flow("show", run.id).out


# -- cancel, functions -------------------------------------------------------------------------------------------------


def test_cancel_ends_a_run_with_its_reason(flow: Flow, at_work: Shop) -> None:
    run = at_work.hold()
    assert flow("cancel", run, "--reason", "closed today").out == f"run {run} is cancelled\n"
    shop.gate.set()
    until(lambda: at_work.app.runs.get(run).finished)
    assert "closed today" in flow("runs").out
    assert "reason   closed today" in flow("show", run).out
    assert "the run was cancelled: closed today" in flow("logs", run).out


def test_many_are_counted_first_and_then_cancelled_and_the_others_are_left_alone(flow: Flow, at_work: Shop) -> None:
    """BEHAVIOURS 98."""
    bills = [at_work.bill(f"bill-{n}") for n in range(3)]
    done = at_work.order("o1").id
    chosen = ("--function", "collect", "--match", "to=ada")
    listed = flow("cancel", *chosen, "--dry-run", "--json").document
    assert [(each["id"], each["status"]) for each in listed] == []
    refused = flow("cancel", "--function", "collect")
    assert (refused.code, "--yes, to cancel 3 runs" in refused.err) == (2, True)
    said = flow("cancel", "--since", "1h", "--yes", "--reason", "closed")
    assert sorted(said.out.splitlines()) == sorted(f"run {run} is cancelled" for run in bills)
    assert {at_work.app.runs.get(run).reason for run in bills} == {"closed"}
    assert at_work.app.runs.get(done).status == "completed"
    assert flow("cancel", "--status", "waiting", "--yes").out == ""
    assert check_invariants(at_work.app.store) == []


def test_logs_tell_that_a_cancelled_run_undoes_what_it_has_done_first(flow: Flow, at_work: Shop) -> None:
    event = at_work.app.send(Event("shop/booked", {}))
    until(lambda: [run.state for run in at_work.app.runs.list(event=event)] == ["waiting"])
    (run,) = at_work.app.runs.of_event(event)
    flow("cancel", run, "--reason", "closed")
    until(lambda: at_work.app.runs.get(run).finished)
    told = flow("logs", run).out
    assert "the run is cancelled: closed: what it has done is undone first" in told
    assert "released" in told.partition("undone first")[2]


def test_cancel_as_json(flow: Flow, at_work: Shop) -> None:
    run = at_work.hold()
    assert flow("cancel", "last", "--json").document == {"id": run, "status": "cancelled", "reason": ""}


def test_functions_are_those_that_workers_have_declared(flow: Flow, at_work: Shop) -> None:
    lines = flow("functions").out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["shop/book", "shop/booked", "flow", "3"],
        ["shop/collect", "shop/bill.sent", "flow", "3"],
        ["shop/fulfil", "shop/order.placed", "flow", "3"],
        ["shop/hold-the-door", "shop/opened", "flow", "3"],
    ]
    described = flow("functions", "--app", "shop", "--json").document
    assert [function["name"] for function in described] == ["book", "collect", "fulfil", "hold-the-door"]
    assert flow("functions", "--app", "other", "--json").document == []


def test_no_functions_is_no_error(flow: Flow) -> None:
    said = flow("functions")
    assert (said.code, said.out) == (0, "")
    assert "no functions yet" in said.err


# -- retry -------------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_retried_and_what_became_of_it_is_shown(
    flow: Flow, at_work: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = at_work.order("bad", valid=False).id
    monkeypatch.setattr(shop.check, "__code__", (lambda order: None).__code__)  # as if mended
    assert flow("retry", bad[:20]).out == f"run {bad} goes on: step 'check' is tried again\n"
    until(lambda: at_work.app.runs.get(bad).finished)
    shown = flow("show", bad).out
    assert "completed" in shown.splitlines()[0]
    assert "retried  once, after it had failed" in shown
    assert "the run is retried: again from check" in flow("logs", bad).out
    assert flow("show", bad, "--json").document["retried"] == 1
    said = flow("retry", bad)
    assert (said.code, said.out) == (1, "")
    assert f"run {bad} has not failed, it is completed: `flow replay {bad}` makes a new run" in said.err
    assert "does not exist" in flow("retry", "01JUNK").err
