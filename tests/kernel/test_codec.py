"""I8: what user code sees is `decode(encode(value), annotation)`: each value comes back, or is refused by its path."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.codec import decode, encode
from flowlib.errors import PayloadError
from flowlib.readable import jsonable
from tests.identical import identical


class Colour(Enum):
    RED = "red"
    BOX = (1, 2)


class Level(IntEnum):
    LOW = 1
    HUGE = 2**70


class Mode(StrEnum):
    FAST = "fast"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Contact:
    name: str
    tags: list[str] = field(default_factory=list)
    friend: Contact | None = None


@dataclass(frozen=True)
class Key:
    id: int


class Text(str):
    """Says something else of itself than it is."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


ZONES = ["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "UTC"]
OFFSETS = st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23))
TZ = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from(ZONES).map(ZoneInfo),
    OFFSETS.map(timezone),
    st.builds(timezone, OFFSETS, st.text(max_size=5)),
)
FOLDS = st.integers(0, 1)
ANY_TEXT = st.text(st.characters())  # lone surrogates too
MOMENTS = st.builds(lambda at, tz, fold: at.replace(tzinfo=tz, fold=fold), st.datetimes(), TZ, FOLDS)
TIMES = st.builds(lambda at, tz, fold: at.replace(tzinfo=tz, fold=fold), st.times(), TZ, FOLDS)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
HASHABLE_LEAVES = st.one_of(
    PLAIN,
    st.integers(min_value=-(2**200), max_value=2**200),
    ANY_TEXT,
    MOMENTS,
    st.dates(),
    TIMES,
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
).filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))  # Python cannot hash those
KEYS = st.recursive(HASHABLE_LEAVES, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
    )


VALUES = st.recursive(HASHABLE_LEAVES, containers, max_leaves=12)


@given(VALUES)
@settings(max_examples=300)
def test_every_supported_value_comes_back_exactly_without_an_annotation(value: Any) -> None:
    """The codec's part of BEHAVIOURS 4 and 8."""
    assert identical(decode(encode(value)), value)


@given(VALUES)
def test_a_decoded_value_is_encoded_and_decoded_to_itself_again(value: Any) -> None:
    seen = decode(encode(value))
    assert identical(decode(encode(seen)), seen)


@pytest.mark.parametrize(
    "value",
    [
        2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -0.0, math.nan, -math.inf,
        "\ud800", {"\udfff": "\ud800"}, (), ((),), set(), frozenset(), {(1, "a"): {2: None}}, [(), [], {}],
        frozenset({frozenset({1}), (2, frozenset())}), Decimal("sNaN"), Decimal("-0E+7"), Decimal("NaN123"),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), datetime.min, datetime.max, date.min,
        time(2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), timedelta.max, timedelta.min, timedelta(microseconds=-1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5, seconds=1, microseconds=2), "a|b c")),
        b"\xc7\x00\x01", [b"\xc7\x00"],
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else f"int of {value.bit_length()} bits",
)  # fmt: skip
def test_the_edges_of_each_type_come_back_exactly(value: Any) -> None:
    seen = decode(encode(value))
    if isinstance(value, int):
        assert seen == value  # too long for repr
    else:
        assert identical(seen, value)


class LocalTime(tzinfo):
    """A zone that is neither ZoneInfo nor a fixed offset, as dateutil and pytz make them."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return timedelta(hours=3) if _ else None

    def tzname(self, _: datetime | None) -> str:
        return "LT"

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)


def test_a_foreign_time_zone_keeps_the_instant_and_its_name() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=LocalTime())
    seen = decode(encode(moment))
    assert seen == moment
    assert seen.tzname() == "LT"


def test_a_time_in_a_zone_without_a_date_that_it_needs_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"value: a time zone of .*LocalTime.* cannot be stored"):
        encode(time(12, tzinfo=LocalTime()))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Colour.RED, "red"),
        (Colour.BOX, (1, 2)),
        (Level.LOW, 1),
        (Level.HUGE, 2**70),
        (Mode.FAST, "fast"),
        (Point(1, 2), (1, 2)),
        (Contact("Ada", ["x"]), {"name": "Ada", "tags": ["x"], "friend": None}),
        (Text("is"), "is"),
        (type("Int", (int,), {})(7), 7),
        (type("Float", (float,), {})(0.5), 0.5),
        (type("When", (datetime,), {})(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(int, a=1), {"a": 1}),
        (Counter("aa"), {"a": 2}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        ({Key(1)}, [{"id": 1}]),
        ({Colour.RED: Mode.FAST}, {"red": "fast"}),
    ],
)
def test_without_an_annotation_the_shape_comes_back(value: Any, stored: Any) -> None:
    assert identical(decode(encode(value)), stored)
    assert identical(decode(encode([value, (value,)])), [stored, (stored,)])


def cycle() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


def friends() -> Contact:
    ada = Contact("Ada")
    ada.friend = Contact("Bob", friend=ada)
    return ada


def nested(levels: int, wrap: Any) -> Any:
    value: Any = None
    for _ in range(levels):
        value = wrap(value)
    return value


class Broken:
    def __init__(self) -> None:
        self.model_dump = None

    @staticmethod
    def model_validate(value: object) -> None:
        raise NotImplementedError


@dataclass
class Lazy:
    size: int = field(init=False)
    name: str = "x"


class Moody(Key):
    def __getattribute__(self, name: str) -> Any:
        if name == "id":
            raise ConnectionError("no database")
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (socket, "value: <class 'module'> cannot be stored"),
        (Key, "value: <class 'type'> cannot be stored"),
        ({"items": [1, 2, 3, {"when": object()}]}, "value.items[3].when: <class 'object'> cannot be stored"),
        ({"unit price": {1: deque()}}, "value['unit price'][1]: <class 'collections.deque'> cannot be stored"),
        ([Contact("Ada", friend=Contact("Bob", tags=[Path()]))], "value[0].friend.tags[0]: <class "),  # type: ignore[list-item]
        ((1, ("x", lambda: 1)), "value[1][1]: <class 'function'> cannot be stored"),
        ({1j}, "value[0]: <class 'complex'> cannot be stored"),
        ({frozenset({object}): 1}, "value: a key[0]: <class 'type'> cannot be stored"),
        ({"a": {Key(1): 2}}, "value.a: a key: <class 'tests.kernel.test_codec.Key'> cannot be the key of a dict"),
        ({(0, Key(1)): 2}, "value: a key[1]: <class 'tests.kernel.test_codec.Key'> cannot be the key of a dict"),
        ([Moody(1)], "value[0]: <class 'tests.kernel.test_codec.Moody'> cannot be stored: no database"),
        (cycle(), "value[1].again: contains itself"),
        (friends(), "value.friend.friend: contains itself"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_its_path(value: Any, message: str) -> None:
    """The codec's part of BEHAVIOURS 9: the error names the path inside the value (I10)."""
    with pytest.raises(PayloadError) as refused:
        encode(value)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 300


def test_the_path_of_an_error_begins_with_what_the_caller_says() -> None:
    with socket.socket() as wire, pytest.raises(PayloadError) as refused:
        encode({"when": wire}, where="step 'charge': result")
    assert str(refused.value) == "step 'charge': result.when: <class 'socket.socket'> cannot be stored"
    with pytest.raises(PayloadError, match=r"^data\.a: expected int, got str$"):
        decode(encode({"a": "x"}), dict[str, int], where="data")


WRAPS = [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"a": inner}]


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_nests_too_deeply_is_refused_and_what_is_not_refused_comes_back(wrap: Any) -> None:
    for levels in (1, 400, *range(500, 530), *range(1000, 1040), 100_000):
        try:
            data = encode(nested(levels, wrap))
        except PayloadError as refused:
            assert levels > 500 and str(refused).startswith("value: cannot be stored: ")  # noqa: PT017, PT018
        else:
            assert levels < 100_000
            assert encode(decode(data)) == data


@pytest.mark.parametrize("around", [lambda value: value, lambda value: [value] * 2])
def test_objects_that_can_be_stored_can_be_rebuilt_however_deep_they_nest(around: Any) -> None:
    chain = around(nested(198, lambda inner: Contact("x", friend=inner)))
    annotation = list[Contact] if isinstance(chain, list) else Contact
    assert encode(decode(encode(chain), annotation)) == encode(chain)
    for levels in (202, 400, 600, 5000):
        with pytest.raises(PayloadError, match=r"^value: cannot be stored: it is nested"):
            encode(around(nested(levels, lambda inner: Contact("x", friend=inner))))


def test_the_codec_works_on_after_a_refusal() -> None:
    for _ in range(3):
        with pytest.raises(PayloadError):
            encode([b"x" * 1000, object()])
        assert decode(encode([1, (2,)])) == [1, (2,)]


def test_an_attribute_that_was_never_set_is_left_out() -> None:
    assert decode(encode(Lazy())) == {"name": "x"}


def test_a_value_may_encode_others_while_it_is_encoded() -> None:
    @dataclass(frozen=True)
    class Envelope:
        inner: Any

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            return encode(found) if name == "inner" else found

    seen = decode(encode([Envelope((1, Envelope("deep"))), "after"]))
    assert decode(decode(seen[0]["inner"])[1]["inner"]) == "deep"
    assert seen[1] == "after"


def test_threads_that_encode_at_once_do_not_mix_their_bytes() -> None:
    wrong: list[Any] = []

    def work(mine: int) -> None:
        for n in range(300):
            value = {"mine": mine, "items": [(mine, n)] * 20, "at": timedelta(n)}
            if decode(encode(value)) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.binary(max_size=60))
def test_bytes_that_we_did_not_write_are_decoded_or_refused_but_nothing_else_happens(data: bytes) -> None:
    try:
        decode(data)
    except PayloadError:
        return


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the stored data is damaged"),
        (encode("abc")[:-1], "the stored data is damaged"),
        (encode(1) + b"\x01", "the stored data is damaged"),
        (msgpack.packb(msgpack.ExtType(99, b"")), "extension type 99 is unknown"),
        (encode(datetime.min.replace(tzinfo=ZoneInfo("UTC"))).replace(b"UTC", b"XYZ"), "time zone 'XYZ' is unknown"),
    ],
)
def test_damaged_data_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PayloadError) as refused:
        decode(data, where="run 01J: result")
    assert str(refused.value).startswith(f"run 01J: result: {message}")


@given(VALUES)
def test_the_readable_form_of_every_value_is_json_and_can_be_printed(value: Any) -> None:
    json.dumps(jsonable(value), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        ([date(2026, 1, 2), time(3, 4), timedelta(days=1, seconds=2)], ["2026-01-02", "03:04:00", "1 day, 0:00:02"]),
        ({1: (2, 3), None: {3, 1, 2}, (1, "a"): Decimal("1.50")}, {"1": [2, 3], "null": [1, 2, 3], '[1, "a"]': "1.50"}),
        ([b"text", b"\xff\x00"], ["b'text'", "base64:/wA="]),
        ([math.nan, math.inf, 1.5], ["nan", "inf", 1.5]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([Colour.BOX, Level.LOW, Mode.FAST, Point(1, 2)], [[1, 2], 1, "fast", [1, 2]]),
        (Contact("Zoë"), {"name": "Zoë", "tags": [], "friend": None}),
        ("\ud800", "\\ud800"),
        (friends(), {"name": "Ada", "tags": [], "friend": {"name": "Bob", "tags": [], "friend": "…"}}),
        (object, "<class 'object'>"),
    ],
)
def test_the_readable_form(value: Any, shown: Any) -> None:
    assert jsonable(value) == shown


def test_the_readable_form_of_a_number_too_long_for_python_to_print() -> None:
    assert jsonable(-(16**4000)) == "-0x1" + "0" * 4000


def test_a_uuid_keeps_its_version() -> None:
    made = uuid4()
    assert decode(encode(made)).version == 4
