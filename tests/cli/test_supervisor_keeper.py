"""What the supervisor says to Redis, and how often it tries while nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from flowlib.worker.keeper import LONGEST_WAIT, Death, Keeper
from tests.patience import until


class SlammingDoor:
    """A server that hangs up on everybody at once, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            self.calls += 1
            caller.close()

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


class Pauses(threading.Event):
    """An event that notes for how long it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.lengths.append(timeout)
        return super().wait(timeout)


@pytest.fixture
def door() -> Iterator[SlammingDoor]:
    door = SlammingDoor()
    yield door
    door.close()


def test_a_redis_that_is_away_is_asked_again_later_and_later_and_told_of_once(
    door: SlammingDoor, caplog: pytest.LogCaptureFixture
) -> None:
    """No busy loop: with waits that double, ten tries take seconds; without, they would be thousands."""
    keeper = Keeper(lease=60.0)
    keeper._nudged = pauses = Pauses()
    keeper.start(lambda: ["job:1"])
    keeper.hear(door.url)
    keeper.bury(Death("anna"))
    until(lambda: len(pauses.lengths) >= 7)
    keeper.stop()
    assert pauses.lengths[-4:] == [0.4, 0.8, LONGEST_WAIT, LONGEST_WAIT]
    assert door.calls < 10 * len(pauses.lengths)
    (said,) = [record.message for record in caplog.records if record.name == "flowlib.supervisor"]
    assert "no lease is renewed from here until it answers" in said
