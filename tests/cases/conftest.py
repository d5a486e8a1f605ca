"""The fixture that gives a test of behaviour its app and its workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cases.case import WAYS, Case


@pytest.fixture(params=WAYS, ids=str)
def case(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Case]:
    """In all four ways, unless the test is marked `in_place`, `only_sync` or `only_async`."""
    case = Case(request.param, redis_url)
    yield case
    case.close()
