"""Dramatiq: a `pipeline`, its rest travelling in the message."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

dramatiq.set_broker(RedisBroker(url=url()))


@dramatiq.actor
def advance(previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        dramatiq.pipeline([advance.message(start_of(run)), *(advance.message() for _ in range(STEPS - 1))]).run()


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        advance.send_with_options(args=(start_of(run),), delay=round((until - time.time()) * 1000))
