"""Declarations: what is right is described as it was written, what is wrong is refused when it is imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib import App, AsyncStep, Backoff, ConfigError, Event, EventType, Limits, Step, trigger

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True)
uploaded = EventType("contacts.uploaded", dict)


def pay(event: Event[Any], step: Step) -> int:
    return 1


async def pay_async(event: Event[Any], step: AsyncStep) -> int:
    return 1


@pytest.fixture
def app() -> App:
    return App("shop", queue="shop", retries=2)


def test_a_function_is_given_back_unchanged_and_takes_its_name_from_itself(app: App) -> None:
    def import_contacts_(event: Event[Any], step: Step) -> int:
        return 7

    assert app.function(on="a")(import_contacts_) is import_contacts_
    assert list(app.functions) == ["import-contacts"]


@given(NAMES)
def test_any_proper_name_is_taken(name: str) -> None:
    app = App(name)
    app.function(on="a", name=name)(pay)
    assert (app.name, list(app.functions)) == (name, [name])


WRONG_NAMES = st.one_of(
    st.sampled_from(["", "-a", "_a", ".a", "a b", "a/b", "é", "a\n", "a:b", "a|b", "x" * 101, "<lambda>"]),
    st.characters(exclude_characters="0123456789", exclude_categories=["L"]),
    st.sampled_from([7, b"a", ["a"]]),
)


@given(WRONG_NAMES)
def test_a_bad_name_is_refused_and_shown(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"app .*: a name has 1 to 100 letters"):
        App(name)
    if name:
        with pytest.raises(ConfigError, match=r"function .*: a name has 1 to 100 letters"):
            App("shop").function(on="a", name=name)(pay)


def test_a_function_without_a_proper_name_has_to_be_given_one(app: App) -> None:
    with pytest.raises(ConfigError, match="function '<lambda>'"):
        app.function(on="a")(lambda event, step: 1)
    app.function(on="a", name="given")(lambda event, step: 1)


def test_a_duplicate_function_is_refused_and_the_first_one_is_named(app: App) -> None:
    app.function(on="a")(pay)
    with pytest.raises(
        ConfigError, match=r"duplicate function 'pay' in app 'shop': .*test_function\.pay has that name"
    ):
        app.function(on="b")(pay)
    app.function(on="b", name="pay-2")(pay)
    assert list(app.functions) == ["pay", "pay-2"]


WRONG_BODIES: list[Any] = [
    lambda: 1, lambda event: 1, lambda event, step, more: 1, lambda event, *, step: 1, lambda event, step, *, more: 1, 7,
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG_BODIES)
def test_a_function_that_does_not_take_event_and_step_is_refused(app: App, body: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"function 'odd': a function takes two arguments, \(event, step\)"):
        app.function(on="a", name="odd")(body)


def test_a_function_may_take_more_than_event_and_step_if_that_has_defaults(app: App) -> None:
    def one(event: Event[Any], step: Step, more: int = 1) -> int:
        return more

    def two(*anything: Any, **more: Any) -> int:
        return 1

    app.function(on="a")(one)
    app.function(on="a")(two)
    assert list(app.functions) == ["one", "two"]


@pytest.mark.parametrize(
    "on", [None, 7, [], [uploaded, 7], {}, "", "x" * 257, "tab\there", EventType("", dict)], ids=repr
)
def test_a_trigger_that_is_none_is_refused_and_the_function_is_named(app: App, on: Any) -> None:
    with pytest.raises(ConfigError, match=r"^function 'pay': (on=|event name)"):
        app.function(on=on)(pay)


def test_triggers_are_names_types_or_several_of_them(app: App) -> None:
    app.function(on="a", name="one")(pay)
    app.function(on=uploaded, name="two")(pay)
    app.function(on=["a", uploaded], name="three")(pay)
    app.function(on=(uploaded,), name="four")(pay)
    assert [[t.name for t in fn.triggers] for fn in app.functions.values()] == [
        ["a"], ["contacts.uploaded"], ["a", "contacts.uploaded"], ["contacts.uploaded"],
    ]  # fmt: skip
    three = app.functions["three"]
    assert three.trigger_for("contacts.uploaded") == trigger(uploaded)
    assert three.trigger_for("b") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"timeout": 0},
        {"backoff": -1},
        {"queue": "a b"},
        {"idempotency": timedelta(0)},
        {"idempotency": timedelta(milliseconds=1)},
        {"idempotency": 3600},
        {"retention": timedelta(days=-1)},
        {"limits": {"steps": 3}},
    ],
    ids=repr,
)
def test_a_wrong_setting_is_refused_and_function_and_setting_are_named(app: App, wrong: dict[str, Any]) -> None:
    (setting,) = wrong
    with pytest.raises(ConfigError, match=rf"^function 'pay': .*{setting}"):
        app.function(on="a", **wrong)(pay)
    assert not app.functions


def test_limits_are_those_that_are_documented_unless_others_are_set() -> None:
    """BEHAVIOURS 18, 19, 20, 37."""
    assert Limits() == Limits(output_bytes=4 << 20, state_bytes=32 << 20, steps=10_000, losses=5)
    assert Limits(losses=2).losses == 2


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"output_bytes": -1}, {"state_bytes": 1.5}, {"losses": True}], ids=repr
)
def test_wrong_limits_are_refused(wrong: dict[str, Any]) -> None:
    (limit,) = wrong
    with pytest.raises(ConfigError, match=f"Limits: {limit} must be a whole number >= 1"):
        Limits(**wrong)


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"timeout": -1}, {"queue": ""}], ids=repr)
def test_a_wrong_setting_of_an_app_is_refused_and_the_app_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^app 'shop': "):
        App("shop", **wrong)


def test_a_function_s_settings_go_over_its_app_s_and_these_over_the_defaults(app: App) -> None:
    """BEHAVIOURS 22, for functions."""
    app.function(on="a", name="plain")(pay)
    app.function(on="a", name="own", retries=7, backoff=Backoff(first=1), timeout=5, queue="high")(pay)
    plain, own = (app.functions[name].options for name in ("plain", "own"))
    assert (plain.retries, plain.backoff, plain.timeout, plain.queue) == (2, Backoff(), None, "shop")
    assert (own.retries, own.backoff, own.timeout, own.queue) == (7, Backoff(first=1), 5.0, "high")
    assert App("other").function(on="a")(pay) is pay


def test_a_function_can_be_described_to_who_cannot_import_it(app: App) -> None:
    app.function(on=["a", uploaded], name="one", timeout=1.5, run_timeout=60)(pay_async)
    described = app.functions["one"].describe()
    assert json.loads(json.dumps(described)) == described
    assert described | {"code": ""} == {
        "app": "shop",
        "name": "one",
        "on": ["a", "contacts.uploaded"],
        "asks": False,
        "cron": [],
        "queue": "shop",
        "retries": 2,
        "backoff": [10.0, 2.0, 3600.0],
        "timeout": 1.5,
        "start_timeout": None,
        "run_timeout": 60.0,
        "cancel_on": [],
        "async": True,
        "code": "",
    }
    assert described["code"].endswith("test_function:pay_async")


def test_an_app_says_where_it_can_be_imported_from_or_that_it_cannot() -> None:
    with pytest.raises(ConfigError, match="app 'shop' cannot be imported: assign it to a name at the top of a module"):
        App("shop").location  # noqa: B018
    assert here.location == f"{__name__}:here"


here = App("here")


def book(step: Step) -> None:
    step.on_rollback(print)


class Saga:
    def __init__(self, step: Step) -> None:
        self._step = step

    def book(self) -> None:
        book(self._step)


def test_a_function_undoes_if_it_registers_that_or_what_it_reaches_of_its_package_does(app: App) -> None:
    """So that a run is known to have something to undo before it has said so."""

    def itself(event: Event[Any], step: Step) -> None:
        step.on_rollback(print)

    def by_a_helper(event: Event[Any], step: Step) -> None:
        book(step)

    def by_a_helper_inside(event: Event[Any], step: Step) -> None:
        def inside() -> None:
            book(step)

        inside()

    def by_a_closure(event: Event[Any], step: Step) -> None:
        itself(event, step)

    def by_a_class(event: Event[Any], step: Step) -> None:
        Saga(step).book()

    def never(event: Event[Any], step: Step) -> None:
        step.run("pay", pay, event, step)

    for each in (itself, by_a_helper, by_a_helper_inside, by_a_closure, by_a_class, never):
        app.function(on="a")(each)
    undoing = [function.name for function in app.functions.values() if function.undoes]
    assert undoing == ["itself", "by-a-helper", "by-a-helper-inside", "by-a-closure", "by-a-class"]
