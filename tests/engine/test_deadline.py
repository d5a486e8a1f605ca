"""A body that is to end does end, also where Python drops what is raised, and is left alone while it ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flowlib.deadline import TIMEOUT, BodyStopped, Deadline

SOON = 0.05


class Trap:
    """Whatever is raised while it is collected is dropped by Python."""

    def __del__(self) -> None:
        while True:
            time.sleep(0.001)


def on_this_thread(work: Callable[[], None]) -> None:
    work()


def on_another_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the body was never ended"


anywhere = pytest.mark.parametrize("somewhere", [on_this_thread, on_another_thread])


@anywhere
def test_a_stop_that_python_drops_is_repeated_until_the_body_ends(
    somewhere: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a `__del__`, as the collector may call one at any line; BEHAVIOURS 40."""
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: dropped.append(seen.exc_type))
    ended: list[str | None] = []

    def work() -> None:
        deadline = Deadline(SOON)
        try:
            with deadline:
                trap = Trap()
                del trap
                while True:
                    time.sleep(0.001)
        except BodyStopped:
            ended.append(deadline.reason)

    somewhere(work)
    assert ended == [TIMEOUT]
    assert dropped == [BodyStopped]


@anywhere
def test_what_a_body_does_as_it_ends_is_not_stopped_again(somewhere: Callable[[Callable[[], None]], None]) -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            with Deadline(SOON) as deadline:
                try:
                    while True:
                        time.sleep(0.001)
                finally:
                    assert deadline.again is not None
                    until = time.monotonic() + 3 * deadline.again
                    while time.monotonic() < until:
                        time.sleep(0.001)
                    steps.append("cleaned up")
        except BodyStopped:
            steps.append("ended")

    somewhere(work)
    assert steps == ["cleaned up", "ended"]


@anywhere
def test_nothing_of_a_stop_is_left_behind_for_what_comes_next(somewhere: Callable[[Callable[[], None]], None]) -> None:
    """Also when the body swallowed it and ended by itself."""
    steps: list[str] = []

    def work() -> None:
        with Deadline(SOON) as deadline:
            try:
                while True:
                    time.sleep(0.001)
            except BodyStopped:
                steps.append("swallowed")
        assert deadline.again is not None
        until = time.monotonic() + 3 * deadline.again
        while time.monotonic() < until:
            time.sleep(0.001)
        steps.append("next")

    somewhere(work)
    assert steps == ["swallowed", "next"]
