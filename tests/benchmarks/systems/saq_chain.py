"""SAQ: each step enqueues the next."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import cache
from typing import Any

from saq import Queue

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

queue = Queue.from_url(url())


async def advance(context: dict[str, Any], *, previous: dict[str, Any]) -> dict[str, Any]:
    result = body(previous)
    if result["step"] < STEPS:
        await queue.enqueue("advance", previous=result)
    return result


async def wake(context: dict[str, Any], *, previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)


settings = {"queue": queue, "functions": [advance, wake], "concurrency": 10}


def submit(runs: Sequence[int]) -> None:
    _run(_submit(runs))


def nap(naps: Sequence[tuple[int, float]]) -> None:
    _run(_nap(naps))


async def _submit(runs: Sequence[int]) -> None:
    for run in runs:
        await queue.enqueue("advance", previous=start_of(run))


async def _nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        await queue.enqueue("wake", previous=start_of(run), scheduled=until)  # meant for whole seconds, but takes any


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _run(work: Coroutine[Any, Any, None]) -> None:
    _loop().run_until_complete(work)
