"""I8: what a function sees of a step's value is what was stored, on the first pass as in every replay."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from flowlib import Event, EventType
from tests.cases.case import Case, in_place
from tests.identical import identical
from tests.kernel.shapes import (
    Address,
    Circle,
    Colour,
    Item,
    Level,
    Mode,
    Movie,
    Names,
    Order,
    Page,
    Person,
    Point,
    Rights,
    Row,
    Tree,
    UserId,
)

BERLIN = ZoneInfo("Europe/Berlin")

# What a step says that it returns, and what it does return.
VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (bool, True),
    (int, -7),
    (int, 2**200),
    (float, 0.1),
    (float, float("-inf")),
    (str, "naïve 🎉 \ud800"),
    (bytes, b"\x00\xff"),
    (list[Any], [1, [2, [None]]]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], ()),
    (set[int], {1, 2}),
    (frozenset[str], frozenset("ab")),
    (dict[str, int], {"a": 1}),
    (dict[int, Any], {1: (2, {3})}),
    (dict[tuple[int, int], str], {(1, 2): "x"}),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC)),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)),
    (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=45)))),
    (date, date(2026, 2, 28)),
    (time, time(23, 59, 59, 999999)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (Colour, Colour.ONE),
    (Level, Level.LOW),
    (Mode, Mode.FAST),
    (Rights, Rights.READ | Rights.WRITE),
    (UserId, UserId(7)),
    (Item, Item("pen", 1.5)),
    (Order, Order(UserId(1), [Item("pen", 1.5)], datetime(2026, 1, 1), {"p": Item("x", 0.0)}, Point(1, 2.0), note="n")),
    (Tree, Tree(1, [Tree(2), Tree(3, [Tree(4)])])),
    (Page[Item], Page([Item("pen", 1.5)], Page([]))),
    (Point, Point(1, 2.5)),
    (Movie, {"title": "M", "year": 1931}),
    (Person, Person(name="Ada", addresses={"home": Address(zipCode="12345", tags={"a"})}, colour=Colour.ONE)),
    (Names, Names(["a", "b"])),
    (Circle, Circle(1.5, (datetime(2026, 1, 1),), UUID(int=1))),
    (Row, Row(1, "x")),
    (Item | None, None),
    (int | Item, Item("pen", 2.0)),
    (list[Item], [Item("pen", 1.5), Item("ink", 2.5)]),
    (dict[str, tuple[Point, ...]], {"line": (Point(0), Point(1))}),
    (inspect.Signature.empty, {"nothing said": (1, {2}, b"3", Decimal(4))}),
    (Any, [datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1)]),
]


def returning(annotation: Any, value: Any) -> Callable[[], Any]:
    def body() -> Any:
        return value

    body.__annotations__ = {} if annotation is inspect.Signature.empty else {"return": annotation}
    return body


def test_values_of_every_type_are_the_same_on_the_first_pass_and_on_replays(case: Case) -> None:
    """BEHAVIOURS 8."""
    passes: list[list[Any]] = []
    bodies = [returning(annotation, value) for annotation, value in VALUES]

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        seen: list[Any] = []
        passes.append(seen)
        for n, body in enumerate(bodies):
            seen.append((yield step.run(f"value-{n}", body)))
        yield step.sleep("pause", 0.01)
        yield step.sleep("again", 0.01)

    run = case.run()
    assert run.status == "completed", run.error
    assert len(passes[-1]) == len(VALUES)
    assert len(passes) >= 3
    for seen in passes:
        for (annotation, value), got in zip(VALUES, seen, strict=False):
            assert identical(got, value), f"{annotation}: {value!r} became {got!r}"
            assert got == value, f"{annotation}: {value!r} became {got!r}"


@in_place
def test_what_a_function_does_to_a_value_does_not_reach_the_memo(case: Case) -> None:
    """I8: every pass gets a value of its own."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        rows = yield step.run("rows", case.body("rows", [1, 2]))
        rows.append(3)
        yield step.sleep("pause", 0.01)
        return rows

    run = case.run()
    assert run.result == [1, 2, 3]
    assert case.app.runs.outputs(run.id)["rows"] == [1, 2]


@in_place
def test_the_first_pass_sees_what_was_stored_and_not_what_was_returned(case: Case) -> None:
    """I8: a subclass, or a list where a tuple was promised, is what it will be after a replay from the start."""

    class Loud(str):
        __slots__ = ()

    def promised() -> tuple[str, ...]:
        return [Loud("a")]  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    seen = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        seen.append((yield step.run("promised", promised)))
        yield step.sleep("pause", 0.01)

    assert case.run().status == "completed"
    assert seen == [("a",), ("a",)]
    assert {type(value[0]) for value in seen} == {str}


def nested() -> dict[str, Any]:
    return {"items": [1, {"when": object()}]}


def wrong() -> list[int]:
    return [1, "two"]  # type: ignore[list-item]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (nested, "step 'charge': result.items[1].when: <class 'object'> cannot be stored"),
        (lambda: (n for n in [1]), "step 'charge': result: <class 'generator'> cannot be stored"),
        (lambda: print, "step 'charge': result: <class 'builtin_function_or_method'> cannot be stored"),
    ],
    ids=["nested", "generator", "function"],
)
def test_a_value_that_cannot_be_stored_fails_its_step_without_retries(
    case: Case, body: Callable[[], Any], message: str
) -> None:
    """BEHAVIOURS 9: the error names the step and the path inside the value."""
    calls = []

    def counted() -> Any:
        calls.append(1)
        return body()

    counted.__annotations__ = body.__annotations__

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("charge", counted)

    run = case.run()
    assert run.error is not None
    assert (run.error.type, run.error.message, run.error.step, run.error.attempt) == (
        "PayloadError",
        message,
        "charge",
        1,
    )
    assert len(calls) == 1


def test_a_value_that_is_not_what_the_step_promised_fails_the_run_and_the_place_is_named(case: Case) -> None:
    """BEHAVIOURS 9."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("charge", wrong)
        yield step.run("never", case.body("never"))

    run = case.run()
    assert run.error is not None
    assert (run.error.type, run.error.message) == ("PayloadError", "step 'charge': result[1]: expected int, got str")
    assert case.ledger == []


@in_place
def test_a_result_of_the_function_is_typed_by_its_annotation(case: Case) -> None:
    @case.app.function(on=EventType("sync", dict))
    def sync(event: Event[Any], step: Any) -> Item:
        return Item("pen", 1.5)

    @case.app.function(on=EventType("async", dict), name="async")
    async def asynchronous(event: Event[Any], step: Any) -> list[Item]:
        return [Item("pen", 1.5)]

    assert case.run(event=Event("sync", {})).result == Item("pen", 1.5)
    assert case.run(event=Event("async", {})).result == [Item("pen", 1.5)]


@in_place
def test_a_result_that_cannot_be_stored_fails_the_run_once(case: Case) -> None:
    """BEHAVIOURS 9, for the function itself."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("called")
        return {"made": object()}

    run = case.run()
    assert run.error is not None
    assert run.error.type == "PayloadError"
    assert run.error.message == f"run {run.id}: result.made: <class 'object'> cannot be stored"
    assert case.ledger == ["called"]
