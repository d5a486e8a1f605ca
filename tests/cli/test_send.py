"""`flow send`: one event or many, and what comes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis as redis_py

from flowlib.codec import decode
from tests.cli.conftest import Flow, Shop, run_flow

ORDER = '{"id": "o1", "items": 2}'


def sent(redis: redis_py.Redis) -> list[dict[str, bytes]]:
    entries: Any = redis.xrange("flow:events")
    return [{name.decode(): value for name, value in fields.items()} for _, fields in entries]


def test_an_event_is_stored_as_it_was_said(flow: Flow, redis: redis_py.Redis) -> None:
    data = {"name": "Jürgen \N{SNOWMAN}", "big": 2**70, "nested": [1.5, None, True]}
    said = flow("send", "x", "--data", json.dumps(data), "--id", "17", "--ts", "2026-11-22T18:30:00+01:00")
    assert (said.code, said.out) == (0, "event 17 is sent\n")
    assert "no worker has declared a function on 'x' yet" in said.err
    (event,) = sent(redis)
    assert decode(event["data"]) == data
    assert (event["name"], event["id"]) == (b"x", b"17")
    assert float(event["ts"]) / 1000 == datetime(2026, 11, 22, 17, 30, tzinfo=UTC).timestamp()


def test_data_may_come_from_a_file_from_standard_input_or_not_at_all(flow: Flow, redis: redis_py.Redis) -> None:
    Path("data.json").write_bytes(b'\xef\xbb\xbf{"from": "file"}')  # as some editors save it
    assert flow("send", "x", "--data", "@data.json").code == 0
    assert flow("send", "x", "--data", "-", input='{"from": "stdin"}').code == 0
    assert flow("send", "x").code == 0
    assert [decode(event["data"]) for event in sent(redis)] == [{"from": "file"}, {"from": "stdin"}, {}]


def test_the_runs_that_it_starts_are_told(flow: Flow, at_work: Shop) -> None:
    said = flow("send", "shop/order.placed", "--data", ORDER, "--id", "o1", apart=True)
    assert said.out.splitlines() == ["event o1 is sent", f"run {at_work.run_of('o1')}  fulfil"]
    assert said.err == ""


def test_json_tells_the_same(flow: Flow, at_work: Shop) -> None:
    said = flow("send", "shop/order.placed", "--data", ORDER, "--id", "o1", "--json", apart=True)
    assert said.document == {"event": "o1", "runs": [at_work.run_of("o1")]}


def test_an_event_id_that_was_sent_before_is_said_to_start_nothing(flow: Flow, at_work: Shop) -> None:
    """101: sending it again is safe, and shows the run of the first time."""
    at_work.order("o1")
    said = flow("send", "shop/order.placed", "--data", ORDER, "--id", "o1", apart=True)
    assert f"run {at_work.run_of('o1')}  fulfil  (this event id has started it before)" in said.out
    assert len(at_work.app.runs.list()) == 1


def test_wait_shows_the_result(flow: Flow, at_work: Shop) -> None:
    said = flow("send", "shop/order.placed", "--data", ORDER, "--wait", "--timeout", "20", apart=True)
    assert said.code == 0
    assert said.out.splitlines()[1].endswith('→ {"packed": 2}')


def test_wait_fails_as_the_run_does(flow: Flow, at_work: Shop) -> None:
    order = '{"id": "o1", "valid": false}'
    said = flow("send", "shop/order.placed", "--data", order, "--wait", "--timeout", "20", "--json", apart=True)
    assert said.code == 1
    (run,) = said.document["runs"]
    assert "failed in step 'check'" in run["error"]
    assert said.err.startswith(f"flow: error: run {run['id']} failed in step 'check'")


def test_wait_gives_up_when_told_and_the_run_goes_on(flow: Flow, at_work: Shop) -> None:
    run = at_work.hold()
    said = flow("send", "shop/opened", "--id", "opened", "--wait", "--timeout", "0.2")
    assert said.code == 1
    assert f"run {run} has not ended after 0.2 s; it goes on" in said.err
    assert at_work.app.runs.get(run).status == "running"


def test_typed_data_is_checked_before_it_is_sent(flow: Flow, redis: redis_py.Redis) -> None:
    said = flow("send", "shop/order.placed", "--data", ORDER, "--app", "tests.cli.shop:app")
    assert said.code == 0, said
    assert run_flow("send", "shop/order.placed", "--data", '{"id": 1}', FLOW_APP="tests.cli.shop:app").code == 1
    assert len(sent(redis)) == 1


def test_many_events_a_line_each(flow: Flow, redis: redis_py.Redis) -> None:
    when = datetime.now(UTC) - timedelta(days=1)
    lines = [json.dumps({"name": f"e{n}", "data": n, "id": str(n), "ts": when.isoformat()}) for n in range(1200)]
    said = flow("send", "--stdin", input="\n".join(lines) + "\n\n")
    assert (said.code, said.out, said.err) == (0, "1200 events are sent\n", "")
    assert [decode(event["data"]) for event in sent(redis)] == list(range(1200))
    assert {int(event["ts"]) for event in sent(redis)} == {int(when.timestamp() * 1000)}


def test_many_events_of_one_name_are_lines_of_data(flow: Flow, redis: redis_py.Redis) -> None:
    assert flow("send", "x", "--stdin", "--json", input='{"a": 1}\n[2]\n').document == {"sent": 2}
    assert [(event["name"], decode(event["data"])) for event in sent(redis)] == [(b"x", {"a": 1}), (b"x", [2])]
