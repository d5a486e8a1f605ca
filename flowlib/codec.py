"""Values to bytes and back: the one form in which event data, memos and results are kept in Redis.

Owns the wire format: msgpack with extension types. Pure: knows no Redis, no RQ, no run.
What user code sees is always `decode(encode(value), annotation)`, on the first pass as in every replay (I8).

Without any annotation these come back exactly: None, bool, int of any size, float, str (lone surrogates too), bytes,
list, tuple, set, frozenset, dict with any storable key, datetime (naive, fixed offset or ZoneInfo; fold), date, time,
timedelta, Decimal and UUID. Everything else is stored by its shape: an Enum as its value; a dataclass, pydantic model
or msgspec Struct as a dict; a NamedTuple as a tuple; an instance of a subclass of a builtin as the builtin. The
annotation rebuilds it (`flowlib.shape`); without one, the plain shape is what comes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgpack
from msgpack import ExtType

from .errors import PayloadError
from .hints import annotation_of
from .scalar import segment
from .sealed import SEALED, Open, Read, Unopened, opening, refuse
from .shape import converter, is_model, is_struct, rebuild

__all__ = ["annotation_of", "decode", "decoder", "encode", "lower"]

# Extension codes are for ever: data of an older version must stay readable. 11 is that of `sealed.py`.
_TUPLE, _SET, _FROZENSET, _BIGINT, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID = range(1, 11)

# A tuple or set travels as a list whose first item is an empty extension that names it. So msgpack's C code walks into
# it like into any list, and one look for these two bytes tells whether a payload holds any.
_MARK = b"\xc7\x00"

# Objects may nest this deep, or rebuilding them could exceed Python's recursion limit. Plain lists and dicts may go
# as deep as msgpack does (some 500 to 1000 levels, by its version).
_DEEPEST = 200
_NO_HEADERS = bytes({*range(256)} - {*range(0x80, 0xA0), *range(0xDC, 0xE0)})  # bytes that begin no list and no dict
_MICROSECOND = timedelta(microseconds=1)
_BIG_BUFFER = 1 << 20  # a packer that has held more is not kept

Write = Callable[[Any], Any]


def encode(value: object, *, where: str = "value") -> bytes:
    """The bytes to store for `value`; raises `PayloadError` with the path, below `where`, of what cannot be stored.

    >>> encode({"when": socket()}, where="step 'charge': result")
    Traceback (most recent call last):
    PayloadError: step 'charge': result.when: <class 'socket.socket'> cannot be stored
    """
    try:
        packer = _idle.pop()
    except IndexError:
        packer = _Packer()
    try:
        data = packer.pack(value)
    except Exception as error:
        raise PayloadError(_explain(value, where, error)) from error
    if len(data) <= _BIG_BUFFER:
        _idle.append(packer)
    return data


def decode(data: bytes, as_: Any = Any, *, where: str = "value", open: Open | None = None) -> Any:
    """The value stored in `data`, rebuilt as the annotation `as_`; `Any` leaves the plain shape untouched.

    Raises `PayloadError` with the path of what does not fit: `data.items[3].price: expected int, got str`; and, when there
    is something sealed in it and none to `open` it. What `open` raises is raised as it is.
    """
    try:
        value = _unpack(data, _read if open is None else opening(open, _read, _unpack))
    except Unopened as failed:
        raise failed.error from None
    except PayloadError as error:
        raise PayloadError(f"{where}: {error}") from error
    except Exception as error:
        raise PayloadError(f"{where}: the stored data is damaged: {error!r}") from error
    return value if as_ is Any else rebuild(value, as_, where)


def decoder(as_: Any) -> Callable[[bytes], Any]:
    """As `decode`, in half the time, for who decodes to the same annotation again and again. It raises anything: then let
    `decode` say what is wrong.
    """
    convert = converter(as_)
    return _unpack if convert is None else lambda data: convert(_unpack(data))


# -- writing -----------------------------------------------------------------------------------------------------------


class _Packer:
    """A msgpack packer that can be used again, by one caller at a time: `encode` takes it out of `_idle`."""

    __slots__ = ("_met_hashable", "_met_object", "_pack")

    def __init__(self) -> None:
        self._pack = self._packer().pack
        self._met_object = self._met_hashable = False

    def _packer(self, unicode_errors: str | None = None) -> Any:
        return msgpack.Packer(default=self._default, strict_types=True, unicode_errors=unicode_errors)

    def pack(self, value: object) -> bytes:
        inside = [value]  # msgpack packs one level more than it unpacks: this takes that level away
        data: bytes
        try:
            data = self._pack(inside)[1:]
        except UnicodeEncodeError:  # a lone surrogate: rare, and being tolerant of it takes twice the time
            data = self._packer("surrogatepass").pack(inside)[1:]
        if self._met_object:
            self._met_object = False
            _refuse_too_deep(data)
        if self._met_hashable:
            self._met_hashable = False
            _unpack(data)  # what became a dict may have been the key of one, which fails here: better now than later
        return data

    def _default(self, value: Any) -> Any:
        """Called by msgpack for each value that it has no word for."""
        write = _WRITERS.get(type(value))
        if write is not None:
            return write(value)
        lowered = _writer(type(value))(value)
        if type(lowered) in (dict, list):
            self._met_object = True
            self._met_hashable = self._met_hashable or type(value).__hash__ is not None
        return lowered


def _refuse_too_deep(data: bytes) -> None:
    if len(data.translate(None, _NO_HEADERS)) <= _DEEPEST:
        return
    level = [_unpack(data)]
    for _ in range(_DEEPEST):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, (dict, list, tuple, set, frozenset))]
    if level:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


_idle: list[_Packer] = []  # list.pop and list.append are atomic, so threads share it without a lock


class _Unstorable(TypeError):
    """There is no writer for this type."""


def lower(value: Any) -> Any:
    """What msgpack can pack in place of `value`; what is inside of it is not looked at."""
    kind = type(value)
    if kind in _AS_IS:
        return value
    return (_WRITERS.get(kind) or _writer(kind))(value)


def _marked(code: int) -> Write:
    mark = ExtType(code, b"")
    return lambda items: [mark, *items]


def _int(value: int) -> Any:
    return value if -(1 << 63) <= value < 1 << 64 else ExtType(_BIGINT, _int_bytes(value))


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _text(code: int, value: object) -> ExtType:
    return ExtType(code, str(value).encode("utf-8", "surrogatepass"))


def _zone(value: datetime | time) -> str:
    """Empty for a naive value, else a ZoneInfo key, or an offset in microseconds and a name: `+7200000000 CEST`."""
    if value.tzinfo is None:
        return ""
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        return value.tzinfo.key
    offset = value.utcoffset()
    if offset is None:
        raise _Unstorable(f"a time zone of {type(value.tzinfo)} cannot be stored: use zoneinfo.ZoneInfo or an offset")
    name = value.tzname()
    usual = name is None or name == timezone(offset).tzname(None)
    return f"{offset // _MICROSECOND:+d}" + ("" if usual else f" {name}")


def _datetime(value: datetime) -> Any:
    wall = datetime.combine(value.date(), value.time())  # without tzinfo, and never of a subclass
    return _text(_DATETIME, f"{wall.isoformat()}|{value.fold}|{_zone(value)}")


def _time(value: time) -> Any:
    wall = time(value.hour, value.minute, value.second, value.microsecond)
    return _text(_TIME, f"{wall.isoformat()}|{value.fold}|{_zone(value)}")


def _struct(value: Any) -> Any:
    import msgspec  # optional: whoever has a Struct has it

    return msgspec.to_builtins(value, builtin_types=(bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID))


_AS_IS = frozenset({type(None), bool, float, str, bytes, list, dict})
_WRITERS: dict[type, Write] = {
    tuple: _marked(_TUPLE),
    set: _marked(_SET),
    frozenset: _marked(_FROZENSET),
    int: _int,
    datetime: _datetime,
    date: lambda value: _text(_DATE, date.isoformat(value)),
    time: _time,
    timedelta: lambda value: ExtType(_TIMEDELTA, _int_bytes(timedelta.__floordiv__(value, _MICROSECOND))),
    Decimal: lambda value: _text(_DECIMAL, Decimal(value)),
    UUID: lambda value: ExtType(_UUID, value.bytes),
}
_BUILTINS: dict[type, Write] = {
    int: lambda value: _int(int(value)),
    float: float,
    str: str.__str__,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
    list: list,
    dict: dict,
    **{kind: write for kind, write in _WRITERS.items() if kind is not int},
}


def _find_writer(kind: type) -> Write:
    """How to lower an instance of a class that is none of ours and no plain builtin."""
    if issubclass(kind, Enum):
        return lambda member: lower(member.value)
    if dataclasses.is_dataclass(kind):
        return _dataclass_writer(kind)
    if is_model(kind):
        return lambda model: lower(model.model_dump(round_trip=True))
    if is_struct(kind):
        return _struct
    for builtin, write in _BUILTINS.items():
        if issubclass(kind, builtin):
            return write

    def refuse(value: object) -> Any:
        raise _Unstorable(f"{type(value)} cannot be stored")

    return refuse


_writer: Callable[[type], Write] = lru_cache(maxsize=1024)(_find_writer)


def _dataclass_writer(kind: type) -> Write:
    names = [field.name for field in dataclasses.fields(kind)]
    if all(field.init for field in dataclasses.fields(kind)):
        return lambda value: {name: getattr(value, name) for name in names}
    return lambda value: {name: getattr(value, name) for name in names if hasattr(value, name)}


# -- reading -----------------------------------------------------------------------------------------------------------


def _unpack(data: bytes, read: Read | None = None) -> Any:
    hook = _unmark if _MARK[0] in data and _MARK in data else None  # to look for one byte takes a tenth of the time
    read = read or _read
    return msgpack.unpackb(data, ext_hook=read, list_hook=hook, strict_map_key=False, unicode_errors="surrogatepass")


def _read(code: int, data: bytes) -> Any:
    read = _READERS.get(code)
    if read is None:
        raise PayloadError(f"extension type {code} is unknown: it was written by a newer version, or not by flowlib")
    return read(data)


def _unmark(items: list[Any]) -> Any:
    """A marked list becomes what its mark names. Only a mark is ever read as a class."""
    if not (items and isinstance(items[0], type)):
        return items
    kind: Callable[[list[Any]], Any] = items.pop(0)
    try:
        return kind(items)
    except TypeError:
        return items  # a set of dataclasses is a list of dicts, until an annotation rebuilds them


def _tz(zone: str) -> tzinfo | None:
    if not zone:
        return None
    if zone[0] not in "+-":
        try:
            return ZoneInfo(zone)
        except ZoneInfoNotFoundError:
            raise PayloadError(f"time zone {zone!r} is unknown on this machine: install tzdata") from None
    microseconds, *name = zone.split(" ", 1)
    return timezone(timedelta(microseconds=int(microseconds)), *name)


def _moment(kind: type[datetime] | type[time]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> datetime | time:
        wall, fold, zone = data.decode("utf-8", "surrogatepass").split("|", 2)
        return kind.fromisoformat(wall).replace(fold=int(fold), tzinfo=_tz(zone))

    return read


_READERS: dict[int, Callable[[bytes], Any]] = {
    _TUPLE: lambda _: tuple,
    _SET: lambda _: set,
    _FROZENSET: lambda _: frozenset,
    _BIGINT: lambda data: int.from_bytes(data, "big", signed=True),
    _DATETIME: _moment(datetime),
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: _moment(time),
    _TIMEDELTA: lambda data: timedelta(microseconds=int.from_bytes(data, "big", signed=True)),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: UUID(bytes=data),
    SEALED: refuse,
}


# -- explaining --------------------------------------------------------------------------------------------------------


def _explain(value: object, where: str, error: Exception) -> str:
    """Walks the value a second time, slowly, to find the path of what the packer stumbled over."""
    try:
        return _fault(value, where, ()) or f"{where}: cannot be stored: {error}"
    except RecursionError:
        return f"{where}: cannot be stored: it is nested too deeply"


def _fault(value: Any, path: str, above: tuple[int, ...], in_key: bool = False) -> str | None:
    if id(value) in above:
        return f"{path}: contains itself, and cannot be stored"
    try:
        lowered = lower(value)
    except _Unstorable as error:
        return f"{path}: {error}"
    except RecursionError:
        raise
    except Exception as error:
        return f"{path}: {type(value)} cannot be stored: {error}"
    above = (*above, id(value))
    if isinstance(lowered, dict):
        return f"{path}: {type(value)} cannot be the key of a dict" if in_key else _dict_fault(lowered, path, above)
    if isinstance(lowered, list):
        items = lowered[1:] if lowered and isinstance(lowered[0], ExtType) else lowered
        faults = (_fault(item, f"{path}[{index}]", above, in_key) for index, item in enumerate(items))
        return next(filter(None, faults), None)
    return None


def _dict_fault(items: dict[Any, Any], path: str, above: tuple[int, ...]) -> str | None:
    for key, item in items.items():
        found = _fault(key, f"{path}: a key", above, in_key=True) or _fault(item, path + segment(key), above)
        if found:
            return found
    return None
