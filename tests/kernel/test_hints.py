"""What a callable returns, through decorators, partials, methods and string annotations (I8 needs to know)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
)

import pytest

from flowlib.codec import annotation_of, decode, encode
from tests.kernel.shapes import (
    Item,
)

if TYPE_CHECKING:
    from numbers import Unreachable  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def plain(item: Unreachable) -> list[Item]:
    raise NotImplementedError


def unreachable() -> Unreachable:
    raise NotImplementedError


def silent():  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def later() -> Item:
    raise NotImplementedError


def promise() -> Awaitable[Item]:
    raise NotImplementedError


def coroutine() -> Coroutine[Any, Any, Item]:
    raise NotImplementedError


def nothing() -> None:
    raise NotImplementedError


@functools.wraps(plain)
def wrapped(*args: Any) -> Any:
    raise NotImplementedError


@functools.cache
def cached() -> Item:
    raise NotImplementedError


class Service:
    def call(self) -> Item:
        raise NotImplementedError

    @classmethod
    def make(cls) -> Item:
        raise NotImplementedError

    @staticmethod
    def static() -> Item:
        raise NotImplementedError

    def __call__(self) -> Item:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "annotation"),
    [
        (plain, list[Item]),
        (wrapped, list[Item]),
        (functools.partial(functools.partial(plain, 1)), list[Item]),
        (unreachable, Any),
        (silent, Any),
        (later, Item),
        (promise, Item),
        (coroutine, Item),
        (nothing, type(None)),
        (cached, Item),
        (Service().call, Item),
        (Service.make, Item),
        (Service.static, Item),
        (Service(), Item),
        (functools.partial(Service().call), Item),
        (Item, Item),
        (int, int),
        (len, Any),
        ("".join, Any),
        (lambda: 1, Any),
    ],
)
def test_the_annotation_of_a_callable_is_what_it_returns(fn: Callable[..., Any], annotation: Any) -> None:
    assert annotation_of(fn) == annotation
    assert annotation_of(fn) is annotation_of(fn) or fn is Service.make


def test_a_function_inside_a_function_may_return_a_class_that_is_defined_there() -> None:
    @dataclass
    class Local:
        inner: Local | None = None

    def make() -> Local:
        return Local(Local())

    assert annotation_of(make) is Local
    assert decode(encode(make()), annotation_of(make)) == make()
