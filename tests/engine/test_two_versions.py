"""Two versions of an app at work side by side: an event is settled by who knows all functions that are on it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rq import SimpleWorker

from flowlib import App, Event, Step, matching, trigger
from flowlib.dispatch import Dispatcher
from flowlib.testing import check_invariants

from .conftest import LOCATION, Desk


def handle(event: Event[Any], step: Step) -> None: ...


def version(desk: Desk, *on: Any, **cancelled: Any) -> tuple[SimpleWorker, Dispatcher]:
    """A worker of an app with a function for each, and what it reads events with."""
    app = App("desk")
    for n, each in enumerate(on):
        app.function(on=each, name=f"f{n}", cancel_on=cancelled.get(f"f{n}", ()))(handle)
    return deployed(desk, app)


def deployed(desk: Desk, app: App) -> tuple[SimpleWorker, Dispatcher]:
    worker = SimpleWorker(["q"], connection=desk.store.client)
    worker.register_birth()
    desk.store.register_app("desk", app.functions, worker.name)
    desk.store.join_events("desk")
    return worker, Dispatcher("desk", app.functions, LOCATION, desk.store, worker.name, idle_ms=0)


def sent(desk: Desk, name: str) -> None:
    App("sender").connect(store=desk.store).send(Event(name, {"a": 1}, id=name))


def pending(desk: Desk) -> int:
    told: Any = desk.store.client.xpending(desk.store.keys.events, "desk")
    return int(told["pending"])


def handed_to(desk: Desk) -> set[str]:
    told: Any = desk.store.client.xpending(desk.store.keys.events, "desk")
    return {each["name"].decode() for each in told["consumers"]}


def begun(desk: Desk) -> list[str]:
    return sorted(run.function for run in desk.runs.list(limit=None))


@pytest.mark.parametrize(
    ("older", "newer", "name"),
    [
        (["a"], ["a", "b"], "b"),
        (["a"], ["a", "a"], "a"),
        (["a"], ["a", "b/*"], "b/c"),
        (["a"], ["a", "b/*"], "b/c/d"),
        (["a"], ["a", "b/c/*"], "b/c/d"),
        (["a"], ["a", "ü  %s '/ "], "ü  %s '/ "),
        (["a"], ["a", "a\ud800/b/*"], "a\ud800/b/c"),
        (["a"], ["a", trigger("b", when=lambda event: event.data["a"] == 1)], "b"),
    ],
    ids=[
        "new name",
        "new function",
        "noun",
        "noun of more",
        "longer noun",
        "odd name",
        "name that is no text",
        "condition",
    ],
)
def test_an_event_for_a_function_that_only_a_newer_worker_knows_stays_until_that_has_seen_it(
    desk: Desk, older: list[Any], newer: list[Any], name: str
) -> None:
    """I5, BEHAVIOURS 118: whoever reads it first, each function is started once."""
    _, old = version(desk, *older)
    sent(desk, name)
    old.dispatch(old.fresh())
    before = begun(desk)
    assert pending(desk) == 0  # nobody else was there
    _, new = version(desk, *newer)
    App("sender").connect(store=desk.store).send(Event(name, {"a": 1}, id="again"))
    old.dispatch(old.fresh())
    assert pending(desk) == 1
    assert handed_to(desk) == {new._consumer}
    assert len(SimpleWorker.all(connection=desk.store.client)) == 2  # RQ can read what they have told
    old.dispatch_unsettled()
    assert pending(desk) == 1
    new.dispatch_unsettled()
    assert pending(desk) == 0
    assert not desk.store.client.exists(desk.store.keys.asked("desk"))
    assert begun(desk) == sorted([*before, *(f"f{n}" for n, on in enumerate(newer) if name == "a" or n == 1)])


def test_an_event_is_settled_by_whoever_knows_all_that_is_on_it(desk: Desk) -> None:
    _, old = version(desk, "a", "b")
    _, new = version(desk, "a", "c")
    for name in "abc":
        sent(desk, name)
    new.dispatch(new.fresh())
    assert (begun(desk), pending(desk)) == (["f0", "f1"], 1)  # b is on a function of the older one only
    old.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f0", "f1", "f1"], 0)


def test_an_event_goes_from_version_to_version_until_all_functions_were_asked_and_to_none_twice(desk: Desk) -> None:
    """Also those that only declare different functions under one name, and stay side by side for ever."""
    dispatchers: list[Dispatcher] = []
    for n in range(4):
        app = App("desk")
        app.function(on="b" if n < 3 else "c", name=f"f{n}")(handle)
        dispatchers.append(deployed(desk, app)[1])
    sent(desk, "b")
    dispatchers[0].dispatch(dispatchers[0].fresh())
    seen = [0]
    while pending(desk):
        (name,) = handed_to(desk)
        (number,) = (n for n, each in enumerate(dispatchers) if each._consumer == name)
        seen.append(number)
        dispatchers[number].dispatch_unsettled()
    assert sorted(seen) == [0, 1, 2]
    assert begun(desk) == ["f0", "f1", "f2"]
    assert not desk.store.client.exists(desk.store.keys.asked("desk"))
    assert check_invariants(desk.store) == []


def test_a_function_that_is_asked_for_by_name_is_begun_by_who_knows_how_it_is_declared(desk: Desk) -> None:
    """BEHAVIOURS 68, 94, 100: an older worker would begin it without its limits, and without what cancels it."""
    _, old = version(desk, "a")
    app = App("desk")
    app.function(on="b", name="f1", run_timeout=60, retention=timedelta(seconds=90), cancel_on=matching("stop", "a"))(
        handle
    )
    killed, _ = deployed(desk, app)
    asked = App("sender").connect(store=desk.store).call("desk/f1", {"a": 1})
    old.dispatch(old.fresh())
    assert (begun(desk), handed_to(desk)) == ([], {killed.name})
    desk.store.client.delete(desk.store.keys.rq_worker(killed.name))
    _, new = deployed(desk, app)
    old.dispatch_abandoned()
    assert (begun(desk), handed_to(desk)) == ([], {new._consumer})
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f1"], 0)
    record: Any = desk.store.client.hgetall(desk.store.keys.run(asked.run_id))
    assert record.keys() >= {b"ends_by", b"cancels"}
    assert record[b"retention"] == b"90"
    assert check_invariants(desk.store) == []


def test_who_waits_for_invocations_holds_none_of_them_up(desk: Desk) -> None:
    """I5: nobody may any more, but a run of an older version might."""
    desk.store.client.hset(f"{desk.store.keys.prefix}:fields:desk:flow/invoke", "[]", 1)
    _, only = version(desk, "a")
    asked = App("sender").connect(store=desk.store).call("desk/f0", {"a": 1})
    only.dispatch(only.fresh())
    assert ([run.id for run in desk.runs.list()], pending(desk)) == ([asked.run_id], 0)


def test_an_event_that_was_handed_to_one_who_died_goes_on_to_another(desk: Desk) -> None:
    _, old = version(desk, "a")
    killed, _ = version(desk, "a", "b")
    sent(desk, "b")
    old.dispatch(old.fresh())
    assert handed_to(desk) == {killed.name}
    desk.store.client.delete(desk.store.keys.rq_worker(killed.name))
    _, new = version(desk, "a", "b")
    old.dispatch_abandoned()
    assert handed_to(desk) == {new._consumer}
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f1"], 0)


def test_an_event_for_what_nobody_knows_any_more_is_settled_by_anybody(desk: Desk) -> None:
    """A deployment that is taken back, or a trigger that is gone: nothing stays for ever."""
    _, old = version(desk, "a")
    newer, _ = version(desk, "a", "b")
    sent(desk, "b")
    old.dispatch(old.fresh())
    old.dispatch_abandoned()
    assert pending(desk) == 1
    newer.register_death()
    desk.house.bury()
    old.dispatch_abandoned()
    assert pending(desk) == 1  # it may be started again
    desk.store.client.delete(desk.store.keys.rq_worker(newer.name))  # as RQ does it a minute later
    desk.house.bury()
    old.dispatch_abandoned()
    assert (begun(desk), pending(desk)) == ([], 0)


def test_the_only_worker_of_a_version_finds_what_came_while_it_was_started_again(desk: Desk) -> None:
    """I5: also if one of the older version began meanwhile, and all that it knows is told anew."""
    newer, _ = version(desk, "a", "b")
    newer.register_death()
    _, old = version(desk, "a")
    sent(desk, "b")
    old.dispatch(old.fresh())
    old.dispatch_abandoned()
    assert (begun(desk), pending(desk)) == ([], 1)
    _, new = version(desk, "a", "b")
    old.dispatch_abandoned()
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f1"], 0)
    assert check_invariants(desk.store) == []


@pytest.mark.parametrize("before", [True, False], ids=["before RQ has heard of it", "right after"])
@pytest.mark.parametrize("again", [False, True], ids=["new name", "name of a dead one"])
def test_a_worker_that_is_held_up_while_it_begins_finds_what_came_meanwhile(
    desk: Desk, before: bool, again: bool
) -> None:
    """I5: its functions were in the list, so whoever looked there might count on them."""
    app, client = App("desk"), desk.store.client
    for n, name in enumerate("ab"):
        app.function(on=name, name=f"f{n}")(handle)
    worker = SimpleWorker(["q"], "newer", connection=client)
    if again:
        worker.register_birth()
        worker.register_death()
    desk.store.register_app("desk", app.functions, worker.name)
    assert 0 < client.ttl(f"flow:beginning:{worker.name}") <= 60
    if not before:
        worker.register_birth()
    _, old = version(desk, "a")
    assert client.hexists(desk.store.keys.functions("desk"), "f1")
    sent(desk, "b")
    old.dispatch(old.fresh())
    assert (begun(desk), pending(desk)) == ([], 1)
    if before:
        worker.register_birth()
    desk.store.register_app("desk", app.functions, worker.name)
    assert not client.exists(f"flow:beginning:{worker.name}")
    new = Dispatcher("desk", app.functions, LOCATION, desk.store, worker.name, idle_ms=0)
    new.dispatch_abandoned()
    assert (begun(desk), pending(desk)) == (["f1"], 0)
    assert check_invariants(desk.store) == []


def test_many_events_that_stay_are_all_taken_over_at_once(desk: Desk) -> None:
    _, old = version(desk, "a")
    _, new = version(desk, "a", "b")
    app = App("sender").connect(store=desk.store)
    app.send([Event("b" if n % 2 else "a", {}, id=str(n)) for n in range(500)])
    while entries := old.fresh():
        old.dispatch(entries)
    assert pending(desk) == 250
    old.dispatch_unsettled()
    new.dispatch_unsettled()
    assert pending(desk) == 0
    assert begun(desk) == ["f0"] * 250 + ["f1"] * 250
    assert check_invariants(desk.store) == []


@pytest.mark.parametrize("left", ["handed over", "abandoned"])
def test_a_new_event_does_not_wait_behind_many_that_were_left(desk: Desk, left: str) -> None:
    _, old = version(desk, "a")
    _, new = version(desk, "a", "b")
    app = App("sender").connect(store=desk.store)
    app.send([Event("b", {}, id=str(n)) for n in range(300)])
    while entries := old.fresh():
        if left == "handed over":
            old.dispatch(entries)
    sent(desk, "a")
    if left == "handed over":
        new.dispatch_unsettled()
    else:
        new.dispatch_abandoned()
    (newest,) = [run.id for run in desk.runs.list(limit=None) if run.function == "f0"]
    jobs: Any = desk.store.client.lrange(desk.store.keys.rq_queue("flow"), 0, -1)
    assert len(jobs) == 301
    assert [n for n, job in enumerate(jobs) if newest in job.decode()] == [100]


def test_an_event_that_cancels_runs_of_a_newer_version_is_seen_by_that(desk: Desk) -> None:
    """It may come before the run that it is to end."""
    _, old = version(desk, "a")
    _, new = version(desk, "a", "b", f1=matching("stop", "a"))
    sent(desk, "b")
    entries = new.fresh()
    sent(desk, "stop")
    old.dispatch(old.fresh())
    assert pending(desk) == 2
    new.dispatch_abandoned()  # the event that ends it first
    new.dispatch(entries)
    assert pending(desk) == 0
    (run,) = desk.runs.list()
    assert (run.function, run.status, run.reason) == ("f1", "cancelled", "event stop (stop)")
    assert check_invariants(desk.store) == []


def raises(event: Event[Any]) -> bool:
    raise ValueError("never")


def refused(desk: Desk) -> list[bytes]:
    told: Any = desk.store.client.xrange(desk.store.keys.refused("desk"))
    return [fields[b"function"] for _, fields in told]


def test_what_an_event_has_started_is_not_started_again_however_short_a_time_that_is_kept(desk: Desk) -> None:
    """I5: `idempotency` and `retention` may be seconds, and who is handed the event may be dead for longer."""
    _, old = version(desk, "a")
    _, new = version(desk, "a", "a")
    sent(desk, "a")
    (run,) = old.dispatch(old.fresh())
    client, keys = desk.store.client, desk.store.keys
    assert client.delete(keys.once("desk", "f0", "a"), keys.run(run)) == 2  # as when they have expired
    assert len(new.dispatch_abandoned()) == 1
    assert begun(desk) == ["f1"]
    assert pending(desk) == 0


def test_a_condition_that_raised_is_told_once_whoever_settles_the_event(desk: Desk) -> None:
    _, old = version(desk, trigger("a", when=raises))
    app = App("desk")
    app.function(on="a", name="f1")(handle)
    _, new = deployed(desk, app)
    sent(desk, "a")
    old.dispatch(old.fresh())
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk), refused(desk)) == (["f1"], 0, [b"f0"])
    version(desk, trigger("a", when=raises), trigger("a", when=raises))
    sent(desk, "a")
    old.dispatch(old.fresh())
    old.dispatch_unsettled()
    assert refused(desk) == [b"f0", b"f0"]


def test_an_event_that_another_has_settled_meanwhile_leaves_nothing_behind(desk: Desk) -> None:
    """One dispatcher was held up for so long that its event was taken over."""
    _, old = version(desk, "a")
    _, new = version(desk, "a", "a")
    sent(desk, "a")
    entries = old.fresh()
    assert len(new.dispatch_abandoned()) == 2
    assert old.dispatch(entries) == []
    assert not desk.store.client.exists(desk.store.keys.asked("desk"))
    assert begun(desk) == ["f0", "f1"]


def test_a_worker_that_has_not_told_which_events_its_functions_are_on_holds_nothing_up(desk: Desk) -> None:
    """One of an earlier flowlib."""
    worker, _ = version(desk, "a")
    desk.store.client.hdel(desk.store.keys.rq_worker(worker.name), "flow_on")
    _, old = version(desk, "a")
    _, new = version(desk, "a", "b")
    sent(desk, "b")
    old.dispatch(old.fresh())
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f1"], 0)


def test_an_event_that_none_who_lives_knows_is_not_looked_at_all_the_time(desk: Desk) -> None:
    _, old = version(desk, "a")
    newer, _ = version(desk, "a", "b")
    sent(desk, "b")
    newer.register_death()
    old.dispatch(old.fresh())
    assert pending(desk) == 1
    assert old._read("0", None, None) == []  # what it looks for every second
    _, new = version(desk, "a", "b")
    old.dispatch_abandoned()
    new.dispatch_unsettled()
    assert (begun(desk), pending(desk)) == (["f1"], 0)


def test_an_event_that_somebody_has_deleted_while_it_stayed_holds_nothing_up(desk: Desk) -> None:
    _, old = version(desk, "a")
    sent(desk, "a")
    ((entry, _),) = old.fresh()
    desk.store.client.xdel(desk.store.keys.events, entry)
    sent(desk, "a2")
    old.dispatch_unsettled()
    old.dispatch_abandoned()
    old.dispatch(old.fresh())
    assert pending(desk) == 0
