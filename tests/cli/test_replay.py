"""`flow replay` and `flow retry` of one run, and of many at once."""

from __future__ import annotations

import pytest

from flowlib.testing import check_invariants
from tests.cli import shop
from tests.cli.conftest import Flow, Shop
from tests.patience import until


def test_a_run_is_replayed_from_a_step_and_each_of_both_tells_of_the_other(flow: Flow, at_work: Shop) -> None:
    """BEHAVIOURS 139."""
    first = at_work.order("good", items=2)
    said = flow("replay", first.id[:20], "--from", "rest", apart=True)
    new = said.out.split()[1]
    assert said.out == f"run {new} replays {first.id}\n"
    until(lambda: at_work.app.runs.get(new).finished)
    assert f"replays  run {first.id}" in flow("show", new).out
    assert "pack (2)  completed  kept" in flow("show", new).out
    assert f"replayed as run {new}" in flow("show", first.id).out
    document = flow("show", new, "--json").document
    assert (document["replay_of"], document["steps"][0]["origin"]) == (first.id, "kept")
    assert shop.tries["good"] == 1


def test_a_memo_is_set_as_json(flow: Flow, at_work: Shop) -> None:
    first = at_work.order("good", items=2)
    new = flow("replay", "last", "--set", "charge=null", "--set", "pack (2)=7", "--json", apart=True).document
    assert new["replay_of"] == first.id
    until(lambda: at_work.app.runs.get(new["id"]).finished)
    assert at_work.app.runs.outputs(new["id"])["pack (2)"] == 7
    assert shop.tries["good"] == 1


def test_many_are_counted_first_and_then_replayed(flow: Flow, at_work: Shop) -> None:
    bad = [at_work.order(f"bad{n}", valid=False).id for n in range(3)]
    at_work.order("good")
    chosen = ("--function", "fulfil", "--status", "failed")
    said = flow("replay", *chosen, "--dry-run")
    assert said.out.splitlines()[0] == "would replay 3 runs:"
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == bad
    assert [each["id"] for each in flow("replay", *chosen, "--dry-run", "--json").document] == bad
    assert flow("replay", *chosen, "--match", "id=bad1", "--dry-run", "--json").document[0]["id"] == bad[1]
    refused = flow("replay", *chosen)
    assert (refused.code, "--yes, to replay 3 runs" in refused.err) == (2, True)
    assert len(at_work.app.runs.list()) == 4
    replayed = flow("replay", *chosen, "--yes", "--json", apart=True).document
    assert [each["replay_of"] for each in replayed] == bad
    until(lambda: all(at_work.app.runs.get(each["id"]).finished for each in replayed))
    assert check_invariants(at_work.app.store) == []


def test_many_failed_runs_are_retried_and_the_others_left_alone(
    flow: Flow, at_work: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [at_work.order(f"bad{n}", valid=False).id for n in range(2)]
    at_work.order("good")
    monkeypatch.setattr(shop.check, "__code__", (lambda order: None).__code__)  # as if mended
    said = flow("retry", "--function", "fulfil", "--since", "1h", "--yes", apart=True)
    assert said.out.splitlines() == [f"run {run} goes on: step 'check' is tried again" for run in bad]
    until(lambda: all(at_work.app.runs.get(run).status == "completed" for run in bad))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say one RUN, or which ones"),
        (["last", "--status", "failed"], "say one RUN, or which ones"),
        (["last", "--set", "charge"], "say it as STEP=JSON"),
        (["last", "--set", "charge={"], "--set charge is no JSON"),
        (["--match", "id"], "say it as FIELD=VALUE"),
        (["last", "--from", "nowhere"], "has no step 'nowhere': it has charge, rest, check"),
        (["last", "--set", "rest=1"], "step 'rest' of run"),
    ],
)
def test_what_makes_no_sense_is_refused(flow: Flow, at_work: Shop, arguments: list[str], says: str) -> None:
    at_work.order("good")
    said = flow("replay", *arguments)
    assert (said.code in (1, 2), said.out) == (True, "")
    assert says in said.err
    assert len(at_work.app.runs.list()) == 1
