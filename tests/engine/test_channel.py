"""A channel that is listened to for long: silence is noticed, and who was held up himself is not misled by that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis as redis_py

from flowlib.address import connect
from flowlib.server import Server
from flowlib.worker import channel
from flowlib.worker.channel import Channel
from tests.crash.proxy import DOWN, UP, Proxy
from tests.patience import until


@pytest.fixture
def proxy(server: Server, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(channel, "_ASK", 0.02)
    monkeypatch.setattr(channel, "_SILENCE", 0.2)
    proxy = Proxy(server.socket)
    yield proxy
    proxy.close()


@pytest.fixture
def listener(proxy: Proxy) -> Iterator[Channel]:
    with connect(f"redis://127.0.0.1:{proxy.port}") as client:
        listener = Channel(client, "news")
        listener.subscribe()
        yield listener
        listener.close()


def test_what_is_said_is_heard_in_order_however_long_it_was_quiet(listener: Channel, redis: redis_py.Redis) -> None:
    for _ in range(3):
        redis.publish("news", "one")
        redis.publish("news", "two")
        assert [until(lambda: listener.hear(0.02)) for _ in range(2)] == [b"one", b"two"]
        for _ in range(20):
            assert listener.hear(0.02) is None


def test_who_was_held_up_hears_what_was_said_meanwhile(listener: Channel, proxy: Proxy, redis: redis_py.Redis) -> None:
    """A process that was paused, or had no share of the processor: nothing is wrong with its connection."""
    for _ in range(3):
        listener.hear(0.0)
        redis.publish("news", "one")
        time.sleep(0.5)  # for so long nobody reads
        assert until(lambda: listener.hear(0.02)) == b"one"
    assert proxy.connections == 1


def test_a_connection_that_falls_silent_is_noticed_and_made_anew(
    listener: Channel, proxy: Proxy, redis: redis_py.Redis
) -> None:
    proxy.hush(UP, DOWN)
    with pytest.raises(redis_py.TimeoutError, match="silent"):
        until(lambda: listener.hear(0.02))
    proxy.speak()
    assert listener.hear(0.02) is None
    redis.publish("news", "one")
    assert until(lambda: listener.hear(0.02)) == b"one"


def test_hanging_up_ends_the_wait(listener: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_ASK", 60.0)
    waiting = threading.Thread(target=listener.hear, args=[60.0])
    waiting.start()
    listener.hang_up()
    waiting.join(30)
    assert not waiting.is_alive()
