"""Classes of every kind that users store, for the tests of the codec."""

from __future__ import annotations

from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime
from enum import Enum, Flag, IntEnum, StrEnum
from typing import (
    Annotated,
    ClassVar,
    Generic,
    NamedTuple,
    NewType,
    NotRequired,
    Protocol,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import msgspec
import pydantic
import typing_extensions

T = TypeVar("T")
UserId = NewType("UserId", int)
Pair = typing_extensions.TypeAliasType("Pair", tuple[T, T], type_params=(T,))


class Colour(Enum):
    RED = "red"
    ONE = 1


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Email(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Movie(TypedDict, total=False):
    title: Required[str]
    year: int


class Remake(Movie):
    of: NotRequired[Movie]
    by: str


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    price: float


@dataclass
class Order:
    id: UserId
    items: list[Item]
    when: datetime | None = None
    by_name: dict[str, Item] = field(default_factory=dict)
    place: Point | None = None
    colour: Colour = Colour.RED
    kind: ClassVar[str] = "order"
    _: KW_ONLY
    note: Annotated[str, "free text"] = ""


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)
    parent: Tree | None = None


@dataclass
class Cat:
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    lives: int = 1
    tricks: list[str] = field(default_factory=list)


@dataclass
class Page(Generic[T]):
    rows: list[T]
    next: Page[T] | None = None


@dataclass
class CatPage(Page[Cat]):
    title: str = ""


@dataclass
class Total:
    """`total` is computed, and then changed by hand: the change must last."""

    parts: list[int]
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.parts)


@dataclass
class Hashed:
    password: InitVar[str]
    digest: str = ""
    tries: list[int] = field(default_factory=list)

    def __post_init__(self, password: str) -> None:
        self.digest = f"#{password}"


@dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError("value must be positive")


class Address(pydantic.BaseModel):
    zip: str = pydantic.Field(alias="zipCode", min_length=5)
    since: datetime | None = None
    tags: set[str] = set()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def short(self) -> str:
        return self.zip[:2]


class Person(pydantic.BaseModel, extra="forbid"):
    name: str
    addresses: dict[str, Address] = {}
    colour: Colour = Colour.RED


class Names(pydantic.RootModel[list[str]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    age: int
    names: list[str] = pydantic.Field(default_factory=list)


class Circle(msgspec.Struct, tag=True, rename="camel", frozen=True):
    radius_in_m: float
    at: tuple[datetime, ...] = ()
    id: UUID | None = None


class Square(msgspec.Struct, tag=True):
    side: float


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class Plain:
    pass


class Sized(Protocol):
    size: int
