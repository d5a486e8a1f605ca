"""`Beside`: what a function has done side by side, said once for both faces: futures in one, coroutines in the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from flowlib import StepFailed
from tests.cases.case import Case


class Beside:
    """Of one function's `step`; what is begun is joined with `yield beside.join(…)`."""

    def __init__(self, case: Case, step: Any) -> None:
        self._step, self._is_async = step, case.way.is_async

    def run(self, id: str, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        face = self._step.options(**options) if options else self._step
        return face.run(id, fn, *args) if self._is_async else face.submit(id, fn, *args)

    def invoke(self, id: str, function: str, data: Any, **settings: Any) -> Any:
        begin = self._step.invoke if self._is_async else self._step.start
        return begin(id, function, data, **settings)

    def wait(self, id: str, event: Any, **settings: Any) -> Any:
        begin = self._step.wait_for_event if self._is_async else self._step.expect_event
        return begin(id, event, **settings)

    def sleep(self, id: str, seconds: float) -> Any:
        return self._step.sleep(id, seconds) if self._is_async else self._step.timer(id, seconds)

    def send(self, id: str, event: Any) -> Any:
        """A sync function sends it as it comes here, while the others are on their way."""
        return self._step.send_event(id, event) if self._is_async else Sent(self._step.send_event(id, event))

    def promised(self, promise: Any) -> Any:
        return promise.result() if self._is_async else promise

    def join(self, *begun: Any) -> Any:
        """The results of all; of one that has failed its error."""
        if self._is_async:
            return asyncio.gather(*begun, return_exceptions=True)
        return [_outcome(each) for each in begun]

    def all(self, *begun: Any) -> Any:
        """As `asyncio.gather` and `step.gather`: raises the first error."""
        return asyncio.gather(*begun) if self._is_async else [each.result() for each in begun]

    def first(self, *begun: Any) -> Any:
        """Which of them came first; the others are dropped."""
        return _first(begun) if self._is_async else begun.index(self._step.first(*begun))


async def _first(begun: Sequence[Any]) -> int:
    tasks = [asyncio.ensure_future(each) for each in begun]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return min(map(tasks.index, done))


class Sent:
    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value


def _outcome(future: Any) -> Any:
    try:
        return future.result()
    except StepFailed as failed:
        return failed
