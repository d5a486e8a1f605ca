"""Which Redis a URL names, and a client for it: a server, a server behind TLS, whichever the Sentinels call the master,
or the node of a cluster that has the keys.

    redis://[user:password@]host[:port][/db]                  rediss:// the same over TLS
    unix://[user:password@]/path/to/redis.sock[?db=0]
    redis+sentinel://[user:password@]host[:port],…/MASTER[/db]   rediss+sentinel:// the same over TLS, Sentinels too
    redis+cluster://[user:password@]host[:port],…             rediss+cluster:// the same over TLS

Options follow in the query under redis-py's names: `?ssl_ca_certs=/etc/ssl/redis.pem&socket_timeout=10`. Sentinels that
want a password of their own are told `sentinel_username` and `sentinel_password`.

Knows nothing of what is sent, and opens no connection itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, parse_url
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from .cluster import AGAIN, in_cluster
from .keys import Keys

TIMEOUT = 5.0  # seconds of silence after which a connection is given up
_LEAST_TIMEOUT = 2.0  # workers wait in blocking commands of one second
_SENTINEL_TIMEOUT = 1.0  # another Sentinel is asked then
_SENTINEL_PORT = 26379
_DRIVER: dict[str, Any] = {}  # else redis-py reads its package's metadata for each connection: 0.6 ms
with contextlib.suppress(ImportError):  # of an older one, which reads them once
    from redis.driver_info import DriverInfo

    _DRIVER["driver_info"] = DriverInfo()
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


class Unusable(ValueError):
    """Why a URL cannot be used, in words that quote nothing of it: it may hold a password."""


def connect(url: str, keys: Keys | None = None, **options: Any) -> redis.Redis:
    """A client with a pool of its own; what the URL says wins over `options`. Raises ValueError, of which only
    an `Unusable` may be shown.

    Of a cluster it is the node that has these keys, by default those that the environment names. Raises ConfigError when
    they are not all on one node.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise Unusable(f"it begins with none of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, **_DRIVER, **options}
    if parts.scheme != "unix":
        options["socket_keepalive"] = True
    if "cluster" in parts.scheme:
        options.setdefault("retry", AGAIN)
    kwargs = {**options, **_named_by(url, parts, keys or Keys())}
    if kwargs["socket_timeout"] < _LEAST_TIMEOUT:
        raise Unusable(f"its socket_timeout must be at least {_LEAST_TIMEOUT:g} seconds")
    pool = ConnectionPool(**kwargs)
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, redis.RedisError) as error:  # an option that does not exist, a value that it cannot have
        told = str(error).replace("Connection.__init__() got an", "there is an")
        raise (ValueError if "@" in parts.query else Unusable)(told) from None  # of a password with a question mark
    return redis.Redis.from_pool(pool)


def _named_by(url: str, parts: SplitResult, keys: Keys) -> dict[str, Any]:
    """What a pool is made of, as parse_url returns it."""
    named: dict[str, Any]
    if "sentinel" in parts.scheme:
        named = _behind_sentinels(parts)
    elif "cluster" in parts.scheme:
        named = in_cluster(url, keys)
    else:
        named = parse_url(url)
    return named


def shown(url: str) -> str:
    """The address without its user name and passwords."""
    return re.sub(r"(password=)[^&]*", r"\1…", re.sub(r"//.*@", "//…@", url, flags=re.DOTALL))


# -- behind Sentinels --------------------------------------------------------------------------------------------------


class _ToMaster(redis.Connection):
    """Asks where the master is whenever it connects: so all that reconnects, RQ's threads too, follows a failover."""

    def __init__(self, *, find_master: Callable[[], tuple[str, int]], **kwargs: Any) -> None:
        self._find_master = find_master
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        try:
            self.host, self.port = self._find_master()
        except ResponseError as error:
            raise ConnectionError(f"a Sentinel does not say where the master is: {error}") from error
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except ReadOnlyError as error:  # the master of before, demoted: only a new connection finds the one of now
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError(f"{self.host}:{self.port} is no longer the master") from error


class _ToMasterOverTLS(_ToMaster, SSLConnection):
    """The same, and RQ sees that it is TLS."""


def _behind_sentinels(parts: SplitResult) -> dict[str, Any]:
    """What a pool is made of, as parse_url returns it."""
    user, _, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not hosts or not master:
        raise Unusable("it must name Sentinels and a master: redis+sentinel://host:26379,host:26379/MASTER")
    scheme = parts.scheme.removesuffix("+sentinel")
    kwargs = parse_url(f"{scheme}://{user}{'@' if user else ''}host/{db}?{parts.query}")
    tls = kwargs.pop("connection_class", None) is SSLConnection
    asking = {name: value for name, value in kwargs.items() if name.startswith("ssl_")}
    for name in ("username", "password"):
        asking[name] = kwargs.pop(f"sentinel_{name}", None)
    sentinels = Sentinel(
        [_host_and_port(each) for each in hosts.split(",")],
        sentinel_kwargs={
            **asking,
            "ssl": tls,
            "socket_timeout": _SENTINEL_TIMEOUT,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    del kwargs["host"]
    return {
        **kwargs,
        "connection_class": _ToMasterOverTLS if tls else _ToMaster,
        "find_master": partial(sentinels.discover_master, unquote(master)),
    }


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise Unusable("one of its Sentinels has no host")
    return parts.hostname, parts.port or _SENTINEL_PORT
