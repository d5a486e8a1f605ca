"""Annotations: what was stored by its shape is rebuilt as the type that asks for it, or refused by path (I8, I10)."""

from __future__ import annotations

import collections
import sys
from collections.abc import Collection, Iterable, Mapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Optional,
    Union,
)
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.codec import decode, encode
from flowlib.errors import PayloadError
from tests.kernel.shapes import (
    Address,
    Cat,
    CatPage,
    Checked,
    Circle,
    Colour,
    Dog,
    Email,
    Hashed,
    Item,
    Level,
    Mode,
    Movie,
    Names,
    Order,
    Page,
    Pair,
    Person,
    Plain,
    Point,
    Positive,
    Remake,
    Rights,
    Row,
    Sized,
    Square,
    T,
    Total,
    Tree,
    UserId,
)

if TYPE_CHECKING:
    from numbers import Unreachable  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Order(UserId(1), [Item("a", 1.5)], NOON, {"b": Item("b", 2.0)}, Point(1, 2.0), Colour.ONE, note="x"), Order),
        ([Item("a", 1.0)], list[Item]),
        ({"x": [Item("a", 1.0)]}, dict[str, list[Item]]),
        ({(1, "a"): Item("a", 1.0)}, dict[tuple[int, str], Item]),
        ({Colour.RED: Level.LOW}, dict[Colour, Level]),
        ({Item("a", 1.0), Item("b", 2.0)}, set[Item]),
        (frozenset({frozenset({Item("a", 1.0)})}), frozenset[frozenset[Item]]),
        ((1, "a"), tuple[int, str]),
        ((Item("a", 1.0), 2), tuple[Item, int]),
        ((1, 2, 3), tuple[int, ...]),
        ((), tuple[()]),
        ((1, "x"), tuple),
        (Point(1, 2.0), Point),
        ([Point(1)], list[Point]),
        ({"title": "Alien", "year": 1979}, Movie),
        ({"title": "Alien"}, Movie),
        ({"title": "Alien", "by": "x", "of": {"title": "y"}}, Remake),
        (Tree(1, [Tree(2, [Tree(3)])], Tree(0)), Tree),
        (Page([Cat("a")], Page([Cat("b")])), Page[Cat]),
        (CatPage([Cat("a")], title="cats"), CatPage),
        (Item("a", 1.0), Item | None),
        (None, Optional[Item]),  # noqa: UP045
        (Cat("a"), Union[Dog, Cat]),  # noqa: UP007
        (Dog("a"), Cat | Dog),
        ([Dog("a"), Cat("b"), None], list[Cat | Dog | None]),
        (1, float | int),
        (1.0, int | float),
        (True, int | bool),
        ("2026-01-01", datetime | str),
        (NOON, str | datetime),
        (NOON.date(), datetime | date),
        ([1], tuple[int, ...] | list[int]),
        ((1,), list[int] | tuple[int, ...]),
        (Mode.FAST, Mode | int),
        ("red", Literal["red", "blue"]),
        (Colour.RED, Literal[Colour.RED]),
        (None, Literal["a", None]),
        (1, Annotated[int, []]),
        (5, UserId),
        ([UserId(5)], list[UserId]),
        (Colour.ONE, Colour),
        (Rights.READ | Rights.WRITE, Rights),
        (Email("a@b"), Email),
        (bytearray(b"x"), bytearray),
        (collections.OrderedDict(b=Level.LOW), collections.OrderedDict[str, Level]),
        (collections.Counter(a=2), collections.Counter[str]),
        ([Cat("a")], Sequence[Cat]),
        ((Cat("a"),), Sequence[Cat]),
        ([Cat("a")], MutableSequence[Cat]),
        ({1, 2}, Iterable[int]),
        ({1, 2}, Collection[int]),
        ({Colour.RED}, AbstractSet[Colour]),
        ({"a": Cat("a")}, Mapping[str, Cat]),
        ((Level.LOW, Level.LOW), Pair[Level]),
        (Total([1, 2]), Total),
        (Address(zipCode="12345", since=NOON, tags={"x"}), Address),
        (Person(name="a", addresses={"home": Address(zipCode="12345")}, colour=Colour.ONE), Person),
        ([Person(name="a")], list[Person | None]),
        (Names(["a"]), Names),
        (Checked(3, ["a"]), Checked),
        (Circle(1.5, (NOON,), UUID(int=1)), Circle),
        ([Circle(1.5), Square(2.0)], list[Square | Circle]),
        (Row(1, "x"), Row),
        ({"a": 1}, object),
        ([1, "x"], Any),
        ([1, "x"], list),
        ({1: "x"}, dict),
        ({1}, set),
        ("x", T),
        (None, None),
        (timedelta(1), timedelta),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),  # a repr of a set differs from process to process
)  # fmt: skip
def test_a_value_is_rebuilt_as_its_annotation_says(value: Any, annotation: Any) -> None:
    """The codec's part of BEHAVIOURS 8."""
    seen = decode(encode(value), annotation)
    assert seen == value
    assert type(seen) is type(value)
    if isinstance(value, (list, tuple)):
        assert list(map(type, seen)) == list(map(type, value))


ITEMS = st.builds(Item, st.text(), st.floats(allow_nan=False))
TREES: st.SearchStrategy[Tree] = st.deferred(
    lambda: st.builds(Tree, st.integers(), st.lists(TREES, max_size=2), st.none() | TREES)
)
ORDERS = st.builds(
    Order,
    st.integers().map(UserId),
    st.lists(ITEMS, max_size=3),
    st.none() | st.datetimes(timezones=st.timezones()),
    st.dictionaries(st.text(), ITEMS, max_size=3),
    st.builds(Point, st.integers(), st.floats(allow_nan=False)),
    st.sampled_from(Colour),
    note=st.text(),
)


@given(st.one_of(TREES, ORDERS, ITEMS))
@settings(max_examples=50)
def test_whatever_dataclass_is_stored_comes_back_equal(value: Any) -> None:
    assert decode(encode(value), type(value)) == value
    assert decode(encode([value]), list[Item | Tree | Order]) == [value]


@pytest.mark.parametrize(
    ("stored", "annotation", "seen"),
    [
        ("2026-01-01T12:00:00+00:00", datetime, NOON),
        ("2026-01-01T12:00:00Z", datetime, NOON),
        ("2026-01-01", date, date(2026, 1, 1)),
        ("12:30", time, time(12, 30)),
        ("1.50", Decimal, Decimal("1.50")),
        (2, Decimal, Decimal(2)),
        ("00000000-0000-0000-0000-000000000001", UUID, UUID(int=1)),
        ([1, 1, 2], set[int], {1, 2}),
        ([1, 2], frozenset[int], frozenset({1, 2})),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1], Point, Point(1)),
        ({"name": "a", "price": 3}, Item, Item("a", 3.0)),
        ({"id": 1, "items": [{"name": "a", "price": 1.0}]}, Order, Order(UserId(1), [Item("a", 1.0)])),
        ({"parts": [1, 2]}, Total, Total([1, 2])),
        ({"zipCode": "12345"}, Address, Address(zipCode="12345")),
        ({"radiusInM": 1, "type": "Circle"}, Circle, Circle(1.0)),
        ({"name": "a", "lives": 3}, Dog | Cat, Cat("a", 3)),
        ({"name": "a", "tricks": []}, Cat | Dog, Dog("a")),
    ],
)
def test_what_json_cannot_say_is_taken_in_its_usual_spelling(stored: Any, annotation: Any, seen: Any) -> None:
    assert decode(encode(stored), annotation) == seen
    assert type(decode(encode(stored), annotation)) is type(seen)


@pytest.mark.parametrize(
    ("stored", "annotation", "message"),
    [
        ("x", int, "data: expected int, got str"),
        (True, int, "data: expected int, got bool"),
        (True, float, "data: expected float, got bool"),
        (1, bool, "data: expected bool, got int"),
        (1.0, int, "data: expected int, got float"),
        (10**400, float, "data: expected float, got 1000000000"),
        (1, str, "data: expected str, got int"),
        (b"x", str, "data: expected str, got bytes"),
        (None, int, "data: expected int, got None"),
        (1, None, "data: expected None, got int"),
        (NOON, date, "data: expected date, got datetime"),
        ("soon", datetime, "data: expected datetime, got 'soon'"),
        ("much", Decimal, "data: expected Decimal, got 'much'"),
        ("x", UUID, "data: expected UUID, got 'x'"),
        ({"name": "a"}, Item, "data.price: missing, and Item needs it"),
        ({"name": "a", "price": 1.0, "unit price": 2}, Item, "data['unit price']: Item has no such field"),
        ({"name": "a", "price": "1"}, Item, "data.price: expected float, got str"),
        ([], Item, "data: expected Item, got list"),
        ({"rows": [{"name": "a"}, {"name": 2}]}, Page[Cat], "data.rows[1].name: expected str, got int"),
        ({"id": 1, "items": [], "by_name": {"x y": 3}}, Order, "data.by_name['x y']: expected Item, got int"),
        ({"id": 1, "items": [], "colour": "blue"}, Order, "data.colour: expected a value of Colour, got 'blue'"),
        ([[1, 2, 3]], list[Point], "data[0]: expected Point of 2 items, got 3"),
        ({"id": 1, "items": [], "kind": "x"}, Order, "data.kind: Order has no such field"),
        ({"value": -1}, Positive, "data: Positive refused it: value must be positive"),
        ({"value": -1}, Positive | None, "data: Positive refused it: value must be positive"),
        (True, Colour, "data: expected Colour, got bool"),
        ("blue", Literal["red", 1], "data: expected one of 'red', 1, got 'blue'"),
        (True, Literal["red", 1], "data: expected one of 'red', 1, got True"),
        ([1, "x"], list[int], "data[1]: expected int, got str"),
        ((1, 2), list[int], "data: expected list, got tuple"),
        ([1, 2, 3], tuple[int, int], "data: expected a tuple of 2 items, got 3"),
        ([1], tuple[()], "data: expected a tuple of 0 items, got 1"),
        ([1, "x"], tuple[int, int], "data[1]: expected int, got str"),
        (["x"], set[int], "data[0]: expected int, got str"),
        ([[1]], set, "data: cannot become a set: unhashable type: 'list'"),
        ({"a": 1}, dict[int, int], "data.a: expected int, got str"),
        ("abc", Sequence[str], "data: expected Sequence, got str"),
        ({"year": 1}, Movie, "data.title: missing, and Movie needs it"),
        ({"title": "x", "yaer": 1}, Movie, "data.yaer: Movie has no such field"),
        ({"title": "x"}, Remake, "data.by: missing, and Remake needs it"),
        ([], int | str, "data: expected int | str, got list"),
        ({"x": 1}, Cat | Dog, "data."),
        ({"name": "a", "lives": "x"}, Cat | None, "data.lives: expected int, got str"),
        ({"name": "a", "lives": "x"}, Cat | Dog, "data.lives: expected int, got str"),
        ({"name": "x", "addresses": {"home": {"zip": "1"}}}, Person, "data.addresses.home.zip"),
        ({"name": "x", "more": 1}, Person, "data.more: Extra inputs are not permitted"),
        ({"type": "Circle", "radiusInM": 1, "at": ["x"]}, Circle, "data.at[0]: Invalid RFC3339"),
        ([1, 2], Row, "data[1]: Expected `str`, got `int`"),
        ({}, Plain, "data: expected Plain, got dict"),
        ("x", Path, "data: expected Path, got str"),
        (1, "Nowhere", "data: the annotation 'Nowhere' cannot be resolved"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_path(stored: Any, annotation: Any, message: str) -> None:
    """The codec's part of BEHAVIOURS 5: bad event data is refused with a clear error (I10)."""
    with pytest.raises(PayloadError) as refused:
        decode(encode(stored), annotation, where="data")
    assert str(refused.value).startswith(message)


def test_a_union_is_tried_in_the_order_in_which_it_is_written() -> None:
    """Python holds `A | B` and `B | A` for equal; they must not share what was compiled."""
    stored = encode({"name": "a"})
    assert decode(stored, Cat | Dog) == Cat("a")
    assert decode(stored, Dog | Cat) == Dog("a")


def test_a_field_that_init_does_not_take_is_what_was_stored() -> None:
    changed = Total([1, 2])
    changed.total = 100
    assert decode(encode(changed), Total).total == 100


def test_a_class_with_an_init_var_is_restored_and_not_made_anew() -> None:
    assert decode(encode(Hashed("secret")), Hashed).digest == "#secret"
    first, second = (decode(encode({"digest": "#x"}), Hashed) for _ in range(2))
    assert first.tries == []
    assert first.tries is not second.tries


def test_a_default_dict_comes_back_without_its_factory() -> None:
    seen = decode(encode(collections.defaultdict(int, a=1)), collections.defaultdict[str, int])
    assert isinstance(seen, collections.defaultdict)
    assert seen == {"a": 1}
    with pytest.raises(KeyError):
        seen["b"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements came with Python 3.12")
def test_a_type_alias_may_contain_itself() -> None:
    names: dict[str, Any] = {"Cat": Cat}
    exec("type Herd = Cat | list[Herd]", names)
    assert decode(encode([Cat("a"), [Cat("b")]]), names["Herd"]) == [Cat("a"), [Cat("b")]]
    with pytest.raises(PayloadError):
        decode(encode([1]), names["Herd"])


def test_a_protocol_leaves_the_value_as_it_is() -> None:
    assert decode(encode({"size": 1}), Sized) == {"size": 1}


def test_a_class_whose_fields_cannot_be_resolved_is_refused_by_name() -> None:
    @dataclass
    class Lost:
        where: Unreachable

    with pytest.raises(PayloadError, match=r"the fields of .*Lost.* cannot be resolved: name 'Unreachable'"):
        decode(encode({"where": 1}), Lost)


def test_data_that_nests_too_deeply_for_its_annotation_is_refused() -> None:
    data: Any = {"value": 1}
    for _ in range(450):
        data = {"value": 1, "parent": data}
    with pytest.raises(PayloadError, match="nested too deeply to be rebuilt as Tree"):
        decode(encode(data), Tree)
