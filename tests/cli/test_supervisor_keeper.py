"""What the supervisor says to Redis, and how often it tries while nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from flowlib.worker.keeper import LONGEST_WAIT, Death, Keeper
from tests.cli.conftest import wait_until


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
    waits: list[float | None] = []
    wait = keeper._nudged.wait

    def noted(seconds: float | None = None) -> bool:
        waits.append(seconds)
        return wait(seconds)

    keeper._nudged.wait = noted  # type: ignore[method-assign]
    keeper.start(lambda: ["job:1"])
    keeper.hear(door.url)
    keeper.bury(Death("anna"))
    wait_until(lambda: len(waits) >= 7)
    keeper.stop()
    assert [each for each in waits if each is not None and each < 20][-4:] == [0.4, 0.8, LONGEST_WAIT, LONGEST_WAIT]
    assert door.calls < 10 * len(waits)
    (said,) = [record.message for record in caplog.records if record.name == "flowlib.supervisor"]
    assert "no lease is renewed from here until it answers" in said
