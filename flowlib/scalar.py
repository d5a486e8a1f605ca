"""The leaves of an annotation: how a stored number, text, time, Enum or Literal is checked, and what it becomes.

Pure, and below `flowlib.shape`, which puts leaves together to collections and records.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

Convert = Callable[[Any], Any]


class Misfit(Exception):
    """A value does not fit; the path grows from the inside out while the exception passes the containers."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def below(self, segment: str) -> Misfit:
        self.path = segment + self.path
        return self


class Shape(NamedTuple):
    """A compiled annotation; `kinds` and `fields` say which stored values look like it, for unions. What is of the type
    `exact` stays as it is.
    """

    convert: Convert
    kinds: tuple[type, ...] = ()
    fields: frozenset[str] | None = None
    exact: type | None = None

    def all_fit(self, values: Iterable[Any]) -> bool:
        """Would all of them stay as they are? It spares a call for each; False also if that is not known yet."""
        exact = self.exact
        if exact is None:
            return self is UNTOUCHED
        for value in values:  # noqa: SIM110 - `all` takes twice the time
            if type(value) is not exact:
                return False
        return True


def segment(key: object) -> str:
    """One step of a path: `.price`, `[3]`, `['unit price']`."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def expected(what: str, value: object) -> Misfit:
    return Misfit(f"expected {what}, got {'None' if value is None else type(value).__name__}")


def name_of(hint: Any) -> str:
    if hint is None or hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else repr(hint).replace("typing.", "")


def _exactly(kind: type, *others: type, make: Convert | None = None) -> Shape:
    """A value of just this type, or one of the others after `make`; a bool is no int, and a datetime is no date."""
    name = name_of(kind)

    def convert(value: Any) -> Any:
        if type(value) is kind:
            return value
        if make is None or type(value) not in others:
            raise expected(name, value)
        try:
            return make(value)
        except (ValueError, OverflowError, InvalidOperation):
            raise Misfit(f"expected {name}, got {reprlib.repr(value)}") from None

    return Shape(convert, (kind,), exact=kind)


UNTOUCHED = Shape(lambda value: value)
SCALARS: dict[type, Shape] = {
    **{kind: _exactly(kind) for kind in (type(None), bool, int, str, bytes, timedelta)},
    float: _exactly(float, int, make=float),
    bytearray: _exactly(bytearray, bytes, make=bytearray),
    memoryview: _exactly(memoryview, bytes, make=memoryview),
    datetime: _exactly(datetime, str, make=datetime.fromisoformat),
    date: _exactly(date, str, make=date.fromisoformat),
    time: _exactly(time, str, make=time.fromisoformat),
    Decimal: _exactly(Decimal, str, int, make=Decimal),
    UUID: _exactly(UUID, str, make=UUID),
}


def subclass(kind: type) -> Shape:
    """A subclass of a scalar was stored as the scalar. Of any other class, only an instance fits."""
    for base in (int, float, str, bytes, Decimal):
        if issubclass(kind, base):
            return _rewrapped(kind, SCALARS[base])

    def convert(value: Any) -> Any:
        try:
            fits = isinstance(value, kind)
        except TypeError:
            return value  # a Protocol: nothing can be asked of the value
        if not fits:
            raise expected(name_of(kind), value)
        return value

    return Shape(convert)


def _rewrapped(kind: Any, plain: Shape) -> Shape:
    return Shape(lambda value: kind(plain.convert(value)), plain.kinds)


def literal(options: tuple[Any, ...]) -> Shape:
    stored = [(option.value if isinstance(option, Enum) else option, option) for option in options]

    def convert(value: Any) -> Any:
        for plain, option in stored:
            if type(value) is type(plain) and value == plain:
                return option
        raise Misfit(f"expected one of {', '.join(map(repr, options))}, got {reprlib.repr(value)}")

    return Shape(convert, tuple({type(plain) for plain, _ in stored}))


def enum(kind: type[Enum]) -> Shape:
    def convert(value: Any) -> Any:
        try:
            member = kind(value)
        except ValueError:
            raise Misfit(f"expected a value of {kind.__name__}, got {reprlib.repr(value)}") from None
        if isinstance(value, bool) is not isinstance(member.value, bool):  # for Python, True is 1
            raise expected(kind.__name__, value)
        return member

    return Shape(convert, tuple({type(member.value) for member in kind}))
