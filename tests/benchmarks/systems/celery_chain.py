"""Celery: a `chain`, its rest travelling in the message. `acks_late` is the setting that survives a killed worker."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from celery import Celery, chain

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

app = Celery("bench", broker=url(), backend=url().removesuffix("/0") + "/1")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


@app.task(name="advance")
def advance(previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        chain(advance.s(start_of(run)), *(advance.s() for _ in range(STEPS - 1))).apply_async()


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        advance.apply_async((start_of(run),), eta=datetime.fromtimestamp(until, UTC))
