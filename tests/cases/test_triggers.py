"""What starts a function: names, all names of a noun, and conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowlib import ConfigError, Event, EventType, trigger
from tests.cases.case import Case, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Plan:
    name: str
    seats: int = 1


upgraded = EventType("user/upgraded", Plan)


@only_sync
def test_a_noun_stands_for_all_its_events_and_for_no_others(case: Case) -> None:
    """BEHAVIOURS 120."""

    @case.function(on="user/*")
    def f(event: Event[Any], step: Any) -> Any:
        return event.name

    case.start()
    sent = ["user/created", "users/created", "user", "user/profile/changed", "user/*"]
    ids = case.app.send([Event(name, {}) for name in [*sent, "user/last"]])
    until(lambda: case.app.runs.of_event(ids[-1]))
    started = {run.event.name for run in case.app.runs.list()}
    assert started == {"user/created", "user/profile/changed", "user/*", "user/last"}
    assert all(case.ended(run.id).result == run.event.name for run in case.app.runs.list())


@only_sync
def test_only_triggers_whose_condition_says_yes_start_and_two_that_fit_start_one_run(case: Case) -> None:
    """BEHAVIOURS 120."""

    def large(event: Event[Plan]) -> bool:
        return event.data.seats > 10

    @case.function(
        on=[trigger(upgraded, when=large), trigger("user/*", when=lambda event: event.data.get("name") == "pro")]
    )
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(event.id)

    case.start()
    case.app.send(
        [
            Event("user/upgraded", {"name": "free", "seats": 1}, id="neither"),
            Event("user/upgraded", {"name": "pro", "seats": 50}, id="both"),
            Event("user/upgraded", {"name": "free", "seats": 11}, id="first"),
            Event("user/created", {"name": "pro"}, id="second"),
        ]
    )
    until(lambda: len(case.ledger) == 3)
    assert sorted(case.ledger) == ["both", "first", "second"]
    assert len(case.app.runs.list()) == 3


@only_sync
def test_a_condition_that_raises_starts_nothing_and_is_recorded(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """BEHAVIOURS 120: what it does to one function is of no interest to another."""

    def broken(event: Event[Any]) -> bool:
        raise KeyError("plan")

    @case.function(on=trigger("test", when=broken))
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("f")

    @case.function(on=trigger(EventType("test", Plan), when=lambda event: True), name="typed")
    def typed(event: Event[Plan], step: Any) -> Any:
        case.ledger.append("typed")

    @case.function(name="other")
    def other(event: Event[Any], step: Any) -> Any: ...

    case.start()
    store = case.app.store
    store.send_events([("bad", "test", b"\x81\xa3two\x02", 0, "")])  # as an older producer would have sent it
    until(lambda: case.app.runs.of_event("bad"))
    assert [run.function for run in case.app.runs.list()] == ["other"]
    entries: Any = store.client.xrange(store.keys.refused("case"))
    refused = [(fields[b"function"], fields[b"id"], fields[b"why"].decode().partition(":")[0]) for _, fields in entries]
    assert refused == [(b"f", b"bad", "KeyError"), (b"typed", b"bad", "PayloadError")]
    assert [store.client.hget(store.keys.metrics("case"), f"conditions_failed|{fn}||") for fn in ("f", "typed")] == [
        b"1"
    ] * 2
    assert "event 'bad': the condition of f on it raised: it starts nothing" in caplog.text


async def always(event: Event[Any]) -> bool:
    return False


class Always:
    async def __call__(self, event: Event[Any]) -> bool:
        return False


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: "*", r"function 'f': on='\*': a \* stands for all events of a noun, as in 'user/\*'"),
    (lambda: "/*", "a . stands for all events of a noun"),
    (lambda: "user/*/created", "a . stands for all events of a noun"),
    (lambda: "user*", "a . stands for all events of a noun"),
    (lambda: trigger("a", when=7), "function 'f': trigger: when takes a function of the event, got 7"),  # type: ignore[call-overload]
    (lambda: trigger(7), "function 'f': event name 7"),  # type: ignore[call-overload]
    (lambda: trigger("a", when=always), "function 'f': trigger: when is asked and answers at once: .* is async"),
    (lambda: trigger("a", when=Always()), "function 'f': trigger: when is asked and answers at once: .* is async"),
]


@pytest.mark.parametrize(("on", "said"), WRONG)
@only_sync
def test_a_trigger_that_can_never_be_right_is_refused(case: Case, on: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        case.app.function(on=on(), name="f")(lambda event, step: None)
