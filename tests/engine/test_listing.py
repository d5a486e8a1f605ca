"""Runs that are listed while others begin and expire: each once, and none is passed over."""

from __future__ import annotations

import pytest

from .conftest import Desk


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "all in one millisecond"])
def test_all_that_were_there_are_listed_once_whatever_begins_and_expires_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """BEHAVIOURS 134."""
    monkeypatch.setattr("flowlib.runs.CHUNK", 3)
    index, client = desk.store.keys.runs("desk"), desk.store.client
    runs: list[str] = []
    for n in range(14):
        assert desk.start(f"old {n}")[0] == 1
        (new,) = {run.id for run in desk.runs.list(limit=None)} - {*runs}
        runs.append(new)
        client.zadd(index, {new: 1_000_000 if at_once else 1_000_000 + n})
    listing = desk.runs._newest_first(float("-inf"), False)
    listed = [next(listing).id for _ in range(4)]
    for n in range(5):
        desk.start(f"new {n}")
    gone = [listed[0], *({*runs} - {*listed})][:2]
    client.zrem(index, *gone)
    listed += [run.id for run in listing]
    assert len(listed) == len({*listed})
    assert {*listed} >= {*runs} - {*gone}
    assert {*listed} <= {*runs}
