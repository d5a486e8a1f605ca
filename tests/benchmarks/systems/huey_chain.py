"""Huey: a pipeline by `then`, its rest travelling in the message."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from huey import RedisHuey

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

huey = RedisHuey("bench", url=url())


@huey.task()
def advance(**previous: Any) -> dict[str, Any]:
    return body(previous)  # a dict that a task returns is handed to the next one as keyword arguments


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        pipeline = advance.s(**start_of(run))
        for _ in range(STEPS - 1):
            pipeline.then(advance)
        huey.enqueue(pipeline)


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        advance.schedule(kwargs=start_of(run), eta=datetime.fromtimestamp(until, UTC))
