"""Which Redis a URL names: what each form of it comes to, what is refused, and what is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import SSLConnection, UnixDomainSocketConnection

from flowlib import ServerError
from flowlib.address import TIMEOUT, connect, shown
from flowlib.server import Server
from flowlib.store import Store


def settings(url: str, **options: Any) -> dict[str, Any]:
    with connect(url, **options) as client:
        pool = client.connection_pool
        return {**pool.connection_kwargs, "class": pool.connection_class}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://10.0.0.5", {"host": "10.0.0.5"}),
        ("redis://ann:pa%40ss@host:7000/3", {"username": "ann", "password": "pa@ss", "host": "host", "port": 7000, "db": 3}),
        ("unix://:pass@/run/redis.sock?db=2", {"path": "/run/redis.sock", "password": "pass", "db": 2}),
        ("unix:///run/redis.sock", {"class": UnixDomainSocketConnection}),
        ("rediss://host/1?ssl_ca_certs=/etc/ca.pem", {"class": SSLConnection, "ssl_ca_certs": "/etc/ca.pem", "db": 1}),
        ("redis+sentinel://ann:pass@a,b:26380/mymaster/4", {"username": "ann", "password": "pass", "db": 4}),
        ("redis+sentinel://[::1]:26379/mymaster?socket_timeout=9", {"socket_timeout": 9.0}),
    ],
)  # fmt: skip
def test_a_url_says_where_and_how(url: str, expected: dict[str, Any]) -> None:
    assert settings(url).items() >= expected.items()


def test_every_connection_notices_silence_unless_the_url_says_otherwise() -> None:
    """A server that vanishes without a word would else be waited for until the kernel gives up."""
    assert settings("redis://host").items() >= {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}.items()
    assert settings("redis://host", socket_timeout=3)["socket_timeout"] == 3
    assert settings("redis://host?socket_timeout=8", socket_timeout=3)["socket_timeout"] == 8


def test_sentinels_behind_tls_are_asked_over_tls_with_a_password_of_their_own() -> None:
    """To RQ, which looks at the class, it is a TLS connection."""
    found = settings("rediss+sentinel://ann:pass@a:1,b/main?ssl_ca_certs=/ca.pem&sentinel_password=ask")
    assert issubclass(found["class"], SSLConnection)
    sentinels = found["find_master"].func.__self__.sentinels
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels]
    assert [(kwargs["host"], kwargs["port"]) for kwargs in asked] == [("a", 1), ("b", 26379)]
    assert {(kwargs["password"], kwargs["username"], kwargs["ssl_ca_certs"]) for kwargs in asked} == {
        ("ask", None, "/ca.pem")
    }
    assert found["password"] == "pass"


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "host:6379",
        "redis://host:port",
        "redis://host?db=first",
        "redis://host?colour=blue",
        "rediss://host?ssl_cert_reqs=perhaps",
        "redis://host?socket_timeout=0.5",
        "redis+sentinel://host:26379",
        "redis+sentinel:///mymaster",
        "redis+sentinel://a,,b/mymaster",
        "redis+sentinel://a:port/mymaster",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_the_door(url: str) -> None:
    """I10: at once, and not when the first command is sent."""
    with pytest.raises(ServerError, match=r"is no Redis URL: .+; e[.]g[.] redis:"):
        Store(url)


def test_what_is_wrong_is_said_of_a_url_with_a_password_too() -> None:
    """A mistake that is easily made: TLS options without TLS."""
    with pytest.raises(ServerError, match="ssl_ca_certs"):
        Store("redis://ann:secret@host?ssl_ca_certs=/etc/ca.pem")


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:secret@host:port",
        "redis+sentinel://ann:secret@a,b",
        "redis://host:port?password=secret",
        "redis+sentinel://a:port/main?sentinel_password=secret&db=1",
        "redis://ann:my?secret=1@host",
    ],
)
def test_no_password_is_shown_not_even_of_a_wrong_url(url: str) -> None:
    assert "secret" not in shown(url)
    with pytest.raises(ServerError) as refused:
        Store(url)
    assert "secret" not in str(refused.value)


def test_a_server_is_reached_by_each_kind_of_url(tmp_path: Path) -> None:
    with Server.start(tmp_path / "server", port=-1) as server:
        for url in (f"redis://127.0.0.1:{server.port}/1", f"unix://{server.socket}?db=1"):
            with connect(url) as client:
                assert client.incr("reached") > 0
                assert client.client_info()["db"] == 1
        with pytest.raises(redis.ConnectionError, match="does not say where the master is"):
            connect(f"redis+sentinel://127.0.0.1:{server.port}/mymaster").ping()
