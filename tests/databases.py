"""Many cases at once, each on a database of its own of one server: for sweeps that kill a worker at each of its commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from flowlib.server import Server

MANY = 200
AT_ONCE = 12  # they mostly wait

T = TypeVar("T")


def strides(some: int) -> pytest.MarkDecorator:
    """Every so many places, and by `make chaos` each. With a stride of 2 a test that kills before and after a command kills
    between any two: after the first, before the third, after that."""
    all = pytest.param(1, id="all", marks=pytest.mark.chaos)
    return pytest.mark.parametrize("stride", [pytest.param(some, id="some"), all])


class Databases:
    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder

    def try_each(self, places: Sequence[int], live: Callable[[str, Path, int], T]) -> dict[int, T]:
        """What `live(url, notes, place)` returns, by place."""

        def one(place: int) -> T:
            return live(self._server.url.replace("db=0", f"db={place}"), self._folder / f"{place}", place)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(places, pool.map(one, places), strict=True))
